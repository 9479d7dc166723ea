"""Boxes on one frame that lie on each other, or are too many."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prelabel.boxes import iou_matrix
from prelabel.detections import VideoDetections


def most_confident_first(found: VideoDetections) -> NDArray[np.int64]:
    """Returns the order, int64 (N,), by frame, then falling confidence; of equals the earlier row first."""
    order: NDArray[np.int64] = np.lexsort((-found.confidence, found.frame_index))
    return order


def overlapping(found: VideoDetections, max_iou: float) -> NDArray[np.bool_]:
    """Returns which boxes a more confident one of their frame that stays overlaps by more than `max_iou`, bool (N,).

    That is non-maximum suppression over all classes together.

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
    """Returns which boxes come after the `max_per_frame` most confident ones of their frame, bool (N,).

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
