"""The contract of trackers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from prelabel.data.detections import Detections
from prelabel.data.frames import VideoInfo
from prelabel.plugins.protocols import Tracker


def check_tracker(make_tracker: Callable[[VideoInfo], Tracker]) -> None:
    """Checks that a tracker keeps its contract: a track or -1 for each box, none twice on a frame, the same each time.

    Args:
        make_tracker: builds a fresh tracker for a video.

    Raises:
        AssertionError: says what is wrong.
    """
    info = VideoInfo(width=640, height=360, num_frames=90, average_fps=25.0, duration_seconds=3.6)
    boxes = _moving_boxes(info)
    alone = _track(make_tracker(info), boxes)
    assert any((ids >= 0).any() for ids in alone.values()), "update: two sure boxes on most frames, and no track at all"
    first, second = make_tracker(info), make_tracker(info)
    for frame_index, found in boxes.items():
        for which, tracker in (("first", first), ("second", second)):
            ids = _track(tracker, {frame_index: found})[frame_index]
            assert np.array_equal(ids, alone[frame_index]), (
                f"update: frame {frame_index}: the {which} of two trackers used beside each other got {ids.tolist()}, "
                f"one used alone {alone[frame_index].tolist()}: a fresh tracker remembers nothing, and shares nothing"
            )
    nothing = {frame_index: Detections.empty() for frame_index in (0, 1, 50)}
    _track(make_tracker(info), nothing)


def _moving_boxes(info: VideoInfo) -> dict[int, Detections]:
    """Returns boxes by frame: two that pass each other, frames without any, and a leap as a stride makes it."""
    frames = [*range(30), *range(30, info.num_frames, 5)]
    found = {}
    for n in frames:
        boxes = [[20 + 5 * n, 40, 80 + 5 * n, 100], [560 - 5 * n, 220, 620 - 5 * n, 290]][:: 1 if n % 2 else -1]
        shown = Detections(np.array(boxes, np.float32), np.array([0.9, 0.8], np.float32), np.array([n % 3, 1]))
        found[n] = Detections.empty() if n in (10, 11, 60) else shown
    return found


def _track(tracker: Tracker, boxes: dict[int, Detections]) -> dict[int, NDArray[np.int64]]:
    """Returns what the tracker says of each frame, having checked its form."""
    given = {}
    for frame_index, found in boxes.items():
        before = found.xyxy.copy()
        ids = tracker.update(found, frame_index)
        assert isinstance(ids, np.ndarray), f"update: got {type(ids).__name__}, expected a numpy array"
        assert ids.shape == (len(found),), f"update: got shape {ids.shape} for {len(found)} boxes, expected one a box"
        assert ids.dtype.kind == "i", f"update: got {ids.dtype}, expected int64"
        named = ids[ids >= 0]
        assert len(np.unique(named)) == len(named), (
            f"update: frame {frame_index}: two boxes of one track: {ids.tolist()}"
        )
        assert np.array_equal(found.xyxy, before), "update: wrote into the boxes that it was given"
        given[frame_index] = ids
    return given
