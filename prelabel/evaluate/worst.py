"""Selects the frames that took the most corrections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from prelabel.data.boxes import GRID
from prelabel.data.frames import VideoInfo
from prelabel.evaluate.compare import BOX_CHANGES, UNTOUCHED, BoxChange, Compared
from prelabel.evaluate.result import Mark, MarkedBox, WorstFrame

MAX_FRAMES = 12
MAX_PER_VIDEO = 4
MIN_SECONDS_APART = 1.0
"""The least time between two selected frames of a video, because neighbouring frames look alike."""

BEFORE: Mapping[BoxChange, Mark] = {
    "untouched": "untouched",
    "moved": "moved from",
    "reclassed": "reclassed from",
    "deleted": "deleted",
}
AFTER: Mapping[BoxChange, Mark] = {"moved": "moved to", "reclassed": "reclassed to"}


def worst_of_video(compared: Compared, info: VideoInfo, key: str, title: str) -> list[WorstFrame]:
    """Returns the video's frames with the most corrections, the worst first.

    They are at least `MIN_SECONDS_APART` apart.
    """
    touched = compared.written.frame_index[compared.change != UNTOUCHED]
    frames, counts = np.unique(
        np.concatenate([touched, compared.current.frame_index[compared.is_added]]), return_counts=True
    )
    corrections = dict(zip(frames.tolist(), counts.tolist(), strict=True))
    apart = info.average_fps * MIN_SECONDS_APART
    chosen: list[int] = []
    for frame_index in sorted(corrections, key=lambda frame: (-corrections[frame], frame)):
        if len(chosen) < MAX_PER_VIDEO and all(abs(frame_index - other) >= apart for other in chosen):
            chosen.append(frame_index)
    sizes = info.sizes(np.array(chosen, np.int64)).tolist()
    return [
        WorstFrame(key, title, frame, width, height, corrections[frame], tuple(_marked(compared, frame)))
        for frame, (width, height) in zip(chosen, sizes, strict=True)
    ]


def worst_of_all(frames: Sequence[WorstFrame]) -> tuple[WorstFrame, ...]:
    """Returns the worst frames of all videos, the worst first."""
    ranked = sorted(frames, key=lambda frame: (-frame.num_corrections, frame.title, frame.frame_index))
    return tuple(ranked[:MAX_FRAMES])


def _marked(compared: Compared, frame_index: int) -> Iterator[MarkedBox]:
    """Yields a frame's written boxes, then its current ones where they differ."""
    written, current = compared.written, compared.current
    for row in np.flatnonzero(written.frame_index == frame_index).tolist():
        change, after = BOX_CHANGES[compared.change[row]], int(compared.current_row[row])
        name, confidence = str(written.class_name[row]), float(written.confidence[row])
        yield MarkedBox(BEFORE[change], name, _fractions(written.corners[row]), confidence)
        if change in AFTER:
            yield MarkedBox(AFTER[change], str(current.class_name[after]), _fractions(current.corners[after]))
    for row in np.flatnonzero(compared.is_added & (current.frame_index == frame_index)).tolist():
        yield MarkedBox("added", str(current.class_name[row]), _fractions(current.corners[row]))


def _fractions(corners: NDArray[np.int64]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (corners / GRID).tolist()
    return x1, y1, x2, y2
