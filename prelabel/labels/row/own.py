"""Identifies the object instances of a label row that prelabel wrote and nobody has changed since.

**The mark.** The hash of an instance (eight base64 characters, as the SDK makes them) is computed from what prelabel
wrote. It is a SHA-256, cut to 48 bits. It covers data unit, frame, feature hash, geometry and confidence at five
decimals, for each frame of the instance in order. The mark needs no extra field, which the platform could drop. Any
change of the content on any frame breaks it.

**Own and untouched** is an instance whose content still gives its hash, as one box or as a whole track. It also has no
frame with `manualAnnotation` or `isDeleted`, no answers and no dynamic answers. If a person moves, adds or deletes one
of its boxes, changes its class or gives it attributes, prelabel treats the whole instance as that person's. An instance
that a person made is mistaken for prelabel's with a probability of 2^-46 (48 bits, four nonces), and only if it is not
manual.
"""

from __future__ import annotations

import base64
import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

from prelabel.data.boxes import GRID
from prelabel.errors import LabelError
from prelabel.labels.row.shapes import geometry_texts

LabelRow: TypeAlias = dict[str, Any]
"""A label row as JSON, in the form that `LabelRowV2.to_encord_dict` returns."""

Place: TypeAlias = tuple[str, int]
"""Key of the data unit, and 0-based frame of the row."""

Placed: TypeAlias = Mapping[Place, dict[str, Any]]
"""An object instance: its JSON on each of its frames."""

NUM_NONCES = 4
IMAGE_TYPES = ("image", "img_group")
KINDS_WITH_FRAMES: tuple[str, ...] = ("video", *IMAGE_TYPES)
"""The values of `data_type` for rows that can have objects on frames."""

INTERPOLATED_CONFIDENCE = 0.99
"""The confidence by which the platform's editor and SDK (`encord.objects.interpolation`) mark interpolated labels."""


@dataclass(frozen=True, slots=True)
class WrittenRow:
    """A label row with new labels on it.

    Attributes:
        row: ready to save.
        num_instances: number of prelabel's own instances on the row: one for each track, and one for each detection
            without a track.
    """

    row: LabelRow
    num_instances: int


RowChange: TypeAlias = Callable[[LabelRow, datetime], WrittenRow]
"""Takes a row and the time, and returns the row to save; does not change the given row."""


def content_text(unit_hash: str, frame_index: int, feature_hash: str, geometry: str, confidence: int) -> str:
    """Returns the content of an instance on one frame, as text to hash.

    Args:
        unit_hash: key of the data unit.
        frame_index: 0-based frame of the row.
        feature_hash: of the ontology object.
        geometry: from `geometry_text`.
        confidence: in hundred-thousandths.
    """
    return f"{unit_hash}\n{frame_index}\n{feature_hash}\n{geometry}\n{confidence}\n"


def object_hash(content: str, nonce: int) -> str:
    """Returns a hash that an instance can have; those of later nonces are for equal instances on the same row.

    Args:
        content: `content_text` of each of its frames in order.
        nonce: from 0 to below `NUM_NONCES`, in the order in which to try them.
    """
    digest = hashlib.sha256(f"prelabel {nonce}\n{content}".encode()).digest()
    return base64.b64encode(digest[:6]).decode()


def is_hash_of(key: str, content: str) -> bool:
    """Returns whether an instance of this content can have this hash; nearly always, it has the first one."""
    return key == object_hash(content, 0) or any(key == object_hash(content, n) for n in range(1, NUM_NONCES))


def check_kind(row: LabelRow) -> None:
    """Checks that a row is of a video, an image or an image group.

    Raises:
        LabelError: the row is of another kind, or it is not a label row.
    """
    kind = row.get("data_type")
    if kind not in KINDS_WITH_FRAMES:
        raise LabelError(
            f"label row {row.get('data_title')!r}: data_type: got {kind!r}, expected video, image or img_group"
        )


def as_row_time(time: datetime) -> str:
    """Returns a time in the form of label rows.

    >>> as_row_time(datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC))
    'Thu, 02 Jan 2025 03:04:05 UTC'
    """
    return time.astimezone(UTC).strftime("%a, %d %b %Y %H:%M:%S UTC")


def iterate_frames(row: LabelRow) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Yields (key of the data unit, frame index, labels on the frame) of a row.

    Raises:
        LabelError: the row is not of a video, an image or an image group, or it is not a label row.
    """
    check_kind(row)
    try:
        for unit_hash, unit in row["data_units"].items():
            labels = unit.get("labels") or {}
            # A video is one unit with labels by frame. Each image is a unit of its own, and `labels` is its frame.
            if row["data_type"] == "video":
                yield from ((unit_hash, int(frame), on_frame) for frame, on_frame in labels.items())
            else:
                yield unit_hash, int(unit["data_sequence"]), labels
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise LabelError(f"label row {row.get('data_title')!r}: data_units are not as the SDK writes them") from error


def find_own(row: LabelRow) -> dict[str, Placed]:
    """Returns prelabel's own untouched instances, by object hash; each has its frames in order."""
    answers, actions = row.get("object_answers") or {}, row.get("object_actions") or {}
    touched = {key for key, entry in answers.items() if entry.get("classifications")}
    touched |= {key for key, entry in actions.items() if entry.get("actions")}
    places: list[Place] = []
    labels: list[dict[str, Any]] = []
    rows_of: dict[str, list[int]] = defaultdict(list)
    for unit_hash, frame_index, on_frame in sorted(iterate_frames(row), key=lambda frame: (frame[1], frame[0])):
        for label in on_frame.get("objects") or ():
            rows_of[label.get("objectHash")].append(len(labels))
            places.append((unit_hash, frame_index))
            labels.append(label)
    contents = _contents(places, labels)
    own: dict[str, Placed] = {}
    for key, rows in rows_of.items():
        written = [contents[row] for row in rows]
        if key in touched or "" in written or not is_hash_of(key, "".join(written)):
            continue
        placed = {places[row]: labels[row] for row in rows}
        if len(placed) == len(rows):
            own[key] = placed
    return own


def _contents(places: Sequence[Place], labels: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the text to hash for each object; empty if prelabel does not write such objects."""
    contents = [""] * len(labels)
    for row, (place, label, geometry) in enumerate(zip(places, labels, geometry_texts(labels), strict=True)):
        try:
            if geometry and label["manualAnnotation"] is False and not label.get("isDeleted"):
                contents[row] = content_text(*place, label["featureHash"], geometry, round(label["confidence"] * GRID))
        except (ArithmeticError, KeyError, TypeError, ValueError):
            continue
    return contents


def remove_own(row: LabelRow) -> LabelRow:
    """Returns the row without prelabel's own untouched instances; the given row does not change."""
    return without_objects(row, find_own(row))


def without_objects(row: LabelRow, hashes: Collection[str]) -> LabelRow:
    """Returns the row without some instances and their answers; shares the rest with the given row."""
    if not hashes:
        return dict(row)
    units = {key: {**unit, "labels": _labels_without(row, unit, hashes)} for key, unit in row["data_units"].items()}
    answers = {
        part: {key: value for key, value in row[part].items() if key not in hashes}
        for part in ("object_answers", "object_actions")
    }
    return {**row, "data_units": units, **answers}


def _labels_without(row: LabelRow, unit: Mapping[str, Any], hashes: Collection[str]) -> dict[str, Any]:
    labels = unit.get("labels") or {}
    if row["data_type"] in IMAGE_TYPES:
        return _frame_without(labels, hashes)
    left = {}
    for frame, before in labels.items():
        after = _frame_without(before, hashes)
        if after is before or any(after.values()):  # the SDK writes no frame without labels
            left[frame] = after
    return left


def _frame_without(labels: dict[str, Any], hashes: Collection[str]) -> dict[str, Any]:
    objects = labels.get("objects") or []
    kept = [label for label in objects if label.get("objectHash") not in hashes]
    return labels if len(kept) == len(objects) else {**labels, "objects": kept}
