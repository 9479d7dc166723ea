"""Which frames to look at first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from prelabel.data.boxes import GRID
from prelabel.data.frames import VideoInfo
from prelabel.evaluate.compare import OUTCOMES, Compared, Outcome
from prelabel.evaluate.result import Mark, MarkedBox, WorstFrame

MAX_FRAMES = 12
MAX_A_VIDEO = 4
MIN_SECONDS_APART = 1.0
"""Of two frames of one video: neighbours show the same."""

BEFORE: Mapping[Outcome, Mark] = {
    "untouched": "untouched",
    "moved": "moved from",
    "reclassed": "reclassed from",
    "deleted": "deleted",
}
AFTER: Mapping[Outcome, Mark] = {"moved": "moved to", "reclassed": "reclassed to"}


def worst_of_video(compared: Compared, info: VideoInfo, key: str, title: str) -> list[WorstFrame]:
    """Returns the video's frames with the most corrections, not too near to each other, the worst first."""
    apart = info.average_fps * MIN_SECONDS_APART
    chosen: list[int] = []
    corrections = compared.corrections_by_frame
    for frame_index in sorted(corrections, key=lambda frame: (-corrections[frame], frame)):
        if all(abs(frame_index - other) >= apart for other in chosen):
            chosen.append(frame_index)
        if len(chosen) == MAX_A_VIDEO:
            break
    sizes = info.sizes(np.array(chosen, np.int64)).tolist()
    return [
        WorstFrame(key, title, frame, width, height, corrections[frame], tuple(_marked(compared, frame)))
        for frame, (width, height) in zip(chosen, sizes, strict=True)
    ]


def worst_of_all(frames: Sequence[WorstFrame]) -> tuple[WorstFrame, ...]:
    """Returns those to show, the worst first."""
    ranked = sorted(frames, key=lambda frame: (-frame.num_corrections, frame.title, frame.frame_index))
    return tuple(ranked[:MAX_FRAMES])


def _marked(compared: Compared, frame_index: int) -> Iterator[MarkedBox]:
    written, current = compared.written, compared.current
    for row in np.flatnonzero(written.frame_index == frame_index).tolist():
        outcome, after = OUTCOMES[compared.outcome[row]], int(compared.current_row[row])
        confidence = float(written.confidence[row])
        name = str(written.class_name[row])
        yield MarkedBox(BEFORE[outcome], name, _fractions(written.corners[row]), confidence)
        if outcome in AFTER:
            yield MarkedBox(AFTER[outcome], str(current.class_name[after]), _fractions(current.corners[after]))
    for row in np.flatnonzero(compared.is_added & (current.frame_index == frame_index)).tolist():
        yield MarkedBox("added", str(current.class_name[row]), _fractions(current.corners[row]))


def _fractions(corners: NDArray[np.int64]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (corners / GRID).tolist()
    return x1, y1, x2, y2
