"""Boxes of a track that follow each other: what may be joined by a line, and what may not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prelabel.detections import VideoDetections


def runs(tracked: VideoDetections) -> list[NDArray[np.int64]]:
    """Returns the rows of each run, rising in time; runs by track, then time.

    Boxes of a track are of one run where they stand on frames that were looked at one right after the other, and no
    farther apart than such frames are as a rule: not where a track has a gap, nor between two frame ranges.

    Args:
        tracked: boxes, each of a track.

    >>> tracked = VideoDetections(
    ...     frame_index=np.array([0, 0, 2, 2, 6]),
    ...     xyxy=np.zeros((5, 4), np.float32),
    ...     confidence=np.zeros(5, np.float32),
    ...     class_id=np.zeros(5, np.int64),
    ...     track_id=np.array([1, 2, 1, 2, 1]),
    ...     inferred_frames=np.array([0, 2, 4, 6]),
    ... )
    >>> [rows.tolist() for rows in runs(tracked)]
    [[0, 2], [4], [1, 3]]
    """
    order = np.lexsort((tracked.frame_index, tracked.track_id))
    if not len(order):
        return []
    frames = tracked.frames_looked_at
    usual_step = np.median(np.diff(frames)) if len(frames) > 1 else 1
    frame_index, track_id = tracked.frame_index[order], tracked.track_id[order]
    place = np.searchsorted(frames, frame_index)
    follows = (np.diff(track_id) == 0) & (np.diff(place) == 1) & (np.diff(frame_index) <= usual_step)
    return np.split(order, np.flatnonzero(~follows) + 1)
