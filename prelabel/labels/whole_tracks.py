"""Merges duplicate tracks, and selects short and unsure tracks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prelabel.data.boxes import overlapping_pairs
from prelabel.data.detections import VideoDetections
from prelabel.data.frames import VideoInfo


@dataclass(frozen=True, slots=True)
class TrackLimits:
    """What a track must be like to become an object instance.

    Attributes:
        min_length: fewest detected boxes.
        min_seconds: shortest time from first to last box, at most half of the video.
        min_mean_conf: least mean confidence of its boxes.
        min_peak_conf: least confidence of its most confident box.
        max_filled: largest share of its frames without a detected box.
        merge_iou: overlap from which two tracks are the same thing; None merges no tracks.
    """

    min_length: int = 1
    min_seconds: float = 0.0
    min_mean_conf: float = 0.0
    min_peak_conf: float = 0.0
    max_filled: float = 1.0
    merge_iou: float | None = None


def merge_duplicates(detections: VideoDetections, min_iou: float) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Returns the track of each box after merging, int64 (N,), and which boxes are dropped, bool (N,).

    A track is a duplicate if at least half of its boxes overlap those of a track with a greater sum of confidences. On
    frames where that track has no box, it takes over the duplicate's boxes. The duplicate's other boxes are dropped.

    Args:
        detections: boxes, each of a track.
        min_iou: overlap from which boxes of two tracks are one thing, even if their classes differ.
    """
    track_id = detections.track_id.copy()
    is_dropped = np.zeros(len(detections), np.bool_)
    shared: dict[int, Counter[int]] = defaultdict(Counter)
    pairs = overlapping_pairs(detections.frame_index, detections.xyxy, min_iou)
    for one, other in track_id[pairs].tolist():
        shared[one][other] += 1
        shared[other][one] += 1
    by_weight = dict(_by_weight(track_id, detections.confidence))
    rank = {number: n for n, number in enumerate(by_weight)}
    for number in reversed(list(by_weight)):  # the least sure first
        rows = by_weight[number]
        others = (each for each, num in shared[number].most_common() if 2 * num >= len(rows))
        other = next((each for each in others if rank[each] < rank[number]), None)
        if other is None:
            continue
        is_taken = np.isin(detections.frame_index[rows], detections.frame_index[by_weight[other]])
        is_dropped[rows[is_taken]] = True
        track_id[rows[~is_taken]] = other
        by_weight[other] = np.sort(np.append(by_weight[other], rows[~is_taken]))
    return track_id, is_dropped


def is_unsure(detections: VideoDetections, info: VideoInfo, limits: TrackLimits) -> NDArray[np.bool_]:
    """Returns which boxes belong to a track with low confidence or too many gaps, bool (N,)."""
    number, frames = detections.instance, detections.frames_looked_at
    size = int(number.max(initial=-1)) + 1
    num = np.bincount(number, minlength=size)
    mean = np.bincount(number, weights=detections.confidence, minlength=size) / np.maximum(num, 1)
    peak = np.zeros(size)
    np.maximum.at(peak, number, detections.confidence)
    first, last = _ends(number, np.searchsorted(frames, detections.frame_index), size)
    filled = 1 - num / np.maximum(last - first + 1, 1)
    # Confidences are float32, limits float64: the same decimal number differs slightly between the two.
    unsure = (mean < limits.min_mean_conf - 1e-6) | (peak < limits.min_peak_conf - 1e-6) | (filled > limits.max_filled)
    is_of_unsure: NDArray[np.bool_] = unsure[number]
    return is_of_unsure


def is_short(detections: VideoDetections, info: VideoInfo, limits: TrackLimits) -> NDArray[np.bool_]:
    """Returns which boxes belong to a track with too few boxes or too short a time, bool (N,)."""
    number, frames = detections.instance, detections.frames_looked_at
    size = int(number.max(initial=-1)) + 1
    num = np.bincount(number, minlength=size)
    step = float(np.median(np.diff(frames))) if len(frames) > 1 else 1.0
    first, last = _ends(number, detections.frame_index, size)
    seconds = (last - first + step) / info.average_fps
    min_seconds = min(limits.min_seconds, info.num_frames / info.average_fps / 2)
    is_of_short: NDArray[np.bool_] = ((num < limits.min_length) | (seconds < min_seconds - 1e-9))[number]
    return is_of_short


def _ends(number: NDArray[np.int64], at: NDArray[np.int64], size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the lowest and the highest place of each number."""
    first, last = np.full(size, np.iinfo(np.int64).max), np.full(size, -1)
    np.minimum.at(first, number, at)
    np.maximum.at(last, number, at)
    return first, last


def _by_weight(track_id: NDArray[np.int64], confidence: NDArray[np.float32]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yields each track with its rows, the track with the greatest sum of confidences first."""
    rows = np.flatnonzero(track_id >= 0)
    order = rows[np.argsort(track_id[rows], kind="stable")]
    numbers, starts = np.unique(track_id[order], return_index=True)
    parts = np.split(order, starts[1:]) if len(order) else []
    weights = [-float(confidence[part].sum()) for part in parts]
    for n in np.argsort(weights, kind="stable").tolist():
        yield int(numbers[n]), parts[n]
