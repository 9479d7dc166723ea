"""Renders pages and their charts from the templates in this package."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from prelabel.data.frames import VideoInfo
from prelabel.data.label_map import LabelledVideo


def duration(seconds: float) -> str:
    """Returns a length of time as text.

    >>> [duration(value) for value in (0.42, 7.3, 75, 4000)]
    ['0.4 s', '7.3 s', '1:15', '1:06:40']
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def counted(num: int, one: str, many: str | None = None) -> str:
    """Returns a number with its noun in singular or plural.

    >>> counted(1, "box", "boxes"), counted(2000, "frame")
    ('1 box', '2,000 frames')
    """
    return f"{num:,} {one if num == 1 else many or one + 's'}"


def file_size(num_bytes: int) -> str:
    """Returns a size in kB or MB, which are powers of 1000 bytes.

    >>> [file_size(num) for num in (940, 52_300, 4_180_000)]
    ['1 kB', '52 kB', '4.2 MB']
    """
    return f"{num_bytes / 1e6:.1f} MB" if num_bytes >= 1e6 else f"{num_bytes / 1e3:.0f} kB"


def media_facts(info: VideoInfo, num_inferred: int, *, seconds: bool = True) -> list[str]:
    """Returns size, length and frames of a task's media.

    >>> media_facts(VideoInfo(1920, 1080, 90, 25.0, 3.6), 45)
    ['1920 x 1080', '3.6 s', '25 frames/s', '90 frames', '45 inferred']
    """
    facts = [] if info.frame_sizes else [f"{info.width} x {info.height}"]
    if info.average_fps > 0:
        facts += [duration(info.duration_seconds)] if seconds else []
        facts += [f"{info.average_fps:.4g} frames/s", counted(info.num_frames, "frame")]
    else:
        facts.append(counted(info.num_frames, "image"))
    if num_inferred and num_inferred != info.num_frames:
        facts.append(f"{num_inferred:,} inferred")
    return facts


WIDTH, HEIGHT = 1000.0, 100.0
MAX_BINS = 120
NUM_TICKS = 5

Series = NDArray[np.float64]
"""The values of the equal parts of a chart, from left to right."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """A chart of the labels per frame, and of their confidences, over a video.

    Attributes:
        areas: name, colour and path of each ontology object, stacked.
        most: labels per frame at the top of the chart.
        many: the noun for several labels, such as boxes.
        mean: path of the mean confidence.
        spread: path from the 10th to the 90th percentile of confidence.
        ticks: times or image numbers below the chart, at equal distances.
        description: for people who do not see the chart.
    """

    areas: tuple[tuple[str, str, str], ...]
    most: float
    many: str
    mean: str
    spread: str
    ticks: tuple[str, ...]
    description: str


def timeline_of(video: LabelledVideo) -> Timeline:
    """Returns the chart of a video."""
    found, label_map = video.detections, video.label_map
    edges = bin_edges(video.info.num_frames, found.frames_looked_at)
    num_frames = np.maximum(np.histogram(found.frames_looked_at, edges)[0], 1)
    category = label_map.category_index[found.class_id]
    present = [index for index in range(len(label_map.categories)) if (category == index).any()]
    heights = [np.histogram(found.frame_index[category == index], edges)[0] / num_frames for index in present]
    total = np.sum(heights, axis=0) if heights else np.zeros(len(num_frames))
    most = max(float(total.max()), 1.0)
    measured = ~found.interpolated  # an interpolated box has no measured confidence
    low, mean, high = _confidence_by_bin(edges, found.frame_index[measured], found.confidence[measured])
    many = label_map.noun[1]
    description = f"{total.min():.1f} to {total.max():.1f} {many} a frame" if total.any() else f"No {many}"
    if not np.isnan(mean).all():
        description += f", mean confidence {np.nanmin(mean):.2f} to {np.nanmax(mean):.2f}"
    parts = np.linspace(0, 1, NUM_TICKS).tolist()
    if video.info.average_fps > 0:
        ticks = [duration(part * video.info.duration_seconds) for part in parts]
    else:
        ticks = [f"{round(part * (video.info.num_frames - 1)) + 1}" for part in parts]
    return Timeline(
        areas=tuple(
            (label_map.categories[index].name, label_map.categories[index].color, path)
            for index, path in zip(present, stack(heights, most), strict=True)
        ),
        most=most,
        many=many,
        mean=line(mean),
        spread=band(low, high),
        ticks=tuple(ticks),
        description=description + ".",
    )


def bin_edges(num_frames: int, inferred: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the edges of equal parts of a video: the first frame of each and the end of the last, int64 (B + 1,).

    Each part contains at least one inferred frame if these are spread evenly.
    """
    num = max(1, min(MAX_BINS, len(inferred)))
    return np.arange(num + 1) * num_frames // num


def stack(heights: Sequence[Series], top: float) -> list[str]:
    """Returns an SVG path of bars for each series, stacked on those before it.

    Args:
        heights: of the bars of each series.
        top: the height at the top of the chart.

    >>> stack([np.array([1.0, 0.0]), np.array([1.0, 2.0])], top=2.0)
    ['M0 50h500v50h-500z', 'M0 0h500v50h-500zM500 0h500v100h-500z']
    """
    base = np.zeros(len(heights[0])) if heights else np.zeros(0)
    paths = []
    for series in heights:
        paths.append(band(np.where(series > 0, base, np.nan) / top, (base + series) / top))
        base = base + series
    return paths


def band(low: Series, high: Series) -> str:
    """Returns an SVG path of bars from `low` to `high`, both 0..1; without a bar where `low` is NaN.

    Equal neighbours become one bar.

    >>> band(np.array([0.0, 0.0, np.nan, 0.5]), np.array([1.0, 1.0, np.nan, 1.0]))
    'M0 0h500v100h-500zM750 0h250v50h-250z'
    """
    step, bars = WIDTH / max(len(low), 1), []
    is_new = (np.diff(low, prepend=np.nan) != 0) | (np.diff(high, prepend=np.nan) != 0)
    for start, end in pairwise([*np.flatnonzero(is_new).tolist(), len(low)]):
        if not np.isnan(low[start]):
            y, height, width = HEIGHT * (1 - high[start]), HEIGHT * (high[start] - low[start]), (end - start) * step
            bars.append(f"M{_num(start * step)} {_num(y)}h{_num(width)}v{_num(height)}h{_num(-width)}z")
    return "".join(bars)


def line(values: Series) -> str:
    """Returns an SVG path of steps through values in 0..1, with gaps where they are NaN.

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
    """Returns an SVG path of steps through points.

    Args:
        x: 0..1 for each point, rising.
        y: of each point.
        top: the value of `y` at the top of the chart.

    >>> curve([0.0, 0.5], [2.0, 1.0], top=2.0)
    'M0 0H500V50'
    """
    parts = []
    for number, (right, up) in enumerate(zip(x, y, strict=True)):
        left, height = _num(right * WIDTH), _num(HEIGHT * (1 - up / top) if top else HEIGHT)
        parts.append(f"M{left} {height}" if number == 0 else f"H{left}V{height}")
    return "".join(parts)


def _confidence_by_bin(
    edges: NDArray[np.int64], frame_index: NDArray[np.int64], confidence: NDArray[np.float32]
) -> tuple[Series, Series, Series]:
    """Returns the 10th percentile, the mean and the 90th percentile of each part; NaN for a part without boxes."""
    low, mean, high = (np.full(len(edges) - 1, np.nan) for _ in range(3))
    starts = np.searchsorted(frame_index, edges).tolist()
    for number, (start, end) in enumerate(pairwise(starts)):
        if end > start:
            part = confidence[start:end].astype(np.float64)
            low[number], high[number] = np.quantile(part, [0.1, 0.9])
            mean[number] = part.mean()
    return low, mean, high


def _num(value: float) -> str:
    return f"{round(value, 1) + 0.0:g}"


@dataclass(frozen=True, slots=True)
class Figure:
    """A number at the top of a page.

    Attributes:
        name: of the number.
        value: the number.
        note: shown smaller, below the number.
    """

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Bar:
    """A line of a bar chart.

    Attributes:
        name: of the line.
        value: the number that the bar shows.
        share: of the bar's full length, 0..1.
        colour: `#RRGGBB`; empty for the page's own colour.
    """

    name: str
    value: float
    share: float
    colour: str = ""


def bars(counts: Mapping[str, int], colours: Mapping[str, str] | None = None) -> tuple[Bar, ...]:
    """Returns a bar for each count; the largest has the full length."""
    most = max(counts.values(), default=1)
    return tuple(Bar(name, number, number / most, (colours or {}).get(name, "")) for name, number in counts.items())


def render_page(template: str, **values: object) -> str:
    """Returns a page as HTML; every text in it is escaped.

    Args:
        template: name of a file in `templates`.
        values: variables of the template, by name.
    """
    return _environment().get_template(template).render(values)


def safe_colour(text: str) -> str:
    """Returns a colour that is safe in a style attribute; grey for all but `#RRGGBB`.

    >>> safe_colour("#FF8000"), safe_colour("red; background: url(https://example.com)")
    ('#FF8000', '#888888')
    """
    return text if re.fullmatch("#[0-9A-Fa-f]{6}", text) else "#888888"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("prelabel.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        colour=safe_colour,
        duration=duration,
        counted=counted,
        size=file_size,
        percent=lambda share: f"{share:.0%}",
        thousands=lambda num: f"{num:,}",
    )
    return environment
