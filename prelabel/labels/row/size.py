"""Serialises a label row, measures its request, and says what would fit if it is too large for the platform."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from prelabel.errors import RowTooLargeError
from prelabel.labels.row.own import INTERPOLATED_CONFIDENCE, LabelRow, find_own

FRAMES_DEPTH = 4
"""Levels of a row's JSON down to the labels on a frame: row, data units, unit, labels by frame."""


def json_pieces(value: Any, depth: int = FRAMES_DEPTH) -> Iterator[bytes]:
    """Yields a value's JSON in pieces.

    So the whole text of a large row is never in memory at once.

    Args:
        value: of plain JSON types, or an `orjson.Fragment`.
        depth: levels of objects to split; deeper objects, and the answers of all instances, are one piece each.

    >>> list(json_pieces({"a": {"b": [1, 2]}, "c": {}}, depth=1))
    [b'{"a":', b'{"b":[1,2]}', b',"c":', b'{}', b'}']
    """
    if depth == 0 or not isinstance(value, dict) or not value:
        yield orjson.dumps(value)
        return
    opening = b"{"
    for key, inner in value.items():
        yield opening + orjson.dumps(key) + b":"
        yield from json_pieces(inner, 0 if key == "object_answers" else depth - 1)
        opening = b","
    yield b"}"


def without_fragments(row: LabelRow) -> LabelRow:
    """Returns a row whose labels may be `orjson.Fragment`s, with the labels themselves."""
    plain: LabelRow = orjson.loads(orjson.dumps(row))
    return plain


SENT_KEYS = frozenset(
    [
        "label_hash",
        "branch_name",
        "created_at",
        "last_edited_at",
        "dataset_hash",
        "dataset_title",
        "data_title",
        "data_hash",
        "data_type",
        "data_units",
        "object_answers",
        "classification_answers",
        "object_actions",
        "label_status",
        "annotation_task_status",
        "is_valid",
        "spaces",
        "scene",
    ]
)
"""Keys of a row that `Project.save_label_row` sends; the SDK drops all others (`encord.orm.label_row.LabelRow`)."""


def save_request(row: LabelRow) -> dict[str, Any]:
    """Returns the request that saves a row: that of `Project.save_label_row`, with validation."""
    payload = {key: value for key, value in row.items() if key in SENT_KEYS}
    values = {"uid": row["label_hash"], "payload": {**payload, "validate_before_saving": True}}
    return {"query_type": "labelrow", "query_method": "POST", "values": values}


def row_num_bytes(row: LabelRow) -> int:
    """Returns the size in bytes of the request that saves a row."""
    return sum(map(len, json_pieces(save_request(row), FRAMES_DEPTH + 2)))


def check_row_size(row: LabelRow, max_row_bytes: int) -> int:
    """Returns `row_num_bytes` after checking it against the limit.

    Args:
        row: to save.
        max_row_bytes: the platform's limit.

    Raises:
        RowTooLargeError: the row is larger than the limit. The message names a threshold and a stride that would fit.
    """
    num_bytes = row_num_bytes(row)
    if num_bytes <= max_row_bytes:
        return num_bytes
    sizes = _OwnSizes.measure(without_fragments(row))
    raise RowTooLargeError(
        f"label row {row.get('data_title')!r}: got {_mb(num_bytes)} MB, expected {_mb(max_row_bytes)} MB at most "
        f"({_mb(num_bytes - max_row_bytes)} MB too many): {sizes.advice(num_bytes, max_row_bytes)}"
    )


@dataclass(frozen=True, slots=True)
class _OwnSizes:
    """The sizes of the boxes of prelabel's own instances on a row, as columns.

    A row that follows the advice fits. For a threshold, only whole tracks count as removed, because a missing box
    within a track is filled in again. For a stride, only boxes count as removed, and no track. No stride is advised for
    rows with filled-in boxes, because a stride would add more of these.

    Attributes:
        num_bytes: (N,) int64, size of a box, plus that of its instance's answers entry if it is the only box.
        confidence: (N,) float64, highest measured confidence of the box's instance.
        frame_index: (N,) int64.
        instance: (N,) int64.
        is_filled: (N,) bool, whether the box is filled in between two boxes of a track.
        entry_bytes: size of the largest answers entry.
    """

    num_bytes: NDArray[np.int64]
    confidence: NDArray[np.float64]
    frame_index: NDArray[np.int64]
    instance: NDArray[np.int64]
    is_filled: NDArray[np.bool_]
    entry_bytes: int

    @classmethod
    def measure(cls, row: LabelRow) -> _OwnSizes:
        answers = row["object_answers"]
        found: list[tuple[int, float, int, int, bool]] = []
        entry_bytes = 0
        for instance, (key, placed) in enumerate(find_own(row).items()):
            entry = _num_bytes({key: answers.get(key)})
            entry_bytes = max(entry_bytes, entry)
            measured = [score for score in map(_confidence, placed.values()) if score != INTERPOLATED_CONFIDENCE]
            confidence = max(measured, default=INTERPOLATED_CONFIDENCE)
            found += [
                (
                    _num_bytes(label) + (entry if len(placed) == 1 else 0),
                    confidence,
                    frame_index,
                    instance,
                    len(placed) > 1 and _confidence(label) == INTERPOLATED_CONFIDENCE,
                )
                for (_, frame_index), label in placed.items()
            ]
        num_bytes, confidences, frame_indices, instances, filled = zip(*found, strict=True) if found else ((),) * 5
        return cls(
            np.array(num_bytes, np.int64),
            np.array(confidences, np.float64),
            np.array(frame_indices, np.int64),
            np.array(instances, np.int64),
            np.array(filled, np.bool_),
            entry_bytes,
        )

    def advice(self, num_bytes: int, max_row_bytes: int) -> str:
        room = max_row_bytes - (num_bytes - int(self.num_bytes.sum()))
        if room < 0:
            return f"{_mb(max_row_bytes - room)} MB of it are not prelabel's and cannot be removed"
        if self.is_filled.any():
            # In the worst case, each box that is not filled in becomes an instance of its own, with an answers entry.
            found = ~self.is_filled
            fits = self.num_bytes[found].sum() + self.entry_bytes * found.sum() <= room
            fewer = "labels.keyframes.between=empty" if fits else None
        else:
            fewer = self._stride(room)
        ways = [way for way in (self._threshold(room), fewer) if way]
        return "what would fit: " + " or ".join(ways) if ways else "no threshold or stride would fit"

    def _threshold(self, room: int) -> str | None:
        """Returns the lowest threshold, to two decimals, at which the instances fit; None if none does."""
        for step in range(1, 100):
            keep = self.confidence >= step / 100
            if keep.any() and self.num_bytes[keep].sum() <= room:
                num_kept, num = len(np.unique(self.instance[keep])), len(np.unique(self.instance))
                return f"labels.conf={step / 100:.2f} ({num_kept:,} of {num:,} instances)"
        return None

    def _stride(self, room: int) -> str | None:
        """Returns the smallest stride at which the instances fit; None if none does.

        It is a multiple of the row's own stride.
        """
        step = int(np.gcd.reduce(self.frame_index)) if len(self.frame_index) else 0
        if step == 0:
            return None
        by_frame = np.bincount(self.frame_index // step, weights=self.num_bytes)
        for times in range(2, len(by_frame)):
            if by_frame[::times].sum() <= room:
                return f"reader.stride={times * step}"
        return None


def _confidence(label: Mapping[str, Any]) -> float:
    return float(label["confidence"])


def _num_bytes(value: Any) -> int:
    return len(orjson.dumps(value))


def _mb(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.2f}"
