"""Detections onto a label row: what prelabel wrote before goes, what anybody else did stays."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

import numpy as np

from prelabel.data.boxes import GRID, corners_on_grid
from prelabel.data.detections import VideoDetections
from prelabel.data.frames import VideoInfo
from prelabel.data.label_map import LabelMap
from prelabel.data.ontology import OntologyObject
from prelabel.errors import LabelError
from prelabel.labels.row.geometry import geometry_keys
from prelabel.labels.row.own import (
    IMAGE_TYPES,
    INTERPOLATED_CONFIDENCE,
    NUM_NONCES,
    LabelRow,
    Place,
    Placed,
    as_row_time,
    find_own,
    iterate_frames,
    object_hashes,
    without_objects,
)
from prelabel.labels.row.shapes import Corners, box_geometry


@dataclass(frozen=True, slots=True)
class WrittenRow:
    """A label row with the detections on it.

    Attributes:
        row: ready to be saved.
        num_instances: prelabel's own on the row, one a track, and one a detection without a track.
        num_replaced: prelabel's own, untouched, that stood on the row before.
        num_kept: instances of anybody else, all still there.
        num_taken_over: instances left out because a person has made prelabel's very instance theirs.
    """

    row: LabelRow
    num_instances: int
    num_replaced: int
    num_kept: int
    num_taken_over: int


RowChange: TypeAlias = Callable[[LabelRow, datetime], WrittenRow]
"""Given a row, which stays as it is, and the time, returns the row as it is to be saved."""


def write_detections(
    row: LabelRow, detections: VideoDetections, info: VideoInfo, label_map: LabelMap, *, now: datetime
) -> WrittenRow:
    """Returns the row with an object instance for each track, and each box without one, in place of the earlier ones.

    A box that was filled in is marked as the platform's editor marks one that it interpolates, so that it may be
    interpolated anew once somebody has moved the boxes around it.

    All else on the row is kept as it stands. An earlier instance that would be written again just so is kept too, with
    its date and number: writing twice is writing once.

    Args:
        row: of a video, an image or an image group; stays as it is.
        detections: after shaping: of mapped classes, each with an area within its frame, and with no geometry but such
            as its object's shape holds; a track has one class.
        info: the video that they were found in.
        label_map: from the detector's classes to ontology objects.
        now: when the instances were made.

    Raises:
        LabelError: if the row is of another kind, lacks a frame, a detection is not shaped, or a track is of several
            objects or twice on a frame.
    """
    own = find_own(row)
    base = without_objects(row, own)
    held, num_kept = _held_hashes(base)
    draft = _Draft(own, held)
    for on_frames in _instances(row, detections, info, label_map, as_row_time(now)):
        draft.add(on_frames)
    return WrittenRow(
        row=_with_labels(base, draft.on_frames, _answers(row, draft.hashes)),
        num_instances=len(draft.hashes),
        num_replaced=len(own),
        num_kept=num_kept,
        num_taken_over=draft.num_taken_over,
    )


def _instances(
    row: LabelRow, detections: VideoDetections, info: VideoInfo, label_map: LabelMap, made_at: str
) -> Sequence[Placed]:
    """Returns the instances that detections become, without their hashes."""
    units = _UnitsByFrame(row)
    corners = _checked_corners(row, detections, info)
    confidence = np.where(detections.interpolated, INTERPOLATED_CONFIDENCE, detections.confidence.astype(np.float64))
    confidence = np.rint(confidence * GRID) / GRID
    class_ids, instances = detections.class_id.tolist(), detections.instance.tolist()
    frames, geometries = detections.frame_index.tolist(), detections.geometry.tolist()
    columns = (instances, frames, corners, confidence.tolist(), class_ids, geometries)
    placed: list[dict[Place, dict[str, Any]]] = [{} for _ in range(max(instances, default=-1) + 1)]
    for instance, frame_index, box, score, class_id, known in zip(*columns, strict=True):
        category = label_map.objects[class_id]
        if category is None:
            raise LabelError(f"class {label_map.class_names[class_id]!r} becomes no object: shape detections first")
        unit_hash, unit_size = units.at(frame_index, info)
        if known is None:
            geometry = box_geometry(category.shape, box, *unit_size)
        else:
            geometry = geometry_keys(known, category, info.size_of(frame_index), unit_size)
        _place(placed[instance], (unit_hash, frame_index), _label(category, score, made_at, geometry))
    return placed


@dataclass(slots=True)
class _Draft:
    """New instances by place.

    Attributes:
        own: what stood on the row before, by hash.
        held: hashes that are not to be used again, with the places at which their objects stand.
        on_frames: new objects by (data unit, frame).
        hashes: of the new objects, in the order in which they were added.
        num_taken_over: instances left out because a person holds theirs.
    """

    own: Mapping[str, Placed]
    held: Mapping[str, Collection[Place]]
    on_frames: dict[Place, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    hashes: dict[str, None] = field(default_factory=dict)
    num_taken_over: int = 0

    def add(self, placed: Placed) -> None:
        keys = object_hashes(placed)
        if not keys:
            raise ValueError(f"labels: got no geometry that can be written: {placed}")
        for key in keys:
            if any(place in self.held.get(key, ()) for place in placed):
                self.num_taken_over += 1
                return
            if key not in self.held and key not in self.hashes:
                self._add_under(key, placed)
                return
        (_, frame_index), label = next(iter(placed.items()))
        raise LabelError(f"frame {frame_index}: {label['name']!r} stands there {NUM_NONCES} times in one place")

    def _add_under(self, key: str, placed: Placed) -> None:
        self.hashes[key] = None
        earlier = self.own.get(key, {})
        for place, label in placed.items():
            label["objectHash"] = key
            self.on_frames[place].append(_as_it_was(earlier.get(place), label))


class _UnitsByFrame:
    """Where frames are on a row: one unit for a video, one a frame for pictures."""

    def __init__(self, row: LabelRow) -> None:
        self._title = row.get("data_title")
        self._is_video = row["data_type"] == "video"
        self._units = {
            0 if self._is_video else int(unit["data_sequence"]): (key, unit) for key, unit in row["data_units"].items()
        }

    def at(self, frame_index: int, info: VideoInfo) -> tuple[str, tuple[int, int]]:
        """Returns the unit's key and its width and height in pixels; the platform's, if the row has them."""
        try:
            key, unit = self._units[0 if self._is_video else frame_index]
        except KeyError:
            raise LabelError(
                f"label row {self._title!r}: got a box on frame {frame_index}, the row has {len(self._units)} frames"
            ) from None
        if unit.get("width") and unit.get("height"):
            return key, (unit["width"], unit["height"])
        return key, info.size_of(frame_index)


def _place(placed: dict[Place, dict[str, Any]], place: Place, label: dict[str, Any]) -> None:
    """Puts the object on a further frame of its instance."""
    if place in placed:
        raise LabelError(f"frame {place[1]}: got two boxes of one track")
    first = next(iter(placed.values()), label)
    if first["featureHash"] != label["featureHash"]:
        raise LabelError(f"frame {place[1]}: got a track that is {first['name']!r} and {label['name']!r}")
    placed[place] = label


def _held_hashes(base: LabelRow) -> tuple[dict[str, set[Place]], int]:
    held: dict[str, set[Place]] = defaultdict(set)
    for unit_hash, frame_index, labels in iterate_frames(base):
        for label in labels.get("objects") or ():
            held[label["objectHash"]].add((unit_hash, frame_index))
    num_objects = len(held)
    # Answers can outlive their object; an instance under such a hash would take them over.
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
        raise LabelError("got a box outside its frame, or without an area: shape detections first")
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


def _as_it_was(earlier: dict[str, Any] | None, label: dict[str, Any]) -> dict[str, Any]:
    """Returns the earlier object where only dates and authors differ."""
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
