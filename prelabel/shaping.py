"""From what a detector found to what is labelled: cut to the frame, thresholds, no empty boxes, no duplicates. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from prelabel.boxes import clip_boxes, corners_on_grid
from prelabel.detections import VideoDetections
from prelabel.errors import DetectError, OntologyError, did_you_mean
from prelabel.frames import VideoInfo
from prelabel.ontology import LabelMap

DropReason = Literal["ignored", "unmapped", "low_confidence", "empty", "duplicate", "untracked", "short_track"]
"""The last two are of `prelabel.tracking`."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """How many detections were left out, and why.

    Attributes:
        counts: by reason, then by the detector's class name; only what is not zero.
    """

    counts: Mapping[DropReason, Mapping[str, int]]

    @property
    def total(self) -> int:
        """All of them."""
        return sum(sum(by_class.values()) for by_class in self.counts.values())


@dataclass(frozen=True, slots=True)
class Shaped:
    """Detections that become labels, and the count of those that do not.

    Attributes:
        detections: within their frames, of mapped classes, each with an area at five decimals.
        dropped: all others, counted.
    """

    detections: VideoDetections
    dropped: Dropped


def shape_detections(
    detections: VideoDetections, info: VideoInfo, label_map: LabelMap, conf: float | Mapping[str, float] = 0.0
) -> Shaped:
    """Returns what is left to label. Each detection that is not is counted once, by the first reason that holds.

    Args:
        detections: as the detector found them.
        info: the video that they were found in.
        label_map: from the detector's classes to ontology objects.
        conf: least confidence, one for all or by name of the ontology object.

    Raises:
        OntologyError: if `conf` names an object that no class becomes.
        DetectError: if a `class_id` is not one of the detector's.

    >>> from prelabel.ontology import Ontology, build_label_map
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
    least = class_thresholds(conf, label_map)
    sizes = info.sizes(detections.frame_index)
    clipped = replace(detections, xyxy=clip_boxes(detections.xyxy, sizes))
    grid = corners_on_grid(clipped.xyxy, sizes)
    category = label_map.category_index[detections.class_id]
    ignored = np.isin(np.array(label_map.class_names, object), label_map.ignored)[detections.class_id]

    reasons: dict[DropReason, NDArray[np.bool_]] = {
        "ignored": ignored,
        "unmapped": (category < 0) & ~ignored,
        "low_confidence": detections.confidence < least[detections.class_id],
        "empty": np.any(grid[:, 2:] <= grid[:, :2], axis=1),
    }
    keep = ~np.logical_or.reduce(list(reasons.values()))
    reasons["duplicate"] = keep & ~_first_of_equals(detections, category, grid, keep)
    return Shaped(
        clipped.where(keep & ~reasons["duplicate"]), _count(reasons, detections.class_id, label_map.class_names)
    )


def class_thresholds(conf: float | Mapping[str, float], label_map: LabelMap) -> NDArray[np.float32]:
    """Returns the least confidence by `class_id`, float32.

    Args:
        conf: one for all, or by name of the ontology object; 0 where none is given.
        label_map: from the detector's classes to ontology objects.

    Raises:
        OntologyError: if `conf` names an object that no class becomes.

    >>> from prelabel.ontology import Ontology, build_label_map
    >>> label_map = build_label_map(["car", "bus"], Ontology.from_classes(["Vehicle"]), {"car": "Vehicle"})
    >>> class_thresholds({"Vehicle": 0.5}, label_map).tolist()
    [0.5, 0.0]
    """
    if not isinstance(conf, Mapping):
        return np.full(len(label_map.class_names), conf, np.float32)
    names = [category.name for category in label_map.categories]
    for name in conf:
        if name not in names:
            raise OntologyError(f"labels.conf: no class becomes an object {name!r}: {did_you_mean(name, names)}")
    return np.array([0.0 if found is None else conf.get(found.name, 0.0) for found in label_map.objects], np.float32)


def _check_class_ids(detections: VideoDetections, label_map: LabelMap) -> None:
    if len(detections) and detections.class_id.max() >= len(label_map.class_names):
        raise DetectError(
            f"class_id: got {detections.class_id.max()}, expected an index into the detector's "
            f"{len(label_map.class_names)} class_names"
        )


def _first_of_equals(
    detections: VideoDetections, category: NDArray[np.int64], grid: NDArray[np.int64], among: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Returns, bool (N,), the most confident of each set of equal boxes of one object on one frame."""
    rows = np.flatnonzero(among)
    columns = np.column_stack([detections.frame_index, category, grid])[rows]
    order = np.lexsort([-detections.confidence[rows], *columns.T])
    ranked = columns[order]
    new = np.ones(len(rows), np.bool_)
    new[1:] = (ranked[1:] != ranked[:-1]).any(axis=1)
    first = np.zeros(len(detections), np.bool_)
    first[rows[order[new]]] = True
    return first


def _count(
    reasons: Mapping[DropReason, NDArray[np.bool_]], class_id: NDArray[np.int64], class_names: tuple[str, ...]
) -> Dropped:
    counts: dict[DropReason, dict[str, int]] = {}
    left = np.ones(len(class_id), np.bool_)
    for reason in get_args(DropReason):
        if reason not in reasons:
            continue
        by_class = count_by_class(class_id[reasons[reason] & left], class_names)
        left &= ~reasons[reason]
        if by_class:
            counts[reason] = by_class
    return Dropped(counts)


def count_by_class(class_id: NDArray[np.int64], class_names: tuple[str, ...]) -> dict[str, int]:
    """Returns how often each class comes; only what is not zero.

    >>> count_by_class(np.array([1, 1]), ("car", "bus"))
    {'bus': 2}
    """
    counts = np.bincount(class_id, minlength=len(class_names))
    return {name: int(num) for name, num in zip(class_names, counts, strict=True) if num}
