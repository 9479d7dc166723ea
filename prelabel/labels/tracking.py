"""Boxes into tracks: linked frame by frame, short tracks dropped, a class voted for, gaps bridged, few boxes kept.

Pure but for the tracker, of which each shot gets a fresh one.

It works on filtered detections. A box under a threshold of the config therefore never becomes a label, neither as
part of a track nor as a help to link one. For ByteTrack's second stage, in which unsure boxes go on with tracks that
sure ones began, lower `detector.conf` and leave `tracker.high_conf` where it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from prelabel.data.boxes import has_area
from prelabel.data.detections import Detections, VideoDetections, merge
from prelabel.data.frames import VideoInfo
from prelabel.data.label_map import LabelMap
from prelabel.errors import TrackError
from prelabel.labels.filter import DropCounts, DropReason, FilteredDetections, count_by_class
from prelabel.labels.fit import held_geometry, lacks_keypoints
from prelabel.labels.keyframes import Keyframes, keep_keyframes
from prelabel.labels.smooth import smooth_boxes
from prelabel.plugins.protocols import Tracker


@dataclass(frozen=True, slots=True)
class Linking:
    """How boxes become tracks.

    Attributes:
        new_tracker: builds a tracker without memory for a video.
        max_gap_seconds: between two boxes of a track, for the frames between to be filled in.
        min_length: boxes that a track must have, those filled in not counted.
        smooth_seconds: how far around its time a box is smoothed; 0: it stays as it was found.
        keyframes: of which boxes a track consists; None: of all.
    """

    new_tracker: Callable[[VideoInfo], Tracker]
    max_gap_seconds: float
    min_length: int
    smooth_seconds: float = 0.0
    keyframes: Keyframes | None = None


def track_detections(
    filtered: FilteredDetections, info: VideoInfo, label_map: LabelMap, cuts: Sequence[int], linking: Linking
) -> FilteredDetections:
    """Returns the boxes of tracks, `track_id` from 1 by first appearance; all others are dropped and counted.

    In this order: boxes are linked, short tracks dropped, a class is voted for, boxes are smoothed, short gaps filled
    in, and few boxes kept; the last three where the config asks for them.

    Of a thing of which more is known than its box, nothing is smoothed or filled in: what was seen on another frame
    does not fit.

    The confidence of a box stays that with which it was found, also where its track is of another class or it was
    smoothed. Those filled in are marked, and have confidence 0: nothing was measured.
    Pictures come back as they are: nothing says that one follows another.

    Args:
        filtered: what becomes labels.
        info: the video.
        label_map: from the detector's classes to ontology objects.
        cuts: rising, frames with which a new shot begins; no track goes on over one.
        linking: how.

    Raises:
        TrackError: the tracker raised or broke its contract.
    """
    if info.average_fps <= 0:
        return filtered
    boxes = filtered.detections
    track_id = link_boxes(boxes, info, cuts, linking.new_tracker)
    found = replace(boxes, track_id=track_id)
    is_short = _track_lengths(found.track_id) < linking.min_length
    reasons: dict[DropReason, NDArray[np.bool_]] = {
        "untracked": found.track_id < 0,
        "short_track": (found.track_id >= 0) & is_short,
    }
    counts = {reason: count_by_class(found.class_id[rows], label_map.class_names) for reason, rows in reasons.items()}
    kept = found.where(~(reasons["untracked"] | reasons["short_track"]))
    kept = replace(kept, track_id=kept.instance + 1)
    kept, unposed = _elect(kept, label_map)
    dropped = _with_counts(filtered.dropped, {**counts, "no_keypoints": unposed})
    smooth_xyxy = smooth_boxes(kept, info, linking.smooth_seconds)
    smooth = replace(kept, xyxy=np.where(kept.has_geometry[:, None], kept.xyxy, smooth_xyxy))
    filled = fill_gaps(smooth, info, linking.max_gap_seconds)
    if linking.keyframes is None:
        return FilteredDetections(filled, dropped)
    as_found = fill_gaps(kept, info, linking.max_gap_seconds)
    few, thinning = keep_keyframes(filled, info, linking.keyframes, as_found.xyxy)
    return FilteredDetections(few, dropped, thinning)


def link_boxes(
    found: VideoDetections, info: VideoInfo, cuts: Sequence[int], new_tracker: Callable[[VideoInfo], Tracker]
) -> NDArray[np.int64]:
    """Returns the track of each box, int64 (N,), from 0 by first appearance; -1: the tracker gave it none.

    The tracker is shown every frame that was looked at, in order, those without boxes included.

    Args:
        found: boxes.
        info: the video.
        cuts: rising, frames with which a new shot begins, and with it a new tracker.
        new_tracker: builds one.

    Raises:
        TrackError: the tracker raised or broke its contract.
    """
    frames = found.frames_looked_at
    starts = np.searchsorted(found.frame_index, frames, side="left").tolist()
    ends = np.searchsorted(found.frame_index, frames, side="right").tolist()
    shots = np.searchsorted(np.asarray(cuts, np.int64), frames, side="right").tolist()
    track_id = np.full(len(found), -1, np.int64)
    names: dict[tuple[int, int], int] = {}
    tracker, last_shot = new_tracker(info), shots[0] if shots else 0
    for frame_index, start, end, shot in zip(frames.tolist(), starts, ends, shots, strict=True):
        if shot != last_shot:
            tracker, last_shot = new_tracker(info), shot
        boxes = Detections(found.xyxy[start:end], found.confidence[start:end], found.class_id[start:end])
        for row, given in enumerate(_ask(tracker, boxes, frame_index).tolist(), start):
            if given >= 0:
                track_id[row] = names.setdefault((shot, given), len(names))
    return track_id


def _elect(tracked: VideoDetections, label_map: LabelMap) -> tuple[VideoDetections, dict[str, int]]:
    """Returns the boxes of the classes that their tracks elect, and by class how many become skeletons, without a pose.

    What is known beyond a box stays where the elected object's shape holds it.
    """
    voted = replace(tracked, class_id=vote_classes(tracked, label_map))
    voted = replace(voted, geometry=held_geometry(voted, label_map))
    lacks = lacks_keypoints(voted, label_map)
    return voted.where(~lacks), count_by_class(voted.class_id[lacks], label_map.class_names)


def _with_counts(dropped: DropCounts, more: DropCounts) -> DropCounts:
    counts = {reason: Counter(by_class) for reason, by_class in dropped.items()}
    for reason, by_class in more.items():
        if by_class:
            counts[reason] = counts.get(reason, Counter()) + Counter(by_class)
    return {reason: dict(by_class) for reason, by_class in counts.items()}


def vote_classes(tracked: VideoDetections, label_map: LabelMap) -> NDArray[np.int64]:
    """Returns one class for all boxes of a track, int64 (N,).

    Boxes vote with their confidence, first for the ontology object, then among the classes that become it: two kinds of
    vehicle together outvote a person.

    Args:
        tracked: boxes, each of a track and of a mapped class.
        label_map: from the detector's classes to ontology objects.
    """
    track = tracked.instance
    category = label_map.category_index[tracked.class_id]
    agrees = category == _heaviest(track, category, tracked.confidence)[track]
    elected = _heaviest(track[agrees], tracked.class_id[agrees], tracked.confidence[agrees])
    return elected[track]


def fill_gaps(tracked: VideoDetections, info: VideoInfo, max_gap_seconds: float) -> VideoDetections:
    """Returns the boxes and, marked, those between two of a track, on a straight line, on the frames looked at.

    Between two of which more is known than the box nothing is filled in.

    Args:
        tracked: boxes, each of a track.
        info: the video.
        max_gap_seconds: from the one box to the other; a longer gap stays, and the track goes on after it.
    """
    frames = tracked.frames_looked_at
    order = np.lexsort((tracked.frame_index, tracked.track_id))
    before, after = order[:-1], order[1:]
    place = np.searchsorted(frames, tracked.frame_index)
    num_missing = place[after] - place[before] - 1
    gap_seconds = (tracked.frame_index[after] - tracked.frame_index[before]) / info.average_fps
    bridged = (tracked.track_id[after] == tracked.track_id[before]) & (num_missing > 0)
    bridged &= gap_seconds <= max_gap_seconds
    bridged &= ~(tracked.has_geometry[before] | tracked.has_geometry[after])
    num = num_missing[bridged]
    before, after = np.repeat(before[bridged], num), np.repeat(after[bridged], num)
    step = 1 + np.arange(num.sum()) - np.repeat(np.cumsum(num) - num, num)
    frame_index = frames[place[before] + step]
    start, end = tracked.frame_index[before], tracked.frame_index[after]
    part = ((frame_index - start) / (end - start))[:, None]
    xyxy = (tracked.xyxy[before] * (1 - part) + tracked.xyxy[after] * part).astype(np.float32)
    shows = has_area(xyxy, info.sizes(frame_index))
    in_order = np.flatnonzero(shows)[np.argsort(frame_index[shows], kind="stable")]
    before, frame_index, xyxy = before[in_order], frame_index[in_order], xyxy[in_order]
    filled = VideoDetections(
        frame_index=frame_index,
        xyxy=xyxy,
        confidence=np.zeros(len(xyxy), np.float32),
        class_id=tracked.class_id[before],
        track_id=tracked.track_id[before],
        interpolated=np.ones(len(xyxy), np.bool_),
    )
    return merge([tracked, filled])


def _ask(tracker: Tracker, boxes: Detections, frame_index: int) -> NDArray[np.int64]:
    """Returns what the tracker says of a frame's boxes, checked."""
    try:
        given = np.asarray(tracker.update(boxes, frame_index))
    except Exception as error:
        raise TrackError(f"frame {frame_index}: the tracker raised {type(error).__name__}: {error}") from error
    if given.shape != (len(boxes),) or (len(given) and given.dtype.kind not in "iu"):
        raise TrackError(
            f"frame {frame_index}: the tracker returned {given.dtype} {given.shape}, expected whole numbers "
            f"({len(boxes)},): one a box"
        )
    named = given[given >= 0]
    if len(np.unique(named)) < len(named):
        raise TrackError(f"frame {frame_index}: the tracker gave two boxes the same track: {sorted(named.tolist())}")
    return given


def _track_lengths(track_id: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns how many boxes the track of each box has, int64 (N,)."""
    _, inverse, counts = np.unique(track_id, return_inverse=True, return_counts=True)
    lengths: NDArray[np.int64] = counts[inverse.reshape(-1)]
    return lengths


def _heaviest(group: NDArray[np.int64], item: NDArray[np.int64], weight: NDArray[np.float32]) -> NDArray[np.int64]:
    """Returns for each group, 0 to the highest, the item with the greatest sum of weights; of equals the lowest.

    >>> _heaviest(np.array([0, 0, 0, 1]), np.array([5, 7, 7, 2]), np.array([0.6, 0.4, 0.3, 0.1])).tolist()
    [7, 2]
    """
    pairs, inverse = np.unique(np.column_stack([group, item]), axis=0, return_inverse=True)
    sums = np.bincount(inverse.reshape(-1), weights=weight, minlength=len(pairs))
    order = np.lexsort((pairs[:, 1], -sums, pairs[:, 0]))
    _, first = np.unique(pairs[order, 0], return_index=True)
    heaviest: NDArray[np.int64] = pairs[order[first], 1]
    return heaviest
