"""How large a box may be, and how wide for its height."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from prelabel.boxes import box_areas

Pixels = Annotated[float, Field(ge=0)]
AreaFraction = Annotated[float, Field(ge=0, le=1)]
Ratio = Annotated[float, Field(gt=0)]


class SizeLimits(BaseModel):
    """How large a box must be, and may be."""

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


def too_small(xyxy: NDArray[np.float32], sizes: NDArray[np.int64], limits: SizeLimits) -> NDArray[np.bool_]:
    """Returns which boxes are under a least size, bool (N,).

    Args:
        xyxy: (N, 4), corners in pixels, within their frames.
        sizes: (N, 2), width and height of each box's frame.
        limits: how large they must be.

    >>> boxes = np.array([[0, 0, 30, 8], [0, 0, 9, 9]], np.float32)
    >>> too_small(boxes, np.array([[100, 100], [100, 100]]), SizeLimits(min_side_px=9)).tolist()
    [True, False]
    """
    is_small = np.zeros(len(xyxy), np.bool_)
    if limits.min_side_px is not None:
        is_small |= (xyxy[:, 2:] - xyxy[:, :2]).min(axis=1) < limits.min_side_px
    if limits.min_area is not None:
        is_small |= _area_fractions(xyxy, sizes) < limits.min_area
    return is_small


def too_large(xyxy: NDArray[np.float32], sizes: NDArray[np.int64], limits: SizeLimits) -> NDArray[np.bool_]:
    """Returns which boxes are over a greatest size, bool (N,).

    Args:
        xyxy: (N, 4), corners in pixels, within their frames.
        sizes: (N, 2), width and height of each box's frame.
        limits: how large they may be.

    >>> boxes = np.array([[0, 0, 90, 80], [0, 0, 50, 50]], np.float32)
    >>> too_large(boxes, np.array([[100, 100], [100, 100]]), SizeLimits(max_area=0.5)).tolist()
    [True, False]
    """
    is_large = np.zeros(len(xyxy), np.bool_)
    if limits.max_side_px is not None:
        is_large |= (xyxy[:, 2:] - xyxy[:, :2]).max(axis=1) > limits.max_side_px
    if limits.max_area is not None:
        is_large |= _area_fractions(xyxy, sizes) > limits.max_area
    return is_large


def of_odd_aspect(xyxy: NDArray[np.float32], limits: SizeLimits) -> NDArray[np.bool_]:
    """Returns which boxes are too narrow or too wide for their height, bool (N,).

    Args:
        xyxy: (N, 4), corners in pixels.
        limits: least and greatest width by height.

    >>> of_odd_aspect(np.array([[0, 0, 40, 10], [0, 0, 10, 40]], np.float32), SizeLimits(max_aspect=2)).tolist()
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
