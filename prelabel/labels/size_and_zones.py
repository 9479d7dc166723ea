"""Rules on the size of a box and on its place in the frame."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from prelabel.data.boxes import box_areas

Pixels = Annotated[float, Field(ge=0)]
AreaFraction = Annotated[float, Field(ge=0, le=1)]
Ratio = Annotated[float, Field(gt=0)]


class SizeLimits(BaseModel):
    """Limits of a box's sides, area and aspect ratio."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_side_px: Pixels | None = Field(None, description="least length of the shorter side, in pixels of the frame")
    max_side_px: Pixels | None = Field(None, description="greatest length of the longer side, in pixels of the frame")
    min_area: AreaFraction | None = Field(None, description="least area, as a fraction of the frame's")
    max_area: AreaFraction | None = Field(None, description="greatest area, as a fraction of the frame's")
    min_aspect: Ratio | None = Field(None, description="least width by height")
    max_aspect: Ratio | None = Field(None, description="greatest width by height")

    @model_validator(mode="after")
    def _limits_rise(self) -> SizeLimits:
        for low_name, high_name in (
            ("min_side_px", "max_side_px"),
            ("min_area", "max_area"),
            ("min_aspect", "max_aspect"),
        ):
            low, high = getattr(self, low_name), getattr(self, high_name)
            if low is not None and high is not None and low > high:
                raise ValueError(f"{low_name}: got {low}, expected {high_name} or less, which is {high}")
        return self


def is_too_small(xyxy: NDArray[np.float32], sizes: NDArray[np.int64], limits: SizeLimits) -> NDArray[np.bool_]:
    """Returns which boxes are below a lower limit, bool (N,).

    Args:
        xyxy: (N, 4), corners in pixels, within their frames.
        sizes: (N, 2), width and height of each box's frame.
        limits: a box at a limit passes.

    >>> boxes = np.array([[0, 0, 30, 8], [0, 0, 9, 9]], np.float32)
    >>> is_too_small(boxes, np.array([[100, 100], [100, 100]]), SizeLimits(min_side_px=9)).tolist()
    [True, False]
    """
    is_small = np.zeros(len(xyxy), np.bool_)
    if limits.min_side_px is not None:
        is_small |= (xyxy[:, 2:] - xyxy[:, :2]).min(axis=1) < limits.min_side_px
    if limits.min_area is not None:
        is_small |= _area_fractions(xyxy, sizes) < limits.min_area
    return is_small


def is_too_large(xyxy: NDArray[np.float32], sizes: NDArray[np.int64], limits: SizeLimits) -> NDArray[np.bool_]:
    """Returns which boxes are above an upper limit, bool (N,).

    Args:
        xyxy: (N, 4), corners in pixels, within their frames.
        sizes: (N, 2), width and height of each box's frame.
        limits: a box at a limit passes.

    >>> boxes = np.array([[0, 0, 90, 80], [0, 0, 50, 50]], np.float32)
    >>> is_too_large(boxes, np.array([[100, 100], [100, 100]]), SizeLimits(max_area=0.5)).tolist()
    [True, False]
    """
    is_large = np.zeros(len(xyxy), np.bool_)
    if limits.max_side_px is not None:
        is_large |= (xyxy[:, 2:] - xyxy[:, :2]).max(axis=1) > limits.max_side_px
    if limits.max_area is not None:
        is_large |= _area_fractions(xyxy, sizes) > limits.max_area
    return is_large


def has_odd_aspect(xyxy: NDArray[np.float32], limits: SizeLimits) -> NDArray[np.bool_]:
    """Returns which boxes are too narrow or too wide, bool (N,).

    Args:
        xyxy: (N, 4), corners in pixels.
        limits: of width divided by height; a box at a limit passes.

    >>> has_odd_aspect(np.array([[0, 0, 40, 10], [0, 0, 10, 40]], np.float32), SizeLimits(max_aspect=2)).tolist()
    [True, False]
    """
    width, height = (xyxy[:, 2:] - xyxy[:, :2]).T
    is_odd = np.zeros(len(xyxy), np.bool_)
    if limits.min_aspect is not None:
        is_odd |= width < limits.min_aspect * height
    if limits.max_aspect is not None:
        is_odd |= width > limits.max_aspect * height
    return is_odd


def _area_fractions(xyxy: NDArray[np.float32], sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    fractions: NDArray[np.float64] = box_areas(xyxy) / np.prod(sizes, axis=1, dtype=np.float64)
    return fractions


Fraction = Annotated[float, Field(ge=0, le=1)]
Polygon = Annotated[tuple[tuple[Fraction, Fraction], ...], Field(min_length=3)]


class Zones(BaseModel):
    """Polygons: lists of corners [x, y] in fractions of the frame, in order; edges do not cross."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    include: tuple[Polygon, ...] = Field((), description="label only what lies in one of these; default: the frame")
    exclude: tuple[Polygon, ...] = Field((), description="label nothing that lies in one of these")
    min_overlap: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="a box lies in a zone with this fraction of its area or more; default: with its centre"
    )


def is_out_of_zone(xyxy: NDArray[np.float32], sizes: NDArray[np.int64], zones: Zones) -> NDArray[np.bool_]:
    """Returns which boxes lie outside all included zones or in an excluded zone, bool (N,).

    Args:
        xyxy: (N, 4), corners in pixels, within their frames, each with an area.
        sizes: (N, 2), width and height of each box's frame.
        zones: the included and the excluded ones.

    >>> boxes = np.array([[10, 10, 20, 20], [60, 10, 70, 20]], np.float32)
    >>> left_half = ((0, 0), (0.5, 0), (0.5, 1), (0, 1))
    >>> is_out_of_zone(boxes, np.array([[100, 100], [100, 100]]), Zones(include=(left_half,))).tolist()
    [False, True]
    """
    boxes = xyxy.astype(np.float64) / np.tile(sizes, 2)
    is_out = np.zeros(len(boxes), np.bool_)
    if zones.include:
        is_out |= ~np.logical_or.reduce([_lies_in(boxes, polygon, zones.min_overlap) for polygon in zones.include])
    for polygon in zones.exclude:
        is_out |= _lies_in(boxes, polygon, zones.min_overlap)
    return is_out


def _lies_in(boxes: NDArray[np.float64], polygon: Polygon, min_overlap: float | None) -> NDArray[np.bool_]:
    corners = np.array(polygon, np.float64)
    if min_overlap is None:
        return points_in_polygon((boxes[:, :2] + boxes[:, 2:]) / 2, corners)
    rounding = 1e-9  # by rounding, the overlap of a box inside the zone can be slightly below the box's area
    in_zone: NDArray[np.bool_] = (
        overlap_areas(boxes, corners) >= np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) * min_overlap - rounding
    )
    return in_zone


def points_in_polygon(points: NDArray[np.float64], polygon: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Returns which points lie in a polygon, by the even-odd rule, bool (N,).

    Args:
        points: (N, 2), x and y.
        polygon: (K, 2), its corners in order.

    >>> triangle = np.array([[0, 0], [1, 0], [0, 1]], float)
    >>> points_in_polygon(np.array([[0.2, 0.2], [0.8, 0.8]]), triangle).tolist()
    [True, False]
    """
    x, y = points[:, :1], points[:, 1:]
    (x1, y1), (x2, y2) = polygon.T, np.roll(polygon, -1, axis=0).T
    straddles = (y1 > y) != (y2 > y)
    rise = np.where(y2 == y1, 1, y2 - y1)  # a horizontal edge straddles no point
    crosses = straddles & (x < x1 + (y - y1) * (x2 - x1) / rise)
    is_in: NDArray[np.bool_] = crosses.sum(axis=1) % 2 == 1
    return is_in


def overlap_areas(boxes: NDArray[np.float64], polygon: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the area of the intersection of each box with a polygon, float64 (N,).

    The shoelace formula sums the signed area under each edge of a polygon. Here, each edge is first cut at the left and
    right sides of the box, and clamped to the box's top and bottom.

    Args:
        boxes: (N, 4), corners x1, y1, x2, y2.
        polygon: (K, 2), its corners in order, in the same unit.

    >>> overlap_areas(np.array([[0, 0, 1, 1.0]]), np.array([[0, 0], [1, 0], [0, 1]], float)).tolist()
    [0.5]
    """
    left, top, right, bottom = boxes.T[:, :, None]
    (x1, y1), (x2, y2) = polygon.T, np.roll(polygon, -1, axis=0).T
    run = np.where(x2 == x1, 1, x2 - x1)  # a vertical edge has no area under it
    slope = (y2 - y1) / run
    start, end = np.clip(x1, left, right), np.clip(x2, left, right)
    y_start, y_end = y1 + (start - x1) * slope, y1 + (end - x1) * slope
    under = (end - start) * _mean_of_clipped(y_start, y_end, top, bottom)
    areas: NDArray[np.float64] = np.abs(under.sum(axis=1))
    return areas


def _mean_of_clipped(
    start: NDArray[np.float64], end: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Returns the mean height above `low` of a line from `start` to `end`, clamped to `low` .. `high`."""
    first, last = np.minimum(start, end), np.maximum(start, end)
    length = last - first
    is_level = length < 1e-12
    within = np.clip(last, low, high) - np.clip(first, low, high)
    above = last - np.clip(last, first, np.maximum(high, first))
    height = (np.clip(first, low, high) + np.clip(last, low, high)) / 2 - low
    total = within * height + above * (high - low)
    mean: NDArray[np.float64] = np.where(is_level, height, total / np.where(is_level, 1, length))
    return mean
