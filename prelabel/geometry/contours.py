"""Masks into polygons that a person can edit: traced along the pixels' edges and simplified by OpenCV."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prelabel.geometry.kinds import Mask, Polygons


def trace_mask(mask: Mask, tolerance_px: float) -> Polygons | None:
    """Returns the outlines of a mask, of as few corners as the tolerance allows; None if that leaves nothing.

    Outlines are followed by Suzuki and Abe's method (1985) and simplified by Douglas and Peucker's (1973). Parts and
    holes that the tolerance makes a line or a point are left out.

    Args:
        mask: as the model gave it.
        tolerance_px: farthest that an outline may lie from the mask's edge, in pixels of the frame.

    >>> square = Mask(2, 1, 4, 3, np.array([0, 12], np.int32))
    >>> trace_mask(square, 1.0).parts[0][0].tolist()
    [[2.0, 1.0], [2.0, 4.0], [6.0, 4.0], [6.0, 1.0]]
    """
    import cv2

    contours, hierarchy = cv2.findContours(_pixel_corners(mask.pixels), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    rings: dict[int, NDArray[np.float32]] = {}
    for number, contour in enumerate(contours):
        ring = cv2.approxPolyDP(contour, tolerance_px, True)
        if len(ring) > 2 and cv2.contourArea(ring) > 0:
            rings[number] = ring.reshape(-1, 2).astype(np.float32) + np.array([mask.left, mask.top], np.float32)
    parents = [] if hierarchy is None else hierarchy[0, :, 3].tolist()
    outer = sorted(
        (number for number in rings if parents[number] < 0), key=lambda number: -float(cv2.contourArea(rings[number]))
    )
    if not outer:
        return None
    return Polygons(
        tuple((rings[part], *(ring for hole, ring in rings.items() if parents[hole] == part)) for part in outer)
    )


def _pixel_corners(pixels: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Returns uint8 (H + 1, W + 1): which corners of pixels belong to one that is set.

    An outline through the pixels' centres, as OpenCV would follow it, is half a pixel too small on every side.
    """
    height, width = pixels.shape
    corners = np.zeros((height + 1, width + 1), np.uint8)
    for rows in (slice(0, height), slice(1, height + 1)):
        for columns in (slice(0, width), slice(1, width + 1)):
            corners[rows, columns] |= pixels
    return corners
