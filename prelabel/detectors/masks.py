"""Masks from the device to the host: windows of pixels, those of a whole batch in one copy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from prelabel.detectors.rows import HostCopy
from prelabel.geometry import Mask


@dataclass(frozen=True, slots=True)
class PixelWindow:
    """Which pixels of a part of a frame are a thing's.

    Attributes:
        left: of the part, in whole pixels of the frame.
        top: of the part.
        pixels: bool (height, width), on the device.
    """

    left: int
    top: int
    pixels: torch.Tensor


def masks_on_host(frames: Sequence[Sequence[PixelWindow]]) -> list[NDArray[np.object_]]:
    """Returns the masks of each frame's windows, object (n,); None of one in which no pixel is set."""
    windows = [window for found in frames for window in found]
    values = np.zeros(0, np.bool_)
    if windows:
        values = HostCopy(torch.cat([window.pixels.reshape(-1) for window in windows])).wait().astype(np.bool_)
    ends = np.cumsum([window.pixels.numel() for window in windows])
    masks = iter(
        Mask.of(part.reshape(window.pixels.shape), window.left, window.top)
        for window, part in zip(windows, np.split(values, ends[:-1]), strict=False)
    )
    columns = []
    for found in frames:
        column = np.full(len(found), None, object)
        for row in range(len(found)):
            column[row] = next(masks)
        columns.append(column)
    return columns
