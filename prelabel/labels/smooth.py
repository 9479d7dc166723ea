"""Removes the detector's jitter from the boxes of a track."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prelabel.data.boxes import clip_boxes, has_area
from prelabel.data.detections import VideoDetections
from prelabel.data.frames import VideoInfo


def runs(tracked: VideoDetections) -> list[NDArray[np.int64]]:
    """Returns the rows of each run, a stretch of a track without a gap; runs by track, then by time.

    The boxes of a run are on frames that the detector saw one after the other, no farther apart than such frames
    usually are. So a run ends at a gap of the track, and where a frame range ends.

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


NUM_SIGMAS = 3
"""Boxes farther away are left out: they would weigh a hundredth or less."""


def smooth_boxes(tracked: VideoDetections, info: VideoInfo, smooth_seconds: float) -> NDArray[np.float32]:
    """Returns the corners, (N, 4), smoothed over each stretch of a track without a gap.

    A straight line is fitted to the corners around each one, with Gaussian weights by their distance in time, and the
    corner moves onto it: local linear regression (Cleveland 1979). Unlike a mean, it leaves steady motion as it is, at
    the ends too. A box that would lose its area stays as it is.

    Args:
        tracked: boxes, each of a track.
        info: the video.
        smooth_seconds: standard deviation of the Gaussian; 0: boxes stay as they are.
    """
    if smooth_seconds == 0:
        return tracked.xyxy
    xyxy = tracked.xyxy.copy()
    for rows in runs(tracked):
        seconds = tracked.frame_index[rows] / info.average_fps
        xyxy[rows] = fit_locally(seconds, tracked.xyxy[rows].astype(np.float64), smooth_seconds)
    sizes = info.sizes(tracked.frame_index)
    xyxy = clip_boxes(xyxy, sizes)
    return np.where(has_area(xyxy, sizes)[:, None], xyxy, tracked.xyxy)


def fit_locally(at: NDArray[np.float64], values: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Returns the values, (N, K), of lines fitted around each place.

    Args:
        at: (N,), rising places.
        values: (N, K).
        sigma: standard deviation of the Gaussian that weights neighbours, in the unit of `at`.

    >>> places = np.arange(5.0)
    >>> fit_locally(places, (2 * places + 1)[:, None], 1.0)[:, 0].round(6).tolist()
    [1.0, 3.0, 5.0, 7.0, 9.0]
    """
    weight, moment, inertia = np.ones_like(at), np.zeros_like(at), np.zeros_like(at)
    total, tilt = values.copy(), np.zeros_like(values)
    for shift in range(1, len(at)):
        distance = at[shift:] - at[:-shift]
        if distance.min() > NUM_SIGMAS * sigma:
            break
        pull = np.exp(-0.5 * (distance / sigma) ** 2)
        for rows, others, away in (
            (np.s_[:-shift], np.s_[shift:], distance),
            (np.s_[shift:], np.s_[:-shift], -distance),
        ):
            weight[rows] += pull
            moment[rows] += pull * away
            inertia[rows] += pull * away**2
            total[rows] += pull[:, None] * values[others]
            tilt[rows] += (pull * away)[:, None] * values[others]
    spread = weight * inertia - moment**2
    is_spread = spread > 1e-12 * np.maximum(weight * inertia, 1e-300)
    fitted = (inertia[:, None] * total - moment[:, None] * tilt) / np.where(is_spread, spread, 1)[:, None]
    return np.where(is_spread[:, None], fitted, values)
