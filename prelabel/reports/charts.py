"""Charts as the outlines of SVG paths, in boxes of 1000 x 100 units. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 1000.0, 100.0
MAX_BINS = 120


@dataclass(frozen=True, slots=True)
class Area:
    """One class of a stacked chart.

    Attributes:
        name: the class.
        colour: `#RRGGBB`.
        path: SVG path data.
    """

    name: str
    colour: str
    path: str


@dataclass(frozen=True, slots=True)
class Bins:
    """Frames in equal parts of a video.

    Attributes:
        edges: int64 (B + 1,), first frame of each part, and the end of the last.
        num_frames: int64 (B,), frames that were looked at in each.
    """

    edges: NDArray[np.int64]
    num_frames: NDArray[np.int64]

    @classmethod
    def of(cls, num_frames: int, looked_at: NDArray[np.int64]) -> Bins:
        """Returns the parts of a video, fewer than one for every frame that was looked at.

        Args:
            num_frames: of the video.
            looked_at: int64 (M,), rising.
        """
        num = max(1, min(MAX_BINS, len(looked_at)))
        edges = np.arange(num + 1) * num_frames // num
        return cls(edges, np.diff(np.searchsorted(looked_at, edges)))

    def place(self, frame_index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the part of each frame, int64 (N,)."""
        return np.searchsorted(self.edges, frame_index, side="right") - 1

    def count(self, frame_index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns how many of the frames are in each part, int64 (B,)."""
        return np.bincount(self.place(frame_index), minlength=len(self.num_frames))


def stack(heights: Sequence[NDArray[np.float64]], top: float) -> list[str]:
    """Returns a path of bars for each series, each standing on those before it.

    Args:
        heights: of each series, one a bar, from left to right.
        top: height that reaches the top of the chart.

    >>> stack([np.array([1.0, 0.0]), np.array([1.0, 2.0])], top=2.0)
    ['M0 50h500v50h-500z', 'M0 0h500v50h-500zM500 0h500v100h-500z']
    """
    base = np.zeros(len(heights[0])) if heights else np.zeros(0)
    paths = []
    for series in heights:
        paths.append("".join(_bar(n, low, high, len(series), top) for n, low, high in _bars(base, series)))
        base = base + series
    return paths


def line(values: NDArray[np.float64]) -> str:
    """Returns a path of steps through values of 0 to 1, one a part from left to right, with gaps where they are NaN.

    >>> line(np.array([0.0, 1.0, np.nan, 0.5]))
    'M0 100H250V0H500M750 50H1000'
    """
    step = WIDTH / max(len(values), 1)
    text, is_begun = "", False
    for number, value in enumerate(values.tolist()):
        if not np.isnan(value):
            height = _num(HEIGHT * (1 - value))
            text += (f"V{height}" if is_begun else f"M{_num(number * step)} {height}") + f"H{_num((number + 1) * step)}"
        is_begun = not np.isnan(value)
    return text


def curve(x: Sequence[float], y: Sequence[float], top: float) -> str:
    """Returns a path of steps through points whose x are 0 to 1.

    >>> curve([0.0, 0.5], [2.0, 1.0], top=2.0)
    'M0 0H500V50'
    """
    parts = []
    for number, (across, up) in enumerate(zip(x, y, strict=True)):
        left, height = _num(across * WIDTH), _num(HEIGHT * (1 - up / top) if top else HEIGHT)
        parts.append(f"M{left} {height}" if number == 0 else f"H{left}V{height}")
    return "".join(parts)


def band(low: NDArray[np.float64], high: NDArray[np.float64]) -> str:
    """Returns a path of bars from `low` to `high`, values of 0 to 1 as in `line`."""
    there = np.flatnonzero(~np.isnan(low))
    return "".join(_bar(n, float(low[n]), float(high[n]), len(low), 1.0) for n in there.tolist())


def _bars(base: NDArray[np.float64], series: NDArray[np.float64]) -> list[tuple[int, float, float]]:
    return [(n, float(base[n]), float(base[n] + series[n])) for n in np.flatnonzero(series > 0).tolist()]


def _bar(number: int, low: float, high: float, num: int, top: float) -> str:
    step = WIDTH / num
    height = HEIGHT * (high - low) / top
    y = HEIGHT * (1 - high / top)
    return f"M{_num(number * step)} {_num(y)}h{_num(step)}v{_num(height)}h{_num(-step)}z"


def _num(value: float) -> str:
    return f"{round(value, 1) + 0.0:g}"
