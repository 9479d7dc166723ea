"""Selects boxes that flicker: their thing is detected on too few of the frames around them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from prelabel.data.boxes import iou_matrix
from prelabel.data.detections import VideoDetections


class Flicker(BaseModel):
    """On how many frames a thing must be seen: on `seen` of `of` frames in a row, its own among them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seen: int = Field(2, ge=1, description="frames, its own included, on which a thing must be seen")
    of: int = Field(3, ge=1, description="so many frames that were looked at one after another")
    min_iou: float = Field(
        0.3, gt=0, le=1, description="least overlap of two boxes of one object, for them to be one thing"
    )

    @model_validator(mode="after")
    def _seen_of_more(self) -> Flicker:
        if self.seen > self.of:
            raise ValueError(f"seen: got {self.seen}, expected {self.of} or less, the frames that it is out of")
        return self


def flickering(found: VideoDetections, category: NDArray[np.int64], flicker: Flicker) -> NDArray[np.bool_]:
    """Returns which boxes show things that are detected on too few of the frames around, bool (N,).

    Args:
        found: boxes; `inferred_frames` lists the frames that the detector has seen, also those without boxes.
        category: (N,), the ontology object of each box.
        flicker: on how many frames a thing must be detected.

    >>> found = VideoDetections(
    ...     frame_index=np.array([0, 1, 1]),
    ...     xyxy=np.array([[0, 0, 10, 10], [1, 0, 11, 10], [50, 0, 60, 10]], np.float32),
    ...     confidence=np.array([0.5, 0.9, 0.7], np.float32),
    ...     class_id=np.array([0, 0, 0]),
    ...     track_id=np.array([-1, -1, -1]),
    ...     inferred_frames=np.array([0, 1, 2]),
    ... )
    >>> flickering(found, found.class_id, Flicker(seen=2, of=3)).tolist()
    [False, False, True]
    """
    seen = _seen_around(found, category, flicker)
    most = sliding_window_view(seen, flicker.of, axis=1).sum(axis=2).max(axis=1)
    too_few: NDArray[np.bool_] = most < flicker.seen
    return too_few


def _seen_around(found: VideoDetections, category: NDArray[np.int64], flicker: Flicker) -> NDArray[np.bool_]:
    """Returns whether each box's thing is detected on each frame around the box, bool (N, 2 of - 1).

    The frames are the `of - 1` frames before the box, its own, and the `of - 1` frames after it.
    """
    reach = flicker.of - 1
    seen = np.zeros((len(found), 2 * reach + 1), np.bool_)
    seen[:, reach] = True
    frames = found.frames_looked_at
    bounds = np.append(np.searchsorted(found.frame_index, frames), len(found)).tolist()
    boxes_of = list(pairwise(bounds))
    for distance in range(1, flicker.of):
        for (start, end), (later_start, later_end) in zip(boxes_of, boxes_of[distance:], strict=False):
            if start == end or later_start == later_end:
                continue
            overlap = iou_matrix(found.xyxy[start:end], found.xyxy[later_start:later_end])
            is_same = (overlap >= flicker.min_iou) & (
                category[start:end, None] == category[None, later_start:later_end]
            )
            seen[start:end, reach + distance] = is_same.any(axis=1)
            seen[later_start:later_end, reach - distance] = is_same.any(axis=0)
    return seen
