"""Links boxes to tracks, and turns tracks into the boxes to write.

Only the tracker has state, and each shot gets a fresh one. All functions here are pure.

Tracking starts from the detections that the filters keep. So a box below a threshold of the config neither becomes part
of a track nor helps to link one. If unsure boxes should continue tracks, lower `detector.conf` and leave
`tracker.high_conf` as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prelabel.data.boxes import has_area
from prelabel.data.detections import Detections, VideoDetections, merge
from prelabel.data.frames import VideoInfo
from prelabel.data.label_map import LabelMap
from prelabel.errors import TrackError, raised_as
from prelabel.labels.filter import DropCounts, DropReason, FilteredDetections, count_by_class
from prelabel.labels.fit import held_geometry, lacks_keypoints
from prelabel.labels.keyframes import Keyframes, Smoothing, keep_keyframes, smooth_boxes
from prelabel.labels.whole_tracks import TrackLimits, is_short, is_unsure, merge_duplicates
from prelabel.plugins.protocols import ShotTracker, Tracker


@dataclass(frozen=True, slots=True)
class Linking:
    """How boxes are linked to tracks, and what a track must be like.

    Attributes:
        new_tracker: builds a fresh tracker for a video.
        max_gap_seconds: longest gap between two boxes of a track that is filled in.
        limits: what a track must be like.
        smooth_seconds: standard deviation of the smoothing in time; with 0, boxes are not smoothed. `auto` smooths as
            much as the detected boxes allow.
        keyframes: which boxes of a track are kept; None keeps all.
    """

    new_tracker: Callable[[VideoInfo], Tracker | ShotTracker]
    max_gap_seconds: float
    limits: TrackLimits
    smooth_seconds: float | Literal["auto"] = 0.0
    keyframes: Keyframes | None = None


def track_detections(
    filtered: FilteredDetections, info: VideoInfo, label_map: LabelMap, cuts: Sequence[int], linking: Linking
) -> FilteredDetections:
    """Returns the boxes that belong to tracks; drops and counts all others.

    `track_id` counts from 1 by first appearance.

    The steps are: link boxes, merge duplicates, drop short and unsure tracks, vote for a class, smooth, fill in short
    gaps, keep few boxes. `linking` decides which of these steps run.

    A detection with a mask or other geometry is neither smoothed nor filled in, since its geometry fits its own frame
    only. A box keeps its measured confidence even if its track gets another class. Filled-in boxes are marked and have
    confidence 0. Images are returned unchanged, because they do not follow each other.

    Args:
        filtered: the detections that the filters keep.
        info: the video.
        label_map: from the detector's classes to ontology objects.
        cuts: the first frames of new shots, rising; no track continues over one.
        linking: how boxes become tracks.

    Raises:
        TrackError: the tracker raised or broke its contract.
    """
    if info.average_fps <= 0:
        return filtered
    tracked, dropped = _whole_tracks(filtered, info, label_map, cuts, linking)
    tracked = replace(tracked, class_id=vote_classes(tracked, label_map))
    tracked = replace(tracked, geometry=held_geometry(tracked, label_map))
    lacks = lacks_keypoints(tracked, label_map)
    dropped = _with_counts(dropped, {"no_keypoints": tracked.class_id[lacks]}, label_map)
    tracked = tracked.where(~lacks)
    smoothing = Smoothing(linking.smooth_seconds, max_gap_seconds=linking.max_gap_seconds)
    if linking.keyframes is not None:
        smoothing = replace(smoothing, min_iou=linking.keyframes.min_iou)
    smooth_xyxy = smooth_boxes(tracked, info, smoothing)
    smooth = replace(tracked, xyxy=np.where(tracked.has_geometry[:, None], tracked.xyxy, smooth_xyxy))
    filled = fill_gaps(smooth, info, linking.max_gap_seconds)
    if linking.keyframes is None:
        return FilteredDetections(filled, dropped)
    as_detected = fill_gaps(tracked, info, linking.max_gap_seconds)
    kept, stats = keep_keyframes(filled, info, linking.keyframes, as_detected.xyxy)
    return FilteredDetections(kept, dropped, stats)


def _whole_tracks(
    filtered: FilteredDetections, info: VideoInfo, label_map: LabelMap, cuts: Sequence[int], linking: Linking
) -> tuple[VideoDetections, DropCounts]:
    """Returns the boxes of the tracks that stay, and the counts of all dropped boxes."""
    detections, limits = filtered.detections, linking.limits
    tracked = replace(detections, track_id=link_boxes(detections, info, cuts, linking.new_tracker))
    lost: dict[DropReason, NDArray[np.int64]] = {"untracked": tracked.class_id[tracked.track_id < 0]}
    tracked = tracked.where(tracked.track_id >= 0)
    if limits.merge_iou is not None:
        track_id, is_duplicate = merge_duplicates(tracked, limits.merge_iou)
        lost["duplicate_track"] = tracked.class_id[is_duplicate]
        tracked = replace(tracked, track_id=track_id).where(~is_duplicate)
    short = is_short(tracked, info, limits)
    unsure = is_unsure(tracked, info, limits) & ~short
    lost |= {"short_track": tracked.class_id[short], "unsure_track": tracked.class_id[unsure]}
    tracked = tracked.where(~(short | unsure))
    return replace(tracked, track_id=tracked.instance + 1), _with_counts(filtered.dropped, lost, label_map)


def link_boxes(
    detections: VideoDetections,
    info: VideoInfo,
    cuts: Sequence[int],
    new_tracker: Callable[[VideoInfo], Tracker | ShotTracker],
) -> NDArray[np.int64]:
    """Returns the track of each box, int64 (N,), from 0; -1 means no track.

    A tracker gets every frame that the detector has seen, in order, also frames without boxes.

    Args:
        detections: boxes.
        info: the video.
        cuts: the first frames of new shots, rising; each shot gets a fresh tracker.
        new_tracker: builds a tracker.

    Raises:
        TrackError: the tracker raised or broke its contract.
    """
    frames = detections.frames_looked_at
    bounds = np.array([*cuts, np.iinfo(np.int64).max], np.int64)
    ends = np.searchsorted(frames, bounds)
    row_ends = np.searchsorted(detections.frame_index, bounds)
    track_id = np.full(len(detections), -1, np.int64)
    num_tracks = first = first_row = 0
    for end, end_row in zip(ends.tolist(), row_ends.tolist(), strict=True):
        if end > first:
            rows = np.arange(first_row, end_row)
            shot = replace(detections.take(rows), inferred_frames=frames[first:end])
            given = _link_shot(new_tracker(info), shot)
            numbers, number = np.unique(given[given >= 0], return_inverse=True)
            track_id[rows[given >= 0]] = number + num_tracks
            num_tracks += len(numbers)
        first, first_row = end, end_row
    return track_id


def vote_classes(tracked: VideoDetections, label_map: LabelMap) -> NDArray[np.int64]:
    """Returns one class for all boxes of a track, int64 (N,).

    Boxes vote with their confidence, first for the ontology object, then for one of the classes that map to it. So two
    kinds of vehicle together can outvote a person.

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
    """Returns the boxes with short gaps of their tracks filled in on straight lines.

    Only frames that the detector has seen get a box. Filled-in boxes are marked. A gap next to a box with a mask or
    other geometry is not filled in.

    Args:
        tracked: boxes, each of a track.
        info: the video.
        max_gap_seconds: longest time from box to box; a longer gap stays, and the track continues after it.
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


def _link_shot(tracker: Tracker | ShotTracker, shot: VideoDetections) -> NDArray[np.int64]:
    """Returns the tracker's checked answer for the boxes of a shot."""
    if isinstance(tracker, ShotTracker):
        return _checked(
            lambda: tracker.link(shot),
            shot.frame_index,
            f"frames {shot.inferred_frames[0]} to {shot.inferred_frames[-1]}",
        )
    given = [np.zeros(0, np.int64)]
    for frame_index in shot.inferred_frames.tolist():
        rows = shot.rows_on(frame_index)
        boxes = Detections(shot.xyxy[rows], shot.confidence[rows], shot.class_id[rows])
        ask = partial(tracker.update, boxes, frame_index)
        given.append(_checked(ask, shot.frame_index[rows], f"frame {frame_index}"))
    return np.concatenate(given)


def _checked(ask: Callable[[], NDArray[np.int64]], frame_index: NDArray[np.int64], where: str) -> NDArray[np.int64]:
    """Returns a tracker's answer for boxes on the given frames after checking it."""
    with raised_as(TrackError, f"{where}: the tracker"):
        given = np.asarray(ask())
    if given.shape != frame_index.shape or (len(given) and given.dtype.kind not in "iu"):
        raise TrackError(
            f"{where}: the tracker returned {given.dtype} {given.shape}, expected whole numbers "
            f"{frame_index.shape}: one a box"
        )
    named = given >= 0
    places, times = np.unique(np.column_stack([frame_index, given])[named], axis=0, return_counts=True)
    if (times > 1).any():
        frame, track = places[times > 1][0].tolist()
        raise TrackError(f"{where}: the tracker gave two boxes the same track: {track} on frame {frame}")
    return given


def _with_counts(dropped: DropCounts, lost: Mapping[DropReason, NDArray[np.int64]], label_map: LabelMap) -> DropCounts:
    """Returns the counts after adding more dropped boxes, given as class ids by reason."""
    counts = {reason: Counter(by_class) for reason, by_class in dropped.items()}
    for reason, class_id in lost.items():
        if len(class_id):
            counts.setdefault(reason, Counter()).update(count_by_class(class_id, label_map.class_names))
    return {reason: dict(by_class) for reason, by_class in counts.items()}


def _heaviest(group: NDArray[np.int64], choice: NDArray[np.int64], weight: NDArray[np.float32]) -> NDArray[np.int64]:
    """Returns the choice with the greatest sum of weights for each group; of ties, the lowest choice.

    Groups are numbered from 0.

    >>> _heaviest(np.array([0, 0, 0, 1]), np.array([5, 7, 7, 2]), np.array([0.6, 0.4, 0.3, 0.1])).tolist()
    [7, 2]
    """
    pairs, inverse = np.unique(np.column_stack([group, choice]), axis=0, return_inverse=True)
    sums = np.bincount(inverse.reshape(-1), weights=weight, minlength=len(pairs))
    order = np.lexsort((pairs[:, 1], -sums, pairs[:, 0]))
    _, first = np.unique(pairs[order, 0], return_index=True)
    heaviest: NDArray[np.int64] = pairs[order[first], 1]
    return heaviest
