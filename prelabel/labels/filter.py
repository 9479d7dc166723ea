"""Drops detections by rule, and counts the dropped ones by reason.

Each rule is a function that takes detections and returns a mask of those to drop. A dropped detection is counted under
the first rule that matches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from prelabel.data.boxes import clip_boxes, corners_on_grid, has_area, iou_matrix
from prelabel.data.detections import VideoDetections
from prelabel.data.frames import VideoInfo
from prelabel.data.label_map import LabelMap
from prelabel.errors import DetectError, OntologyError, did_you_mean
from prelabel.labels.fit import check_geometry, held_geometry, lacks_keypoints
from prelabel.labels.flicker import Flicker, flickering
from prelabel.labels.keyframes import KeyframeStats
from prelabel.labels.size_and_zones import SizeLimits, Zones, has_odd_aspect, is_out_of_zone, is_too_large, is_too_small

DropReason = Literal[
    "ignored",
    "unmapped",
    "no_keypoints",
    "low_confidence",
    "empty",
    "too_small",
    "too_large",
    "aspect",
    "out_of_zone",
    "duplicate",
    "overlapping",
    "flicker",
    "over_max_per_frame",
    "untracked",
    "duplicate_track",
    "short_track",
    "unsure_track",
]
"""Why a detection was dropped. The order is that of the rules; `prelabel.labels.tracking` gives the last four."""

DropCounts: TypeAlias = Mapping[DropReason, Mapping[str, int]]
"""The number of dropped detections, by reason, then by the detector's class name; without zeros."""


@dataclass(frozen=True, slots=True)
class FilteredDetections:
    """The detections that become labels, and the number of those that do not.

    Attributes:
        detections: of mapped classes, within their frames, each with an area at five decimals.
        dropped: how many detections were dropped, and why.
        thinning: how many boxes of the tracks were kept; None if all were kept.
        partial: how many boxes lack the mask of `refine`, since frames could not be read, and why; None if none do.
    """

    detections: VideoDetections
    dropped: DropCounts
    thinning: KeyframeStats | None = None
    partial: str | None = None


def count_by_class(class_id: NDArray[np.int64], class_names: tuple[str, ...]) -> dict[str, int]:
    """Returns the number of detections of each class, without zeros.

    >>> count_by_class(np.array([1, 1]), ("car", "bus"))
    {'bus': 2}
    """
    counts = np.bincount(class_id, minlength=len(class_names))
    return {name: int(num) for name, num in zip(class_names, counts, strict=True) if num}


_ANY_SIZE, _ANYWHERE = SizeLimits(), Zones()


@dataclass(frozen=True, slots=True)
class FilterRules:
    """The rules that decide which detections to keep; by default all.

    Attributes:
        conf: lowest confidence, one for all or by name of the ontology object.
        size: limits of a box's sides, area and aspect ratio.
        zones: areas of the frame with and without labels.
        nms_iou: largest IoU of two boxes on a frame. If two overlap more, only the more confident one stays, even if
            they are of different objects.
        flicker: on how many of the frames around a box its thing must be detected.
        max_per_frame: largest number of boxes on a frame; the most confident ones stay.
    """

    conf: float | Mapping[str, float] = 0.0
    size: SizeLimits = _ANY_SIZE
    zones: Zones = _ANYWHERE
    nms_iou: float | None = None
    flicker: Flicker | None = None
    max_per_frame: int | None = None


def class_thresholds(conf: float | Mapping[str, float], label_map: LabelMap) -> NDArray[np.float32]:
    """Returns the lowest confidence for each `class_id`, float32.

    Args:
        conf: one for all, or by name of the ontology object; an object without one gets 0.
        label_map: from the detector's classes to ontology objects.

    Raises:
        OntologyError: `conf` names an object that no class is mapped to.

    >>> from prelabel.data.label_map import build_label_map
    >>> from prelabel.data.ontology import Ontology
    >>> label_map = build_label_map(["car", "bus"], Ontology.from_classes(["Vehicle"]), {"car": "Vehicle"})
    >>> class_thresholds({"Vehicle": 0.5}, label_map).tolist()
    [0.5, 0.0]
    """
    if not isinstance(conf, Mapping):
        return np.full(len(label_map.class_names), conf, np.float32)
    names = [category.name for category in label_map.categories]
    for name in conf:
        if name not in names:
            raise OntologyError(f"labels.conf: no class is mapped to an object {name!r}: {did_you_mean(name, names)}")
    return np.array([0.0 if found is None else conf.get(found.name, 0.0) for found in label_map.objects], np.float32)


NO_RULES = FilterRules()

Rule = Callable[[VideoDetections], NDArray[np.bool_]]
"""Takes the boxes that are left, and returns which of them to drop, bool (N,)."""


def filter_detections(
    detections: VideoDetections, info: VideoInfo, label_map: LabelMap, rules: FilterRules = NO_RULES
) -> FilteredDetections:
    """Returns the detections to label, with boxes clipped to the frame.

    All rules check the boxes only. A mask, rotated box, polygon or pose stays only if the object's shape can hold it.

    Args:
        detections: as the detector gave them.
        info: the video or images.
        label_map: from the detector's classes to ontology objects.
        rules: which detections to keep.

    Raises:
        OntologyError: `rules.conf` names an object that no class is mapped to.
        DetectError: a `class_id` is out of range, or geometry is not of the kind that the detector declares.

    >>> from prelabel.data.label_map import build_label_map
    >>> from prelabel.data.ontology import Ontology
    >>> label_map = build_label_map(["person", "car"], Ontology.from_classes(["person", "car"]), {"car": None})
    >>> found = VideoDetections(
    ...     frame_index=np.array([0, 0, 1]),
    ...     xyxy=np.array([[-5, 2, 12, 8], [1, 1, 3, 3], [20, 1, 30, 3]], np.float32),
    ...     confidence=np.array([0.9, 0.8, 0.7], np.float32),
    ...     class_id=np.array([0, 1, 0]),
    ...     track_id=np.array([-1, -1, -1]),
    ... )
    >>> filtered = filter_detections(found, VideoInfo(width=10, height=6, num_frames=2), label_map)
    >>> filtered.detections.xyxy.tolist()
    [[0.0, 2.0, 10.0, 6.0]]
    >>> filtered.dropped
    {'ignored': {'car': 1}, 'empty': {'person': 1}}
    """
    _check_class_ids(detections, label_map)
    check_geometry(detections, label_map)
    found = replace(detections, xyxy=clip_boxes(detections.xyxy, info.sizes(detections.frame_index)))
    counts: dict[DropReason, dict[str, int]] = {}
    for reason, rule in _rules(info, label_map, rules).items():
        is_dropped = rule(found)
        if is_dropped.any():
            counts[reason] = count_by_class(found.class_id[is_dropped], label_map.class_names)
            found = found.where(~is_dropped)
    return FilteredDetections(replace(found, geometry=held_geometry(found, label_map)), counts)


def _rules(info: VideoInfo, label_map: LabelMap, rules: FilterRules) -> dict[DropReason, Rule]:
    least = class_thresholds(rules.conf, label_map)
    is_ignored = np.isin(np.array(label_map.class_names, object), label_map.ignored)
    category, size = label_map.category_index, rules.size
    drop: dict[DropReason, Rule] = {
        "ignored": lambda found: is_ignored[found.class_id],
        "unmapped": lambda found: category[found.class_id] < 0,
        "no_keypoints": lambda found: lacks_keypoints(found, label_map),
        "low_confidence": lambda found: found.confidence < least[found.class_id],
        "empty": lambda found: ~has_area(found.xyxy, info.sizes(found.frame_index)),
        "too_small": lambda found: is_too_small(found.xyxy, info.sizes(found.frame_index), size),
        "too_large": lambda found: is_too_large(found.xyxy, info.sizes(found.frame_index), size),
        "aspect": lambda found: has_odd_aspect(found.xyxy, size),
        "out_of_zone": lambda found: is_out_of_zone(found.xyxy, info.sizes(found.frame_index), rules.zones),
        "duplicate": lambda found: _repeats(found, category[found.class_id], info),
    }
    if (nms_iou := rules.nms_iou) is not None:
        drop["overlapping"] = lambda found: overlapping(found, nms_iou)
    if (flicker := rules.flicker) is not None and info.average_fps > 0:  # images do not follow one another
        drop["flicker"] = lambda found: flickering(found, category[found.class_id], flicker)
    if (max_per_frame := rules.max_per_frame) is not None:
        drop["over_max_per_frame"] = lambda found: over_max_per_frame(found, max_per_frame)
    return drop


def _check_class_ids(detections: VideoDetections, label_map: LabelMap) -> None:
    if len(detections) and detections.class_id.max() >= len(label_map.class_names):
        raise DetectError(
            f"class_id: got {detections.class_id.max()}, expected an index into the detector's "
            f"{len(label_map.class_names)} class_names"
        )


def _repeats(found: VideoDetections, category: NDArray[np.int64], info: VideoInfo) -> NDArray[np.bool_]:
    """Returns which boxes repeat a more confident box of the same object on the same frame, bool (N,).

    Two boxes are equal if they agree at five decimals. Label rows carry five decimals, so equal boxes would be the same
    object instance twice.
    """
    order = most_confident_first(found)
    grid = corners_on_grid(found.xyxy, info.sizes(found.frame_index))
    columns = np.column_stack([found.frame_index, category, grid])[order]
    _, first = np.unique(columns, axis=0, return_index=True)
    repeats = np.ones(len(found), np.bool_)
    repeats[order[first]] = False
    return repeats


def most_confident_first(found: VideoDetections) -> NDArray[np.int64]:
    """Returns the row numbers by frame, then by falling confidence, int64 (N,); ties keep their order."""
    order: NDArray[np.int64] = np.lexsort((-found.confidence, found.frame_index))
    return order


def overlapping(found: VideoDetections, max_iou: float) -> NDArray[np.bool_]:
    """Returns which boxes non-maximum suppression drops, over all classes together, bool (N,).

    A box is dropped if its IoU with a more confident box of its frame is above `max_iou`. Boxes that are dropped
    themselves drop no others.

    >>> found = VideoDetections(
    ...     frame_index=np.array([0, 0, 0]),
    ...     xyxy=np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10]], np.float32),
    ...     confidence=np.array([0.5, 0.9, 0.7], np.float32),
    ...     class_id=np.array([0, 1, 0]),
    ...     track_id=np.array([-1, -1, -1]),
    ... )
    >>> overlapping(found, 0.8).tolist()
    [True, False, False]
    """
    order = most_confident_first(found)
    frames = found.frame_index[order]
    suppressed = np.zeros(len(found), np.bool_)
    for rows in np.split(order, np.flatnonzero(np.diff(frames)) + 1):
        on_others = np.triu(iou_matrix(found.xyxy[rows], found.xyxy[rows]) > max_iou, k=1)
        gone = suppressed[rows]
        for rank in np.flatnonzero(on_others.any(axis=1)):
            if not gone[rank]:
                gone |= on_others[rank]
        suppressed[rows] = gone
    return suppressed


def over_max_per_frame(found: VideoDetections, max_per_frame: int) -> NDArray[np.bool_]:
    """Returns which boxes are not among the `max_per_frame` most confident ones of their frame, bool (N,).

    >>> found = VideoDetections(
    ...     frame_index=np.array([0, 0, 1]),
    ...     xyxy=np.array([[0, 0, 1, 1]] * 3, np.float32),
    ...     confidence=np.array([0.5, 0.9, 0.3], np.float32),
    ...     class_id=np.array([0, 0, 0]),
    ...     track_id=np.array([-1, -1, -1]),
    ... )
    >>> over_max_per_frame(found, 1).tolist()
    [True, False, False]
    """
    order = most_confident_first(found)
    frames = found.frame_index[order]
    rank = np.arange(len(order)) - np.searchsorted(frames, frames)
    over = np.empty(len(order), np.bool_)
    over[order] = rank >= max_per_frame
    return over
