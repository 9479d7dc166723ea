"""Which object instances of a label row are prelabel's own.

**The mark.** An instance's hash (eight base64 characters, as the SDK makes them) is derived from what prelabel wrote:
SHA-256 over the data unit, the frame, the feature hash, the geometry and the confidence at five decimals, cut to 48
bits. So the mark needs no field that the platform might drop, and it breaks by itself when the content changes.

**Own and untouched** is an instance on one frame only, not `manualAnnotation`, not deleted, without answers and without
dynamic answers, whose hash is what its content as it stands now hashes to. A box that a person has moved, re-classed,
tracked onto further frames or given attributes fails this test and is that person's from then on. A person's instance
passes by chance with a probability of 2^-46 (48 bits, four nonces), and only if it is marked as not manual.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeAlias

from prelabel.errors import LabelError
from prelabel.label_row.shapes import geometry_text

LabelRow: TypeAlias = dict[str, Any]
"""The platform's JSON of a label row; its form is the SDK's."""

NUM_NONCES = 4
IMAGE_TYPES = ("image", "img_group")


def object_hash(unit_hash: str, frame_index: int, label: Mapping[str, Any], nonce: int) -> str | None:
    """Returns the hash of an instance that stands on one frame, None if it is of no form that prelabel writes.

    Args:
        unit_hash: key of the data unit.
        frame_index: of the row, 0-based.
        label: the object on the frame, without its hash.
        nonce: 0; higher where the hash is taken by another instance.
    """
    geometry = geometry_text(label)
    if geometry is None:
        return None
    content = (
        f"prelabel\n{unit_hash}\n{frame_index}\n{label['featureHash']}\n{geometry}\n{label['confidence']:.5f}\n{nonce}"
    )
    return base64.b64encode(hashlib.sha256(content.encode()).digest()[:6]).decode()


def iterate_frames(row: LabelRow) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Yields (key of the data unit, frame index, labels on the frame) of a row of video, image or image group.

    Raises:
        LabelError: if the row is of another kind, or not a label row.
    """
    kind = row.get("data_type")
    if kind not in ("video", *IMAGE_TYPES):
        raise LabelError(
            f"label row {row.get('data_title')!r}: data_type: got {kind!r}, expected video, image or img_group"
        )
    try:
        for unit_hash, unit in row["data_units"].items():
            labels = unit.get("labels") or {}
            if kind == "video":
                yield from ((unit_hash, int(frame), on_frame) for frame, on_frame in labels.items())
            else:
                yield unit_hash, int(unit["data_sequence"]), labels
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise LabelError(f"label row {row.get('data_title')!r}: data_units are not as the SDK writes them") from error


def find_own(row: LabelRow) -> dict[str, dict[str, Any]]:
    """Returns prelabel's own untouched instances: by object hash, the object on its frame."""
    seen: set[str] = set()
    own: dict[str, dict[str, Any]] = {}
    for unit_hash, frame_index, labels in iterate_frames(row):
        for label in labels.get("objects") or ():
            key = label.get("objectHash")
            if key in seen:
                own.pop(key, None)
            elif _is_as_written(label, unit_hash, frame_index):
                own[key] = label
            seen.add(key)
    answers, actions = row.get("object_answers") or {}, row.get("object_actions") or {}
    return {
        key: label
        for key, label in own.items()
        if not answers.get(key, {}).get("classifications") and not actions.get(key, {}).get("actions")
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


def _is_as_written(label: Mapping[str, Any], unit_hash: str, frame_index: int) -> bool:
    if label.get("manualAnnotation") is not False or label.get("isDeleted"):
        return False
    try:
        hashes = (object_hash(unit_hash, frame_index, label, nonce) for nonce in range(NUM_NONCES))
        return any(label["objectHash"] == computed for computed in hashes)
    except (KeyError, TypeError, ValueError):
        return False
