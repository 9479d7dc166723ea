"""Tracks of few boxes: those between which straight lines reproduce the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from prelabel.boxes import has_area, paired_iou
from prelabel.detections import VideoDetections, merge
from prelabel.frames import VideoInfo
from prelabel.shaping.fewest import fewest_boxes
from prelabel.shaping.runs import runs


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
class Thinning:
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


def sum_up(thinnings: Sequence[Thinning]) -> Thinning | None:
    """Returns what several videos' tracks have saved and lost together; None of none.

    >>> sum_up([Thinning(30, 3, 0.9, 0.85), Thinning(10, 2, 1.0, 1.0)])
    Thinning(num_found=40, num_kept=5, mean_iou=0.925, min_iou=0.85)
    """
    if not thinnings:
        return None
    num_found = sum(thinning.num_found for thinning in thinnings)
    total_iou = sum(thinning.num_found * thinning.mean_iou for thinning in thinnings)
    return Thinning(
        num_found=num_found,
        num_kept=sum(thinning.num_kept for thinning in thinnings),
        mean_iou=total_iou / num_found if num_found else 1.0,
        min_iou=min(thinning.min_iou for thinning in thinnings),
    )


def thin_tracks(
    tracked: VideoDetections, info: VideoInfo, keyframes: Keyframes, found_xyxy: NDArray[np.float32]
) -> tuple[VideoDetections, Thinning]:
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
        kept = found[fewest_boxes(tracked.frame_index[found], tracked.xyxy[found], keyframes.min_iou)]
        is_kept[kept] = True
        ious.append(paired_iou(_on_lines(tracked, kept, tracked.frame_index[found]), found_xyxy[found]))
        if keyframes.between == "empty":
            track_id[rows] = number
        else:
            lines.append(_between(tracked, kept, info))
    few = merge([replace(tracked, track_id=track_id).where(is_kept), *lines])
    return replace(few, track_id=few.instance + 1), _thinning(np.concatenate(ious), int(is_kept.sum()))


def _thinning(iou: NDArray[np.floating], num_kept: int) -> Thinning:
    if not len(iou):
        return Thinning(0, 0, 1.0, 1.0)
    return Thinning(len(iou), num_kept, float(iou.mean()), float(iou.min()))


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
