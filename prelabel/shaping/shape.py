"""The rules, applied in their order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from prelabel.boxes import clip_boxes, corners_on_grid, has_area
from prelabel.detections import VideoDetections
from prelabel.errors import DetectError
from prelabel.frames import VideoInfo
from prelabel.label_map import LabelMap
from prelabel.shaping.fit import check_geometry, held_geometry, lacks_keypoints
from prelabel.shaping.flicker import flickering
from prelabel.shaping.overlaps import most_confident_first, over_max_per_frame, overlapping
from prelabel.shaping.reasons import Dropped, DropReason, Shaped, count_by_class
from prelabel.shaping.rules import ShapingRules, class_thresholds
from prelabel.shaping.size import of_odd_aspect, too_large, too_small
from prelabel.shaping.zones import out_of_zone

NO_RULES = ShapingRules()

Rule = Callable[[VideoDetections], NDArray[np.bool_]]
"""Tells which boxes, of those that no rule before has dropped, become no label."""


def shape_detections(
    detections: VideoDetections, info: VideoInfo, label_map: LabelMap, rules: ShapingRules = NO_RULES
) -> Shaped:
    """Returns what is left to label. Each detection that is not is counted once, by the first reason that holds.

    Rules look at boxes. Of what is known beyond the box is left what the object's shape holds.

    Args:
        detections: as the detector found them.
        info: the video that they were found in.
        label_map: from the detector's classes to ontology objects.
        rules: what a box must be like.

    Raises:
        OntologyError: if `rules.conf` names an object that no class becomes.
        DetectError: if a `class_id` is not one of the detector's, or a geometry not of the kind that it says it gives.

    >>> from prelabel.label_map import build_label_map
    >>> from prelabel.ontology import Ontology
    >>> label_map = build_label_map(["person", "car"], Ontology.from_classes(["person", "car"]), {"car": None})
    >>> found = VideoDetections(
    ...     frame_index=np.array([0, 0, 1]),
    ...     xyxy=np.array([[-5, 2, 12, 8], [1, 1, 3, 3], [20, 1, 30, 3]], np.float32),
    ...     confidence=np.array([0.9, 0.8, 0.7], np.float32),
    ...     class_id=np.array([0, 1, 0]),
    ...     track_id=np.array([-1, -1, -1]),
    ... )
    >>> shaped = shape_detections(found, VideoInfo(width=10, height=6, num_frames=2), label_map)
    >>> shaped.detections.xyxy.tolist()
    [[0.0, 2.0, 10.0, 6.0]]
    >>> shaped.dropped.counts
    {'ignored': {'car': 1}, 'empty': {'person': 1}}
    """
    _check_class_ids(detections, label_map)
    check_geometry(detections, label_map)
    found = replace(detections, xyxy=clip_boxes(detections.xyxy, info.sizes(detections.frame_index)))
    counts: dict[DropReason, dict[str, int]] = {}
    for reason, rule in _rules_in_order(info, label_map, rules).items():
        is_dropped = rule(found)
        if is_dropped.any():
            counts[reason] = count_by_class(found.class_id[is_dropped], label_map.class_names)
            found = found.where(~is_dropped)
    return Shaped(replace(found, geometry=held_geometry(found, label_map)), Dropped(counts))


def _rules_in_order(info: VideoInfo, label_map: LabelMap, rules: ShapingRules) -> dict[DropReason, Rule]:
    least = class_thresholds(rules.conf, label_map)
    is_ignored = np.isin(np.array(label_map.class_names, object), label_map.ignored)
    category, size = label_map.category_index, rules.size
    in_order: dict[DropReason, Rule] = {
        "ignored": lambda found: is_ignored[found.class_id],
        "unmapped": lambda found: category[found.class_id] < 0,
        "no_keypoints": lambda found: lacks_keypoints(found, label_map),
        "low_confidence": lambda found: found.confidence < least[found.class_id],
        "empty": lambda found: ~has_area(found.xyxy, info.sizes(found.frame_index)),
        "too_small": lambda found: too_small(found.xyxy, info.sizes(found.frame_index), size),
        "too_large": lambda found: too_large(found.xyxy, info.sizes(found.frame_index), size),
        "aspect": lambda found: of_odd_aspect(found.xyxy, size),
        "out_of_zone": lambda found: out_of_zone(found.xyxy, info.sizes(found.frame_index), rules.zones),
        "duplicate": lambda found: _repeats(found, category[found.class_id], info),
    }
    if (nms_iou := rules.nms_iou) is not None:
        in_order["overlapping"] = lambda found: overlapping(found, nms_iou)
    if (flicker := rules.flicker) is not None and info.average_fps > 0:  # of pictures, none follows another
        in_order["flicker"] = lambda found: flickering(found, category[found.class_id], flicker)
    if (max_per_frame := rules.max_per_frame) is not None:
        in_order["over_max_per_frame"] = lambda found: over_max_per_frame(found, max_per_frame)
    return in_order


def _check_class_ids(detections: VideoDetections, label_map: LabelMap) -> None:
    if len(detections) and detections.class_id.max() >= len(label_map.class_names):
        raise DetectError(
            f"class_id: got {detections.class_id.max()}, expected an index into the detector's "
            f"{len(label_map.class_names)} class_names"
        )


def _repeats(found: VideoDetections, category: NDArray[np.int64], info: VideoInfo) -> NDArray[np.bool_]:
    """Returns, of boxes of one object that are equal at five decimals on one frame, all but the most confident."""
    order = most_confident_first(found)
    grid = corners_on_grid(found.xyxy, info.sizes(found.frame_index))
    columns = np.column_stack([found.frame_index, category, grid])[order]
    _, first = np.unique(columns, axis=0, return_index=True)
    repeats = np.ones(len(found), np.bool_)
    repeats[order[first]] = False
    return repeats
