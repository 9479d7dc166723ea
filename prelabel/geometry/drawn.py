"""Masks, polygons, turned boxes and keypoints on pictures: outlines that stand out, over areas to be seen through."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from prelabel.geometry.contours import trace_mask
from prelabel.geometry.kinds import SEEN_FROM, Geometry, Keypoints, Mask, Polygons, RotatedBox
from prelabel.geometry.skeletons import Edge

TOLERANCE_PX = 0.75
"""How far a mask's drawn outline may lie from its edge."""
_AREA = 70  # of 255: how much of an area's colour is laid over the picture

Colour = tuple[int, int, int]
Ring = NDArray[np.float32]


def rings_of(geometry: Geometry) -> list[Ring]:
    """Returns the rings around a thing and around its holes, (K, 2) each, in pixels of the frame; none of keypoints."""
    match geometry:
        case Mask():
            traced = trace_mask(geometry, TOLERANCE_PX)
            return [] if traced is None else rings_of(traced)
        case Polygons(parts=parts):
            return [ring for rings in parts for ring in rings]
        case RotatedBox():
            return [geometry.corners]
        case Keypoints():
            return []


def draw_geometry(
    picture: Image.Image,
    geometry: Geometry,
    scale: NDArray[np.float64],
    colour: Colour,
    line_px: int,
    *,
    edges: Sequence[Edge] = (),
) -> None:
    """Draws a thing into the picture.

    Args:
        picture: RGB.
        geometry: in pixels of the frame.
        scale: (2,), pixels of the picture to one of the frame, across and down.
        colour: of lines and areas.
        line_px: width of lines.
        edges: between keypoints, by their numbers; drawn where both are seen.
    """
    rings = [ring * scale for ring in rings_of(geometry)]
    if rings:
        _draw_rings(picture, rings, colour, line_px)
    if isinstance(geometry, Keypoints):
        points = geometry.xy * scale
        for ends in seen_edges(geometry, edges):
            _draw_line(picture, points[list(ends)], colour, line_px)
        _draw_points(picture, points, geometry.confidence, colour, line_px)


def seen_edges(pose: Keypoints, edges: Sequence[Edge]) -> list[Edge]:
    """Returns the edges between points that are seen."""
    seen = pose.confidence >= SEEN_FROM
    return [(one, other) for one, other in edges if seen[one] and seen[other]]


def _draw_rings(picture: Image.Image, rings: list[NDArray[np.float64]], colour: Colour, line_px: int) -> None:
    left, top = (int(value) for value in np.floor(np.min([ring.min(axis=0) for ring in rings], axis=0)))
    right, bottom = (int(value) + 1 for value in np.ceil(np.max([ring.max(axis=0) for ring in rings], axis=0)))
    area = np.zeros((bottom - top, right - left), np.bool_)
    for ring in rings:
        inside = Image.new("1", (right - left, bottom - top))
        ImageDraw.Draw(inside).polygon([*map(tuple, (ring - (left, top)).tolist())], fill=1)
        area ^= np.asarray(inside)  # a hole is set twice
    picture.paste(colour, (left, top), Image.fromarray((area * _AREA).astype(np.uint8)))
    for ring in rings:
        _draw_line(picture, np.vstack([ring, ring[:1]]), colour, line_px)


def _draw_line(picture: Image.Image, points: NDArray[np.float64], colour: Colour, line_px: int) -> None:
    """Draws a line through points, with a dark edge, so that it stands out on any ground."""
    canvas = ImageDraw.Draw(picture, "RGBA")
    through = [*map(tuple, points.tolist())]
    canvas.line(through, fill=(0, 0, 0, 110), width=line_px + 2)
    canvas.line(through, fill=colour, width=line_px, joint="curve")


def _draw_points(
    picture: Image.Image,
    points: NDArray[np.float64],
    confidence: NDArray[np.float32],
    colour: Colour,
    line_px: int,
) -> None:
    """Draws those that are seen full, the others as circles."""
    canvas = ImageDraw.Draw(picture, "RGBA")
    reach = line_px * 2
    for (x, y), is_seen in zip(points.tolist(), (confidence >= SEEN_FROM).tolist(), strict=True):
        corners = (x - reach, y - reach, x + reach, y + reach)
        canvas.ellipse(corners, fill=colour if is_seen else None, outline=(0, 0, 0) if is_seen else colour)
