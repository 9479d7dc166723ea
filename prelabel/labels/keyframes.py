"""Tracks of few boxes: those between which straight lines reproduce the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from prelabel.data.boxes import has_area, paired_iou
from prelabel.data.detections import VideoDetections, merge
from prelabel.data.frames import VideoInfo
from prelabel.labels.smooth import runs

MAX_SPAN = 300
"""Boxes from one that is kept to the next: bounds the work and costs a third of a percent of the boxes at most."""


def select_keyframes(frame_index: NDArray[np.int64], xyxy: NDArray[np.float32], min_iou: float) -> NDArray[np.int64]:
    """Returns the rows, int64 (K,), rising, of a smallest set that reproduces all boxes; first and last are of it.

    A line may go from one box to another if each box between them overlaps it, at its frame, by `min_iou` or more.
    Boxes are reached level by level, as in any breadth-first search: those that one line reaches from the first box,
    those that two lines reach, and so on. The level on which the last box is reached is thus the least number of lines.
    A greedy choice of the farthest box keeps some 3 % more, since where a line may end depends on where it begins.

    Args:
        frame_index: (N,), rising.
        xyxy: (N, 4), corners of one thing's boxes in pixels.
        min_iou: 0..1.

    >>> boxes = np.array([[x, 0, x + 10, 10] for x in (0, 1, 2, 3, 2, 1, 0)], np.float32)
    >>> select_keyframes(np.arange(7), boxes, 0.9).tolist()
    [0, 3, 6]
    """
    num = len(frame_index)
    frames, boxes = frame_index.astype(np.float64), xyxy.astype(np.float64)
    reach = _farthest(frames, boxes, min_iou)
    before = np.full(num, -1)
    level = [0]
    while level and before[-1] < 0 and num > 1:
        reached: list[int] = []
        for row in reversed(level):  # the farthest first: it mostly leaves little to the others
            ahead = np.arange(row + 1, reach[row] + 1)
            ends = ahead[before[ahead] < 0]
            ends = ends[_line_holds(frames, boxes, row, ends, min_iou)]
            before[ends] = row
            reached += ends.tolist()
        level = sorted(reached)
    return _way_back(before, num - 1)


def _way_back(before: NDArray[np.int64], last: int) -> NDArray[np.int64]:
    rows = [last]
    while rows[-1] > 0:
        rows.append(int(before[rows[-1]]))
    return np.array(rows[::-1], np.int64)


def _line_holds(
    frames: NDArray[np.float64], boxes: NDArray[np.float64], row: int, ends: NDArray[np.int64], min_iou: float
) -> NDArray[np.bool_]:
    """Returns whether the line from `row` to each of `ends` (rising) meets the boxes between, bool (len(ends),)."""
    if not len(ends):
        return np.zeros(0, np.bool_)
    between = np.arange(row + 1, ends[-1])
    part = (frames[between] - frames[row]) / (frames[ends] - frames[row])[:, None]
    lines = boxes[row] + part[..., None] * (boxes[ends] - boxes[row])[:, None]
    holds = (paired_iou(lines, boxes[between]) >= min_iou) | (between >= ends[:, None])
    all_hold: NDArray[np.bool_] = np.all(holds, axis=1)
    return all_hold


def _farthest(frames: NDArray[np.float64], boxes: NDArray[np.float64], min_iou: float) -> NDArray[np.int64]:
    """Returns the last row that a line from each row could end at, int64 (N,): past it, none does.

    An overlap of `min_iou` leaves each side of a box a way to go: (1 - min_iou) of the box's length inwards, or it lost
    more of the intersection, and (1 / min_iou - 1) of it outwards, or it added more to the union. So a line's slope is
    held in a cone from its first box, which each box that it passes narrows; once a cone is empty no line goes farther.
    """
    num = len(frames)
    lengths = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    inwards, outwards = (1 - min_iou) * lengths, (1 / min_iou - 1) * lengths
    is_first_corner = np.array([True, True, False, False])
    lowest = boxes - np.where(is_first_corner, outwards, inwards)
    highest = boxes + np.where(is_first_corner, inwards, outwards)
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
        low[open_rows] = np.maximum(low[open_rows], (lowest[ends] - boxes[open_rows]) / time)
        high[open_rows] = np.minimum(high[open_rows], (highest[ends] - boxes[open_rows]) / time)
        open_rows = open_rows[(low[open_rows] <= high[open_rows]).all(axis=1)]
    return farthest


class Keyframes(BaseModel):
    """Which boxes of a track are kept, and what stands on the frames between them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_iou: float = Field(
        0.9, gt=0, le=1, description="least overlap of every box with the line between the kept ones around it"
    )
    between: Literal["filled", "empty"] = Field(
        "filled",
        description="frames between kept boxes: filled: each gets its box on the line, those that were not looked at "
        "too; empty: none, until somebody interpolates in the editor; each stretch without a gap is an instance then",
    )


@dataclass(frozen=True, slots=True)
class KeyframeStats:
    """What keeping few boxes has saved, and what it has cost.

    Attributes:
        num_found: boxes that the tracks had, those filled in not counted.
        num_kept: those of them that are kept.
        mean_iou: of each box that was found with what stands for it now; 1.0 where there is none.
        min_iou: the least of these.
    """

    num_found: int
    num_kept: int
    mean_iou: float
    min_iou: float


def sum_up(thinnings: Sequence[KeyframeStats]) -> KeyframeStats | None:
    """Returns what several videos' tracks have saved and lost together; None of none.

    >>> sum_up([KeyframeStats(30, 3, 0.9, 0.85), KeyframeStats(10, 2, 1.0, 1.0)])
    KeyframeStats(num_found=40, num_kept=5, mean_iou=0.925, min_iou=0.85)
    """
    if not thinnings:
        return None
    num_found = sum(thinning.num_found for thinning in thinnings)
    total_iou = sum(thinning.num_found * thinning.mean_iou for thinning in thinnings)
    return KeyframeStats(
        num_found=num_found,
        num_kept=sum(thinning.num_kept for thinning in thinnings),
        mean_iou=total_iou / num_found if num_found else 1.0,
        min_iou=min(thinning.min_iou for thinning in thinnings),
    )


def keep_keyframes(
    tracked: VideoDetections, info: VideoInfo, keyframes: Keyframes, found_xyxy: NDArray[np.float32]
) -> tuple[VideoDetections, KeyframeStats]:
    """Returns the tracks with few boxes kept, and what that has saved.

    What is filled in has confidence 0 and is marked. With nothing between, a stretch without a gap becomes a track of
    its own: who interpolates an instance in the editor fills it from its first to its last box.

    Args:
        tracked: boxes, each of a track; those filled in are made anew, or left out.
        info: the video.
        keyframes: which to keep.
        found_xyxy: (N, 4), the boxes as they were found, before any smoothing; what is lost is told against them.
    """
    is_kept = np.zeros(len(tracked), np.bool_)
    track_id = tracked.track_id.copy()
    ious: list[NDArray[np.floating]] = [np.zeros(0)]
    lines: list[VideoDetections] = []
    for number, rows in enumerate(runs(tracked)):
        found = rows[~tracked.interpolated[rows]]
        if not len(found):
            continue
        kept = found[select_keyframes(tracked.frame_index[found], tracked.xyxy[found], keyframes.min_iou)]
        is_kept[kept] = True
        ious.append(paired_iou(_on_lines(tracked, kept, tracked.frame_index[found]), found_xyxy[found]))
        if keyframes.between == "empty":
            track_id[rows] = number
        else:
            lines.append(_between(tracked, kept, info))
    few = merge([replace(tracked, track_id=track_id).where(is_kept), *lines])
    return replace(few, track_id=few.instance + 1), _thinning(np.concatenate(ious), int(is_kept.sum()))


def _thinning(iou: NDArray[np.floating], num_kept: int) -> KeyframeStats:
    if not len(iou):
        return KeyframeStats(0, 0, 1.0, 1.0)
    return KeyframeStats(len(iou), num_kept, float(iou.mean()), float(iou.min()))


def _on_lines(tracked: VideoDetections, chosen: NDArray[np.int64], frames: NDArray[np.int64]) -> NDArray[np.float32]:
    """Returns the boxes, (len(frames), 4), on the lines between the chosen rows of a track."""
    corners = [np.interp(frames, tracked.frame_index[chosen], side) for side in tracked.xyxy[chosen].T]
    return np.stack(corners, axis=1).astype(np.float32)


def _between(tracked: VideoDetections, chosen: NDArray[np.int64], info: VideoInfo) -> VideoDetections:
    """Returns the boxes on the frames between the chosen rows of a track, marked as filled in."""
    at = tracked.frame_index[chosen]
    frames = np.setdiff1d(np.arange(at[0], at[-1] + 1), at)
    xyxy = _on_lines(tracked, chosen, frames)
    shows = has_area(xyxy, info.sizes(frames))
    num = int(shows.sum())
    return VideoDetections(
        frame_index=frames[shows],
        xyxy=xyxy[shows],
        confidence=np.zeros(num, np.float32),
        class_id=np.full(num, tracked.class_id[chosen[0]], np.int64),
        track_id=np.full(num, tracked.track_id[chosen[0]], np.int64),
        inferred_frames=tracked.inferred_frames,
        interpolated=np.ones(num, np.bool_),
    )
