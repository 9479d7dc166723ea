"""Writes detections onto a label row.

They replace what prelabel wrote before; all other labels stay.

This module edits the row as JSON. `LabelRowV2` (encord 0.1.211) compares every object with every frame when it writes a
row, which takes minutes for 100,000 instances. A test checks that the JSON equals the SDK's, field by field.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    content_text,
    find_own,
    iterate_frames,
    object_hash,
    remove_own,
    without_objects,
)
from prelabel.labels.row.shapes import Size, box_geometry, box_texts, geometry_keys, geometry_text
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
    # This makes many small objects without cycles. The cycle collector would visit all of them again and again.
    with paused_garbage_collection():
        own = find_own(row)
        base = without_objects(row, own)
        new = _new_objects(row, detections, info, label_map)
        hashes = _choose_hashes(new, _held_hashes(base))
        on_frames = _objects_by_place(new, hashes, own, as_row_time(now))
        known = row["object_answers"]
        answers = {key: known.get(key) or {"classifications": [], "objectHash": key} for key in filter(None, hashes)}
        written = _with_labels(base, on_frames, answers)
    return WrittenRow(written, num_instances=len(hashes) - hashes.count(None))


@dataclass(frozen=True, slots=True)
class _NewObjects:
    """The new objects as columns, by frame, and on a frame by instance.

    Attributes:
        instance: number of the object's instance.
        places: where the object is.
        styles: JSON that all objects of the class share.
        geometries: JSON of the geometry.
        confidences: 0..1.
        contents: text to hash.
    """

    instance: list[int]
    places: list[Place]
    styles: list[dict[str, Any]]
    geometries: list[dict[str, Any]]
    confidences: list[float]
    contents: list[str]


def _new_objects(row: LabelRow, detections: VideoDetections, info: VideoInfo, label_map: LabelMap) -> _NewObjects:
    instance = detections.instance
    order = np.lexsort((instance, detections.frame_index))
    detections, instance = detections.take(order), instance[order]
    category_index = _checked_categories(detections, instance, label_map)
    units = _units_by_frame(row, detections.frame_index, info)
    places = [units[frame][0] for frame in detections.frame_index.tolist()]
    styles: list[dict[str, Any]] = [
        {
            "name": category.name,
            "color": category.color,
            "shape": category.shape,
            "value": category.value,
            "featureHash": category.feature_hash,
            "manualAnnotation": False,
        }
        for category in label_map.categories
    ]
    # With this confidence, the editor interpolates a box again when somebody moves the boxes around it.
    confidence = np.where(detections.interpolated, INTERPOLATED_CONFIDENCE, detections.confidence.astype(np.float64))
    confidence = np.rint(confidence * GRID).astype(np.int64)
    categories = [label_map.categories[number] for number in category_index.tolist()]
    geometries, texts = _geometries(detections, _checked_corners(row, detections, info), categories, info, units)
    contents = [
        content_text(*place, category.feature_hash, text, steps)
        for place, category, text, steps in zip(places, categories, texts, confidence.tolist(), strict=True)
    ]
    return _NewObjects(
        instance=instance.tolist(),
        places=places,
        styles=[styles[number] for number in category_index.tolist()],
        geometries=geometries,
        confidences=(confidence / GRID).tolist(),
        contents=contents,
    )


def _geometries(
    detections: VideoDetections,
    corners: NDArray[np.int64],
    categories: Sequence[OntologyObject],
    info: VideoInfo,
    units: Mapping[int, tuple[Place, Size]],
) -> tuple[list[dict[str, Any]], list[str]]:
    """Returns the geometry of each detection as JSON and as text to hash."""
    hwxy = np.concatenate([(corners[:, 2:] - corners[:, :2])[:, ::-1], corners[:, :2]], axis=1)
    geometries: list[dict[str, Any]] = [
        {"boundingBox": {"h": h, "w": w, "x": x, "y": y}} for h, w, x, y in (hwxy / GRID).tolist()
    ]
    texts = box_texts(hwxy)
    for row, (category, geometry) in enumerate(zip(categories, detections.geometry.tolist(), strict=True)):
        if geometry is None and category.shape == "bounding_box":
            continue
        frame_index = int(detections.frame_index[row])
        unit_size = units[frame_index][1]
        if geometry is None:
            geometries[row] = box_geometry(category.shape, corners[row].tolist(), *unit_size)
        else:
            geometries[row] = geometry_keys(geometry, category, info.size_of(frame_index), unit_size)
        text = geometry_text(geometries[row])
        assert text is not None
        texts[row] = text
    return geometries, texts


def _choose_hashes(new: _NewObjects, held: Mapping[str, set[Place]]) -> list[str | None]:
    """Returns the hash of each new instance; None if a person has edited and kept the same one.

    Args:
        new: the new objects.
        held: places of the instances that stay on the row, by hash.
    """
    rows_of: list[list[int]] = [[] for _ in range(max(new.instance, default=-1) + 1)]
    for row, instance in enumerate(new.instance):
        rows_of[instance].append(row)
    chosen: set[str] = set()
    hashes: list[str | None] = []
    for rows in rows_of:
        content = "".join([new.contents[row] for row in rows])
        for nonce in range(NUM_NONCES):
            key = object_hash(content, nonce)
            if key in held:
                # The same hash at the same place means that a person has edited this instance and kept it.
                if any(new.places[row] in held[key] for row in rows):
                    hashes.append(None)
                    break
            elif key not in chosen:
                chosen.add(key)
                hashes.append(key)
                break
        else:
            frame_index, name = new.places[rows[0]][1], new.styles[rows[0]]["name"]
            raise LabelError(f"frame {frame_index}: {name!r} is there {NUM_NONCES} times in the same place")
    return hashes


def _objects_by_place(
    new: _NewObjects, hashes: Sequence[str | None], own: Mapping[str, Placed], made_at: str
) -> dict[Place, list[dict[str, Any]]]:
    """Returns the JSON of the new objects by place.

    An object that was there before and would be written again unchanged stays as it is, with its dates and authors.
    """
    on_frames: dict[Place, list[dict[str, Any]]] = defaultdict(list)
    dates = {"createdAt": made_at, "createdBy": None, "lastEditedAt": made_at}
    columns = (new.instance, new.places, new.styles, new.geometries, new.confidences)
    for instance, place, style, geometry, confidence in zip(*columns, strict=True):
        key = hashes[instance]
        if key is None:
            continue
        label = own[key].get(place) if key in own else None
        if label is None or not style.items() <= label.items():
            label = {**style, **dates, "confidence": confidence, "objectHash": key, **geometry}
        on_frames[place].append(label)
    return on_frames


def _units_by_frame(row: LabelRow, frame_index: NDArray[np.int64], info: VideoInfo) -> dict[int, tuple[Place, Size]]:
    """Returns the place of each frame and the size of its data unit; the platform's size if the row has it.

    A video is one unit, and each image is a unit of its own.
    """
    is_video, found = row["data_type"] == "video", {}
    units = {0 if is_video else int(unit["data_sequence"]): (key, unit) for key, unit in row["data_units"].items()}
    for frame in np.unique(frame_index).tolist():
        if (0 if is_video else frame) not in units:
            raise LabelError(
                f"label row {row.get('data_title')!r}: got a box on frame {frame}, the row has {len(units)} frames"
            )
        key, unit = units[0 if is_video else frame]
        has_size = unit.get("width") and unit.get("height")
        found[frame] = (key, frame), (unit["width"], unit["height"]) if has_size else info.size_of(frame)
    return found


def _checked_categories(
    detections: VideoDetections, instance: NDArray[np.int64], label_map: LabelMap
) -> NDArray[np.int64]:
    """Returns the index of each detection's object in `label_map.categories`, int64 (N,).

    Raises:
        LabelError: a class is mapped to no object, or a track has several objects or two boxes on one frame.
    """
    category = label_map.category_index[detections.class_id]
    if (category < 0).any():
        name = label_map.class_names[detections.class_id[category < 0][0]]
        raise LabelError(f"class {name!r} is mapped to no object: filter the detections first")
    order = np.lexsort((detections.frame_index, instance))
    frames, categories = detections.frame_index[order], category[order]
    goes_on = np.diff(instance[order]) == 0
    twice = np.flatnonzero(goes_on & (np.diff(frames) == 0))
    if len(twice):
        raise LabelError(f"frame {frames[twice[0]]}: got two boxes of one track")
    changes = np.flatnonzero(goes_on & (np.diff(categories) != 0))
    if len(changes):
        first, second = (label_map.categories[categories[changes[0] + n]].name for n in (0, 1))
        raise LabelError(f"frame {frames[changes[0] + 1]}: got a track that is {first!r} and {second!r}")
    return category


def _held_hashes(base: LabelRow) -> dict[str, set[Place]]:
    """Returns the places of the objects on a row, by hash."""
    held: dict[str, set[Place]] = defaultdict(set)
    for unit_hash, frame_index, labels in iterate_frames(base):
        for label in labels.get("objects") or ():
            held[label["objectHash"]].add((unit_hash, frame_index))
    # Answers can outlive their object. A new instance with the same hash would get them, so the hash is in use.
    for orphan in (*base["object_answers"], *base["object_actions"]):
        held.setdefault(orphan, set())
    return dict(held)


def _checked_corners(row: LabelRow, detections: VideoDetections, info: VideoInfo) -> NDArray[np.int64]:
    if len(detections) and not 0 <= detections.frame_index[0] <= detections.frame_index[-1] < info.num_frames:
        raise LabelError(
            f"label row {row.get('data_title')!r}: got boxes on frames {detections.frame_index[0]} to "
            f"{detections.frame_index[-1]}, expected 0 to {info.num_frames - 1}"
        )
    grid = corners_on_grid(detections.xyxy, info.sizes(detections.frame_index))
    if ((grid < 0) | (grid > GRID)).any() or (grid[:, 2:] <= grid[:, :2]).any():
        raise LabelError("got a box outside its frame, or without an area: filter the detections first")
    return grid


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
