"""Reduces tracks to a few kept boxes: straight lines between these reproduce the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from prelabel.data.boxes import clip_boxes, has_area, paired_iou
from prelabel.data.detections import VideoDetections, merge
from prelabel.data.frames import VideoInfo


def runs(tracked: VideoDetections) -> list[NDArray[np.int64]]:
    """Returns the rows of each run, ordered by track, then by time.

    A run is a stretch of a track without a gap. Its boxes are on consecutive frames of those that the detector has
    seen. These are no farther apart than such frames usually are. So a run ends at a gap of the track, and where a
    frame range ends.

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
"""Width of the smoothing window in standard deviations; boxes farther away would weigh about a hundredth or less."""


AUTO_SIGMAS = (0.03, 0.045, 0.06, 0.08, 0.1, 0.13, 0.17, 0.22, 0.3)
"""Standard deviations that `auto` tries, in seconds."""
AUTO_MEAN_IOU = 0.97
"""Least mean overlap of a stretch's smoothed boxes with its detected boxes with `auto`."""


@dataclass(frozen=True, slots=True)
class Smoothing:
    """How boxes are smoothed along their tracks.

    Attributes:
        seconds: standard deviation in time; with 0, boxes stay as they are. `auto` smooths each stretch as much as a
            mean overlap of `AUTO_MEAN_IOU` with the detected boxes allows.
        min_iou: with `auto`, a smoothed box overlaps its detected box by this or more.
        max_gap_seconds: a stretch continues over gaps of this length.
    """

    seconds: float | Literal["auto"] = 0.0
    min_iou: float = 0.9
    max_gap_seconds: float = 0.0


def smooth_boxes(tracked: VideoDetections, info: VideoInfo, smoothing: Smoothing) -> NDArray[np.float32]:
    """Returns the corners, (N, 4), smoothed over each stretch of a track.

    This is local linear regression (Cleveland 1979). A straight line is fitted to the corners around each corner, with
    Gaussian weights by distance in time. The corner then moves onto the line. Unlike a mean, this does not change
    steady motion, not even at the ends of a track. A box that would lose its area stays as it is.

    Args:
        tracked: boxes, each of a track.
        info: the video.
        smoothing: how much to smooth.
    """
    if smoothing.seconds == 0:
        return tracked.xyxy
    xyxy = tracked.xyxy.copy()
    for rows in _joined(runs(tracked), tracked, smoothing.max_gap_seconds * info.average_fps):
        seconds = tracked.frame_index[rows] / info.average_fps
        boxes = tracked.xyxy[rows].astype(np.float64)
        if smoothing.seconds == "auto":
            xyxy[rows] = _fit_closely(seconds, boxes, smoothing.min_iou)
        else:
            xyxy[rows] = fit_locally(seconds, boxes, smoothing.seconds)
    sizes = info.sizes(tracked.frame_index)
    xyxy = clip_boxes(xyxy, sizes)
    return np.where(has_area(xyxy, sizes)[:, None], xyxy, tracked.xyxy)


def _joined(
    stretches: Sequence[NDArray[np.int64]], tracked: VideoDetections, max_gap: float
) -> list[NDArray[np.int64]]:
    """Returns the rows of stretches. Neighbours of one track are joined if they are at most `max_gap` frames apart."""
    joined: list[list[NDArray[np.int64]]] = []
    for rows in stretches:
        last = joined[-1][-1][-1] if joined else rows[0]
        is_near = tracked.frame_index[rows[0]] - tracked.frame_index[last] <= max_gap
        if joined and tracked.track_id[last] == tracked.track_id[rows[0]] and is_near:
            joined[-1].append(rows)
        else:
            joined.append([rows])
    return [np.concatenate(parts) for parts in joined]


def _fit_closely(seconds: NDArray[np.float64], boxes: NDArray[np.float64], min_iou: float) -> NDArray[np.float64]:
    """Returns a stretch's boxes, smoothed as much as their overlap with the given boxes allows."""
    smoothed = boxes
    for sigma in AUTO_SIGMAS:
        fitted = fit_locally(seconds, boxes, sigma)
        if paired_iou(fitted, boxes).mean() < AUTO_MEAN_IOU:
            break
        smoothed = fitted
    part = np.ones(len(boxes))  # of the way to the smoothed box
    while (is_far := (paired_iou(boxes + part[:, None] * (smoothed - boxes), boxes) < min_iou) & (part > 0)).any():
        part[is_far] = np.maximum(part[is_far] - 0.25, 0)
    return boxes + part[:, None] * (smoothed - boxes)


def fit_locally(at: NDArray[np.float64], values: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Returns the values, (N, K), of straight lines fitted around each place, at that place.

    Args:
        at: (N,), places, rising.
        values: (N, K), the values to fit.
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
    # Without neighbours in the window, the spread is 0 but for rounding. A line through one place has no slope.
    is_spread = spread > 1e-12 * np.maximum(weight * inertia, 1e-300)
    fitted = (inertia[:, None] * total - moment[:, None] * tilt) / np.where(is_spread, spread, 1)[:, None]
    return np.where(is_spread[:, None], fitted, values)


MAX_SPAN = 300
"""Most boxes from one kept box to the next. It bounds the work, and keeps at most a third of a percent more boxes."""
COARSE_STEP = 16
"""Many long lines are checked at every 16th box first, and only those that pass at every box."""


def select_keyframes(
    frame_index: NDArray[np.int64],
    xyxy: NDArray[np.float32],
    min_iou: float,
    wanted_xyxy: NDArray[np.float32] | None = None,
) -> NDArray[np.int64]:
    """Returns the rows of the smallest set of boxes whose lines reproduce all boxes, int64 (K,), rising.

    A line may join two boxes if it overlaps each box between them, on that box's frame, by `min_iou` or more. The
    search is breadth-first: it collects the boxes that one line reaches from the first box, then those that two lines
    reach, and so on. A greedy choice of the farthest box keeps about 3 % more boxes, since where a line may end depends
    on where it begins.

    Args:
        frame_index: (N,), rising.
        xyxy: (N, 4), corners of one thing's boxes in pixels.
        min_iou: 0..1, least overlap of each box with the line.
        wanted_xyxy: (N, 4), corners that lines must overlap; those of `xyxy` by default.

    >>> boxes = np.array([[x, 0, x + 10, 10] for x in (0, 1, 2, 3, 2, 1, 0)], np.float32)
    >>> select_keyframes(np.arange(7), boxes, 0.9).tolist()
    [0, 3, 6]
    """
    num = len(frame_index)
    frames, boxes = frame_index.astype(np.float64), xyxy.astype(np.float64)
    wanted = boxes if wanted_xyxy is None else wanted_xyxy.astype(np.float64)
    reach = farthest_ends(frames, boxes, wanted, min_iou)
    before = np.full(num, -1)
    level = [0]
    while level and before[-1] < 0 and num > 1:
        reached: list[int] = []
        for row in reversed(level):  # the farthest first: it reaches most boxes, so the others check few
            ahead = np.arange(row + 1, reach[row] + 1)
            ends = ahead[before[ahead] < 0]
            ends = ends[line_holds(frames, boxes, wanted, row, ends, min_iou)]
            before[ends] = row
            reached += ends.tolist()
        level = sorted(reached)
    rows = [num - 1]
    while rows[-1] > 0:
        rows.append(int(before[rows[-1]]))
    return np.array(rows[::-1], np.int64)


def line_holds(
    frames: NDArray[np.float64],
    ends_at: NDArray[np.float64],
    wanted: NDArray[np.float64],
    row: int,
    ends: NDArray[np.int64],
    min_iou: float,
) -> NDArray[np.bool_]:
    """Returns whether a line from `row` to each of `ends` fits the boxes between, bool (len(ends),).

    Args:
        frames: (N,), rising.
        ends_at: (N, 4), corners of the box at which a line begins or ends, for each row.
        wanted: (N, 4), corners of the boxes that lines must overlap.
        row: where the lines begin.
        ends: rows after `row` where the lines end, rising.
        min_iou: 0..1, least overlap of each box between with the line.
    """
    if not len(ends):
        return np.zeros(0, np.bool_)
    all_hold = np.ones(len(ends), np.bool_)
    # Most of many long lines fail at one of a few boxes already.
    is_much = len(ends) * (ends[-1] - row) > COARSE_STEP**3
    for step in (COARSE_STEP, 1) if is_much else (1,):
        open_ends = ends[all_hold]
        between = np.arange(row + 1, open_ends.max(initial=0), step)
        part = (frames[between] - frames[row]) / (frames[open_ends] - frames[row])[:, None]
        lines = ends_at[row] + part[..., None] * (ends_at[open_ends] - ends_at[row])[:, None]
        holds = (paired_iou(lines, wanted[between]) >= min_iou) | (between >= open_ends[:, None])
        all_hold[all_hold] = np.all(holds, axis=1)
    return all_hold


def farthest_ends(
    frames: NDArray[np.float64], starts_at: NDArray[np.float64], wanted: NDArray[np.float64], min_iou: float
) -> NDArray[np.int64]:
    """Returns an upper bound of the row at which a line from each row can end, int64 (N,).

    An overlap of `min_iou` leaves each side of a box some room. A side may move inwards by (1 - min_iou) of the box's
    length; farther in, the intersection is too small. It may move outwards by (1 / min_iou - 1) of that length; farther
    out, the union is too large. So each box that a line passes narrows the range of its slopes. Once that range is
    empty, no line goes farther.

    Args:
        frames: (N,), rising.
        starts_at: (N, 4), corners of the box at which a line begins, for each row.
        wanted: (N, 4), corners of the boxes that lines must overlap.
        min_iou: 0..1, least overlap of each box with the line.
    """
    num = len(frames)
    lengths = np.tile(wanted[:, 2:] - wanted[:, :2], 2)
    inwards, outwards = (1 - min_iou) * lengths, (1 / min_iou - 1) * lengths
    is_first_corner = np.array([True, True, False, False])
    lowest = wanted - np.where(is_first_corner, outwards, inwards)
    highest = wanted + np.where(is_first_corner, inwards, outwards)
    low, high = np.full((num, 4), -np.inf), np.full((num, 4), np.inf)
    farthest = np.arange(num)
    open_rows = np.arange(num)
    for span in range(1, MAX_SPAN + 1):
        open_rows = open_rows[open_rows + span < num]
        if not len(open_rows):
            break
        ends = open_rows + span
        farthest[open_rows] = ends
        time = (frames[ends] - frames[open_rows])[:, None]
        low[open_rows] = np.maximum(low[open_rows], (lowest[ends] - starts_at[open_rows]) / time)
        high[open_rows] = np.minimum(high[open_rows], (highest[ends] - starts_at[open_rows]) / time)
        open_rows = open_rows[(low[open_rows] <= high[open_rows]).all(axis=1)]
    return farthest


class Keyframes(BaseModel):
    """Which boxes of a track are kept, and what the frames between them get."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_iou: float = Field(
        0.9, gt=0, le=1, description="least overlap of every box with the line between the kept ones around it"
    )
    between: Literal["filled", "empty"] = Field(
        "filled",
        description="frames between kept boxes: filled: each gets its box on the line, frames that the stride left out "
        "too; empty: none, until an annotator interpolates; each stretch without a gap is an instance then",
    )


@dataclass(frozen=True, slots=True)
class KeyframeStats:
    """The number of kept boxes of the tracks, and how well the lines between them fit.

    Attributes:
        num_found: number of detected boxes of the tracks; filled-in ones do not count.
        num_kept: number of kept boxes.
        mean_iou: mean overlap of each detected box with the written box on its frame; 1.0 without boxes.
        min_iou: the smallest such overlap.
    """

    num_found: int
    num_kept: int
    mean_iou: float
    min_iou: float


def sum_up(videos: Sequence[KeyframeStats]) -> KeyframeStats | None:
    """Returns the figures of several videos together; None without videos.

    >>> sum_up([KeyframeStats(30, 3, 0.9, 0.85), KeyframeStats(10, 2, 1.0, 1.0)])
    KeyframeStats(num_found=40, num_kept=5, mean_iou=0.925, min_iou=0.85)
    """
    if not videos:
        return None
    num_found = sum(stats.num_found for stats in videos)
    total_iou = sum(stats.num_found * stats.mean_iou for stats in videos)
    return KeyframeStats(
        num_found=num_found,
        num_kept=sum(stats.num_kept for stats in videos),
        mean_iou=total_iou / num_found if num_found else 1.0,
        min_iou=min(stats.min_iou for stats in videos),
    )


def keep_keyframes(
    tracked: VideoDetections, info: VideoInfo, keyframes: Keyframes, found_xyxy: NDArray[np.float32]
) -> tuple[VideoDetections, KeyframeStats]:
    """Returns the tracks with few kept boxes, and how well these fit.

    Filled-in boxes have confidence 0 and are marked. With `between: empty`, each stretch without a gap becomes a track
    of its own. As one instance, the editor would interpolate from its first to its last box, over the gap too.

    Args:
        tracked: boxes, each of a track; filled-in ones are replaced or left out.
        info: the video.
        keyframes: which boxes to keep.
        found_xyxy: (N, 4), the corners before any smoothing; lines must fit these.
    """
    is_kept = np.zeros(len(tracked), np.bool_)
    track_id = tracked.track_id.copy()
    ious: list[float] = []
    lines: list[VideoDetections] = []
    for number, rows in enumerate(runs(tracked)):
        detected = rows[~tracked.interpolated[rows]]
        if not len(detected):
            continue
        frames = tracked.frame_index[detected]
        chosen = select_keyframes(frames, tracked.xyxy[detected], keyframes.min_iou, found_xyxy[detected])
        kept = detected[chosen]
        is_kept[kept] = True
        ious += paired_iou(_on_lines(tracked, kept, frames), found_xyxy[detected]).tolist()
        if keyframes.between == "empty":
            track_id[rows] = number
        else:
            lines.append(_between(tracked, kept, info))
    few = merge([replace(tracked, track_id=track_id).where(is_kept), *lines])
    mean_iou = sum(ious) / len(ious) if ious else 1.0
    stats = KeyframeStats(len(ious), int(is_kept.sum()), mean_iou, min(ious, default=1.0))
    return replace(few, track_id=few.instance + 1), stats


def _on_lines(tracked: VideoDetections, kept: NDArray[np.int64], frames: NDArray[np.int64]) -> NDArray[np.float32]:
    """Returns the boxes, (len(frames), 4), on the lines between the kept rows of a track."""
    corners = [np.interp(frames, tracked.frame_index[kept], side) for side in tracked.xyxy[kept].T]
    return np.stack(corners, axis=1).astype(np.float32)


def _between(tracked: VideoDetections, kept: NDArray[np.int64], info: VideoInfo) -> VideoDetections:
    """Returns the boxes on the frames between the kept rows of a track, marked as filled in."""
    at = tracked.frame_index[kept]
    frames = np.setdiff1d(np.arange(at[0], at[-1] + 1), at)
    xyxy = _on_lines(tracked, kept, frames)
    shows = has_area(xyxy, info.sizes(frames))
    num = int(shows.sum())
    return VideoDetections(
        frame_index=frames[shows],
        xyxy=xyxy[shows],
        confidence=np.zeros(num, np.float32),
        class_id=np.full(num, tracked.class_id[kept[0]], np.int64),
        track_id=np.full(num, tracked.track_id[kept[0]], np.int64),
        inferred_frames=tracked.inferred_frames,
        interpolated=np.ones(num, np.bool_),
    )
