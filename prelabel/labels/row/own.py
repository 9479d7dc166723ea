"""Which object instances of a label row are prelabel's own.

**The mark.** An instance's hash (eight base64 characters, as the SDK makes them) is derived from what prelabel wrote:
SHA-256 over the data unit, the frame, the feature hash, the geometry and the confidence at five decimals, for each
frame on which it stands in their order, cut to 48 bits. So the mark needs no field that the platform might drop, and it
breaks by itself when the content changes, on whichever frame.

**Own and untouched** is an instance that is on no frame `manualAnnotation` or deleted, without answers and without
dynamic answers, whose hash is what its content as it stands now hashes to: one box, or a track as a whole. An instance
of which a person has moved a box, added or taken away one, which they have re-classed or given attributes, fails this
test and is that person's from then on, on all its frames. A person's instance passes by chance with a probability of
2^-46 (48 bits, four nonces), and only if it is marked as not manual.
"""

from __future__ import annotations

import base64
import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias

from prelabel.errors import LabelError
from prelabel.labels.row.shapes import geometry_text

LabelRow: TypeAlias = dict[str, Any]
"""The platform's JSON of a label row; its form is the SDK's."""

Place: TypeAlias = tuple[str, int]
"""Key of the data unit, and frame of the row, 0-based."""

Placed: TypeAlias = Mapping[Place, dict[str, Any]]
"""An instance: the object on each of its frames."""

NUM_NONCES = 4
IMAGE_TYPES = ("image", "img_group")
KINDS_WITH_FRAMES: tuple[str, ...] = ("video", *IMAGE_TYPES)
"""Kinds of data on whose rows labels are put."""

INTERPOLATED_CONFIDENCE = 0.99
"""By this the platform's editor, and its SDK (`encord.objects.interpolation`), mark a label that was interpolated."""


def object_hashes(placed: Placed) -> list[str]:
    """Returns the hashes that an instance may have: the first, and those for when it is taken by another instance.

    Empty where it is of no form that prelabel writes.

    Args:
        placed: the object on each of its frames.
    """
    content = hashlib.sha256(b"prelabel\n")
    for (unit_hash, frame_index), label in sorted(placed.items(), key=lambda item: (item[0][1], item[0][0])):
        geometry = geometry_text(label)
        if geometry is None:
            return []
        text = f"{unit_hash}\n{frame_index}\n{label['featureHash']}\n{geometry}\n{label['confidence']:.5f}\n"
        content.update(text.encode())
    hashes = []
    for nonce in range(NUM_NONCES):
        numbered = content.copy()
        numbered.update(str(nonce).encode())
        hashes.append(base64.b64encode(numbered.digest()[:6]).decode())
    return hashes


def check_kind(row: LabelRow) -> None:
    """Checks that a row is one of video, image or image group.

    Raises:
        LabelError: it is not, or no label row.
    """
    kind = row.get("data_type")
    if kind not in KINDS_WITH_FRAMES:
        raise LabelError(
            f"label row {row.get('data_title')!r}: data_type: got {kind!r}, expected video, image or img_group"
        )


def as_row_time(time: datetime) -> str:
    """Returns a time as label rows carry it.

    >>> as_row_time(datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC))
    'Thu, 02 Jan 2025 03:04:05 UTC'
    """
    return time.astimezone(UTC).strftime("%a, %d %b %Y %H:%M:%S UTC")


def iterate_frames(row: LabelRow) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Yields (key of the data unit, frame index, labels on the frame) of a row of video, image or image group.

    Raises:
        LabelError: if the row is of another kind, or not a label row.
    """
    check_kind(row)
    try:
        for unit_hash, unit in row["data_units"].items():
            labels = unit.get("labels") or {}
            if row["data_type"] == "video":
                yield from ((unit_hash, int(frame), on_frame) for frame, on_frame in labels.items())
            else:
                yield unit_hash, int(unit["data_sequence"]), labels
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise LabelError(f"label row {row.get('data_title')!r}: data_units are not as the SDK writes them") from error


def find_own(row: LabelRow) -> dict[str, Placed]:
    """Returns prelabel's own untouched instances: by object hash, the object on each of its frames."""
    placed: dict[str, dict[Place, dict[str, Any]]] = defaultdict(dict)
    doubled: set[str] = set()
    for unit_hash, frame_index, labels in iterate_frames(row):
        for label in labels.get("objects") or ():
            key = label.get("objectHash")
            if (unit_hash, frame_index) in placed[key]:
                doubled.add(key)
            placed[key][unit_hash, frame_index] = label
    answers, actions = row.get("object_answers") or {}, row.get("object_actions") or {}
    return {
        key: on_frames
        for key, on_frames in placed.items()
        if key not in doubled
        and not answers.get(key, {}).get("classifications")
        and not actions.get(key, {}).get("actions")
        and _is_as_written(key, on_frames)
    }


def remove_own(row: LabelRow) -> LabelRow:
    """Returns the row without prelabel's own untouched instances; the given one stays as it is."""
    return without_objects(row, find_own(row))


def without_objects(row: LabelRow, hashes: Collection[str]) -> LabelRow:
    """Returns the row without some instances and their answers; what is left is shared with the given row."""
    if not hashes:
        return dict(row)
    units = {key: {**unit, "labels": _labels_without(row, unit, hashes)} for key, unit in row["data_units"].items()}
    return {
        **row,
        "data_units": units,
        "object_answers": {key: value for key, value in row["object_answers"].items() if key not in hashes},
        "object_actions": {key: value for key, value in row["object_actions"].items() if key not in hashes},
    }


def _labels_without(row: LabelRow, unit: Mapping[str, Any], hashes: Collection[str]) -> dict[str, Any]:
    labels = unit.get("labels") or {}
    if row["data_type"] in IMAGE_TYPES:
        return _frame_without(labels, hashes)
    left = ((frame, on_frame, _frame_without(on_frame, hashes)) for frame, on_frame in labels.items())
    return {frame: after for frame, before, after in left if after is before or _says_something(after)}


def _frame_without(labels: dict[str, Any], hashes: Collection[str]) -> dict[str, Any]:
    objects = labels.get("objects") or []
    kept = [label for label in objects if label.get("objectHash") not in hashes]
    return labels if len(kept) == len(objects) else {**labels, "objects": kept}


def _says_something(labels: Mapping[str, Any]) -> bool:
    return any(labels.values())


def _is_as_written(key: str, placed: Placed) -> bool:
    if any(label.get("manualAnnotation") is not False or label.get("isDeleted") for label in placed.values()):
        return False
    try:
        return key in object_hashes(placed)
    except (KeyError, TypeError, ValueError):
        return False
