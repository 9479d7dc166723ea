"""How large a label row is when it is sent, and what would fit where it is too large."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prelabel.errors import RowTooLargeError
from prelabel.labels.row.own import INTERPOLATED_CONFIDENCE, LabelRow, find_own

_FEW = 64
FRAMES_DEPTH = 4  # row, data units, unit, labels by frame


def json_pieces(value: Any, depth: int = FRAMES_DEPTH) -> Iterator[str]:
    """Yields what `json.dumps(value)` returns, in pieces.

    Args:
        value: of plain JSON types.
        depth: levels of objects that are taken apart; what lies deeper comes in one piece, and so does what is small.

    >>> "".join(json_pieces({"a": {"b": [1, 2]}, "c": {}}))
    '{"a": {"b": [1, 2]}, "c": {}}'
    """
    if depth == 0 or _is_small(value, depth):
        yield json.dumps(value)
        return
    opening = "{"
    for key, inner in value.items():
        yield f"{opening}{json.dumps(key)}: "
        yield from json_pieces(inner, depth - 1)
        opening = ", "
    yield "}"


def _is_small(value: Any, depth: int) -> bool:
    """Tells whether no object in the first levels has more than a few members: a picture's row has none."""
    if depth == 0 or not isinstance(value, dict):
        return True
    if len(value) > _FEW:
        return False
    return all(_is_small(inner, depth - 1) for inner in value.values() if isinstance(inner, dict))


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


def row_num_bytes(row: LabelRow) -> int:
    """Returns the bytes of the request by which `Project.save_label_row` sends the row."""
    payload = {key: value for key, value in row.items() if key in SENT_KEYS}
    values = {"uid": row["label_hash"], "payload": payload}
    request = {"query_type": "labelrow", "query_method": "POST", "values": values}
    return sum(map(len, json_pieces(request, FRAMES_DEPTH + 2)))


def check_row_size(row: LabelRow, max_row_bytes: int) -> int:
    """Returns the bytes of the request by which the row is sent, as `row_num_bytes`, if it may be.

    Args:
        row: as it would be saved.
        max_row_bytes: what the platform takes.

    Raises:
        RowTooLargeError: by how much it is too large, and which threshold or stride would fit.
    """
    num_bytes = row_num_bytes(row)
    if num_bytes <= max_row_bytes:
        return num_bytes
    sizes = _OwnSizes.measure(row)
    raise RowTooLargeError(
        f"label row {row.get('data_title')!r}: got {_mb(num_bytes)} MB, expected {_mb(max_row_bytes)} MB at most "
        f"({_mb(num_bytes - max_row_bytes)} MB too many): {sizes.advice(num_bytes, max_row_bytes)}"
    )


@dataclass(frozen=True, slots=True)
class _OwnSizes:
    """prelabel's own instances on a row, as columns of the boxes that they have.

    What is said to fit does fit: a track goes as a whole or not at all when a threshold rises, since a box that is lost
    within a track is filled in again, and a stride takes boxes away but no track. Where boxes were filled in, a stride
    would only have more of them filled in.

    Attributes:
        num_bytes: int64 (N,), of a box, with its answers entry where it is its instance's only one.
        confidence: float64 (N,), the highest of the box's instance, of boxes that were found.
        frame_index: int64 (N,).
        instance: int64 (N,).
        is_filled: bool (N,), a box that was filled in.
        entry_bytes: of an answers entry, at most.
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
            return f"{_mb(max_row_bytes - room)} MB of it are not prelabel's and cannot be left out"
        fewer = self._nothing_between(room) if self.is_filled.any() else self._stride(room)
        ways = [way for way in (self._threshold(room), fewer) if way]
        return "what would fit: " + " or ".join(ways) if ways else "no threshold or stride would fit"

    def _threshold(self, room: int) -> str | None:
        """Returns the least confidence, to two decimals, whose instances fit."""
        for step in range(1, 100):
            keep = self.confidence >= step / 100
            if keep.any() and self.num_bytes[keep].sum() <= room:
                num_kept, num = len(np.unique(self.instance[keep])), len(np.unique(self.instance))
                return f"labels.conf={step / 100:.2f} ({num_kept:,} of {num:,} instances)"
        return None

    def _nothing_between(self, room: int) -> str | None:
        """Returns that the boxes fit without those filled in, even if each of them became an instance of its own."""
        found = ~self.is_filled
        fits = self.num_bytes[found].sum() + self.entry_bytes * found.sum() <= room
        return "labels.keyframes.between=empty" if fits else None

    def _stride(self, room: int) -> str | None:
        """Returns the least stride from frame 0 whose instances fit; a multiple of the one that made the row."""
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
    return len(json.dumps(value))


def _mb(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.2f}"
