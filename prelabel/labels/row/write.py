"""Writes detections onto a label row.

They replace what prelabel wrote before; all other labels stay.

This module edits the row as JSON. `LabelRowV2` (encord 0.1.211) compares every object with every frame when it writes a
row, which takes minutes for 100,000 instances. A test checks that the JSON equals the SDK's, field by field.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from prelabel.data.boxes import GRID, corners_on_grid
from prelabel.data.detections import VideoDetections
from prelabel.data.frames import VideoInfo
from prelabel.data.label_map import LabelMap
from prelabel.data.ontology import OntologyObject
from prelabel.errors import LabelError, TakenError
from prelabel.labels.row.answers import remove_own_answers
from prelabel.labels.row.own import (
    IMAGE_TYPES,
    INTERPOLATED_CONFIDENCE,
    NUM_NONCES,
    LabelRow,
    Place,
    Placed,
    RowChange,
    WrittenRow,
    as_row_time,
    find_own,
    iterate_frames,
    object_hashes,
    remove_own,
    without_objects,
)
from prelabel.labels.row.shapes import Corners, box_geometry, geometry_keys
from prelabel.runtime.process_settings import paused_garbage_collection


def write_detections(
    row: LabelRow, detections: VideoDetections, info: VideoInfo, label_map: LabelMap, *, now: datetime
) -> WrittenRow:
    """Returns the row with an object instance for each track and each box without a track.

    They replace prelabel's own untouched instances; everything else on the row stays. An instance that would be written
    again unchanged keeps its dates and its hash. So writing twice changes nothing.

    Args:
        row: of a video, an image or an image group; not changed.
        detections: filtered. They are of mapped classes, have an area within the frame, and geometry that fits the
            object's shape. All boxes of a track have one class.
        info: the video or images.
        label_map: from the detector's classes to ontology objects.
        now: creation time of the instances.

    Raises:
        LabelError: the row is of another kind or lacks a frame, the detections are not filtered, or a track has
            several objects or two boxes on one frame.
    """
    own = find_own(row)
    base = without_objects(row, own)
    held, num_kept = _held_hashes(base)
    new = _NewInstances(own, held)
    # This makes many small objects without cycles. The cycle collector would visit all of them again and again.
    with paused_garbage_collection():
        for placed in _instances(row, detections, info, label_map, as_row_time(now)):
            new.add(placed)
        written = _with_labels(base, new.on_frames, _answers(row, new.hashes))
    return WrittenRow(
        row=written,
        num_instances=len(new.hashes),
        num_replaced=len(own),
        num_kept=num_kept,
        num_taken_over=new.num_taken_over,
    )


def _instances(
    row: LabelRow, detections: VideoDetections, info: VideoInfo, label_map: LabelMap, made_at: str
) -> Sequence[Placed]:
    """Returns the new instances, still without their hashes."""
    units = _UnitsByFrame(row)
    corners = _checked_corners(row, detections, info)
    # With this confidence, the editor interpolates a box again when somebody moves the boxes around it.
    confidence = np.where(detections.interpolated, INTERPOLATED_CONFIDENCE, detections.confidence.astype(np.float64))
    confidence = np.rint(confidence * GRID) / GRID
    class_ids, instances = detections.class_id.tolist(), detections.instance.tolist()
    frames, geometries = detections.frame_index.tolist(), detections.geometry.tolist()
    columns = (instances, frames, corners, confidence.tolist(), class_ids, geometries)
    placed: list[dict[Place, dict[str, Any]]] = [{} for _ in range(max(instances, default=-1) + 1)]
    for instance, frame_index, box, score, class_id, known in zip(*columns, strict=True):
        category = label_map.objects[class_id]
        if category is None:
            raise LabelError(
                f"class {label_map.class_names[class_id]!r} is mapped to no object: filter the detections first"
            )
        unit_hash, unit_size = units.at(frame_index, info)
        if known is None:
            geometry = box_geometry(category.shape, box, *unit_size)
        else:
            geometry = geometry_keys(known, category, info.size_of(frame_index), unit_size)
        _add_frame(placed[instance], (unit_hash, frame_index), _label(category, score, made_at, geometry))
    return placed


@dataclass(slots=True)
class _NewInstances:
    """Gives each new instance a hash, and collects the instances' objects by frame.

    Attributes:
        own: prelabel's instances that were on the row before, by hash.
        held: places of the instances that stay on the row, by hash.
        on_frames: the new objects by (data unit, frame).
        hashes: of the new instances, in order.
        num_taken_over: number of instances left out because a person has edited and kept the same one.
    """

    own: Mapping[str, Placed]
    held: Mapping[str, Collection[Place]]
    on_frames: dict[Place, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    hashes: dict[str, None] = field(default_factory=dict)
    num_taken_over: int = 0

    def add(self, placed: Placed) -> None:
        for key in object_hashes(placed):
            if key in self.held:
                # The same hash at the same place means that a person has edited this instance and kept it.
                if any(place in self.held[key] for place in placed):
                    self.num_taken_over += 1
                    return
            elif key not in self.hashes:
                self._add_under(key, placed)
                return
        (_, frame_index), label = next(iter(placed.items()))
        raise LabelError(f"frame {frame_index}: {label['name']!r} is there {NUM_NONCES} times in the same place")

    def _add_under(self, key: str, placed: Placed) -> None:
        self.hashes[key] = None
        earlier = self.own.get(key, {})
        for place, label in placed.items():
            label["objectHash"] = key
            self.on_frames[place].append(_earlier_if_unchanged(earlier.get(place), label))


class _UnitsByFrame:
    """The data units of a row by frame: a video is one unit, and each image is a unit of its own."""

    def __init__(self, row: LabelRow) -> None:
        self._title = row.get("data_title")
        self._is_video = row["data_type"] == "video"
        self._units = {
            0 if self._is_video else int(unit["data_sequence"]): (key, unit) for key, unit in row["data_units"].items()
        }

    def at(self, frame_index: int, info: VideoInfo) -> tuple[str, tuple[int, int]]:
        """Returns the unit's key and its size in pixels; this is the platform's size if the row has it."""
        try:
            key, unit = self._units[0 if self._is_video else frame_index]
        except KeyError:
            raise LabelError(
                f"label row {self._title!r}: got a box on frame {frame_index}, the row has {len(self._units)} frames"
            ) from None
        if unit.get("width") and unit.get("height"):
            return key, (unit["width"], unit["height"])
        return key, info.size_of(frame_index)


def _add_frame(placed: dict[Place, dict[str, Any]], place: Place, label: dict[str, Any]) -> None:
    """Adds the object on one frame to an instance."""
    if place in placed:
        raise LabelError(f"frame {place[1]}: got two boxes of one track")
    first = next(iter(placed.values()), label)
    if first["featureHash"] != label["featureHash"]:
        raise LabelError(f"frame {place[1]}: got a track that is {first['name']!r} and {label['name']!r}")
    placed[place] = label


def _held_hashes(base: LabelRow) -> tuple[dict[str, set[Place]], int]:
    """Returns the places of the objects on a row by hash, and the number of objects."""
    held: dict[str, set[Place]] = defaultdict(set)
    for unit_hash, frame_index, labels in iterate_frames(base):
        for label in labels.get("objects") or ():
            held[label["objectHash"]].add((unit_hash, frame_index))
    num_objects = len(held)
    # Answers can outlive their object. A new instance with the same hash would get them, so the hash is in use.
    for orphan in (*base["object_answers"], *base["object_actions"]):
        held.setdefault(orphan, set())
    return dict(held), num_objects


def _checked_corners(row: LabelRow, detections: VideoDetections, info: VideoInfo) -> list[Corners]:
    if len(detections) and not 0 <= detections.frame_index[0] <= detections.frame_index[-1] < info.num_frames:
        raise LabelError(
            f"label row {row.get('data_title')!r}: got boxes on frames {detections.frame_index[0]} to "
            f"{detections.frame_index[-1]}, expected 0 to {info.num_frames - 1}"
        )
    grid = corners_on_grid(detections.xyxy, info.sizes(detections.frame_index))
    if ((grid < 0) | (grid > GRID)).any() or (grid[:, 2:] <= grid[:, :2]).any():
        raise LabelError("got a box outside its frame, or without an area: filter the detections first")
    return [tuple(box) for box in grid.tolist()]


def _label(category: OntologyObject, confidence: float, made_at: str, geometry: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": category.name,
        "color": category.color,
        "shape": category.shape,
        "value": category.value,
        "createdAt": made_at,
        "createdBy": None,
        "confidence": confidence,
        "objectHash": None,
        "featureHash": category.feature_hash,
        "manualAnnotation": False,
        "lastEditedAt": made_at,
        **geometry,
    }


def _earlier_if_unchanged(earlier: dict[str, Any] | None, label: dict[str, Any]) -> dict[str, Any]:
    """Returns the earlier object if only dates and authors differ."""
    if earlier is None:
        return label
    same = all(earlier.get(key) == label[key] for key in ("name", "color", "shape", "value"))
    return earlier if same else label


def _answers(row: LabelRow, hashes: Collection[str]) -> dict[str, Any]:
    known = row["object_answers"]
    return {key: known.get(key) or {"classifications": [], "objectHash": key} for key in hashes}


def _with_labels(
    base: LabelRow, on_frames: Mapping[Place, list[dict[str, Any]]], answers: Mapping[str, Any]
) -> LabelRow:
    by_unit: dict[str, dict[int, list[dict[str, Any]]]] = defaultdict(dict)
    for (unit_hash, frame_index), objects in on_frames.items():
        by_unit[unit_hash][frame_index] = objects
    units = dict(base["data_units"])
    for unit_hash, frames in by_unit.items():
        unit = units[unit_hash]
        labels = unit.get("labels") or {}
        if base["data_type"] in IMAGE_TYPES:
            (objects,) = frames.values()
            labels = _frame_with(labels, objects)
        else:
            added = {str(frame): _frame_with(labels.get(str(frame), {}), objects) for frame, objects in frames.items()}
            labels = dict(sorted({**labels, **added}.items(), key=lambda item: int(item[0])))
        units[unit_hash] = {**unit, "labels": labels}
    return {**base, "data_units": units, "object_answers": {**base["object_answers"], **answers}}


def _frame_with(labels: Mapping[str, Any], objects: list[dict[str, Any]]) -> dict[str, Any]:
    return {"classifications": [], **labels, "objects": [*(labels.get("objects") or ()), *objects]}


def count_labels_of_others(row: LabelRow) -> int:
    """Returns the number of labels on a row that prelabel did not write or that somebody has changed.

    Object and classification instances count.

    Raises:
        LabelError: the row is not of a video, an image or an image group.
    """
    left = remove_own_answers(remove_own(row))
    hashes = {*(left.get("object_answers") or ()), *(left.get("classification_answers") or ())}
    for _, _, labels in iterate_frames(left):
        hashes.update(label["objectHash"] for label in labels.get("objects") or ())
    return len(hashes)


def refuse_begun(title: str, row: LabelRow) -> None:
    """Checks that nobody has begun to work on a row.

    This holds if every label on it is prelabel's own and untouched.

    Raises:
        TakenError: somebody has begun to work on it.
    """
    count = count_labels_of_others(row)
    if count:
        raise TakenError(
            f"{title}: its label row has {count} {'label' if count == 1 else 'labels'} that prelabel did not write or "
            "that somebody has changed: nothing was saved (with labels.if_begun: merge, a run adds to them)"
        )


def unless_begun(title: str, change: RowChange) -> RowChange:
    """Returns a change that raises `TakenError` if somebody has begun to work on the row, and else does the same."""

    def change_unbegun(row: LabelRow, now: datetime) -> WrittenRow:
        refuse_begun(title, row)
        return change(row, now)

    return change_unbegun
