"""What a model knows of a thing beyond its box, in the forms that a label row has for it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prelabel.data.boxes import GRID
from prelabel.data.geometry import SEEN_FROM, Geometry, Keypoints, Mask, Polygons, RotatedBox
from prelabel.data.masks import text_along_rows
from prelabel.data.ontology import OntologyObject

Size = tuple[int, int]
"""Width and height in pixels."""


def geometry_keys(geometry: Geometry, category: OntologyObject, frame: Size, unit: Size) -> dict[str, Any]:
    """Returns the keys that carry a geometry, as the SDK writes them for the object's shape.

    Args:
        geometry: of a kind that the shape holds, in pixels of the displayed frame; keypoints in the skeleton's order.
        category: what it becomes.
        frame: as it is displayed.
        unit: the data unit; a bitmask is as large as it.

    Raises:
        ValueError: if the shape does not hold such a geometry.
    """
    match geometry, category.shape:
        case Mask(), "bitmask":
            return {"bitmask": _bitmask(geometry, frame, unit)}
        case Polygons(), "polygon":
            return _polygons(geometry, frame)
        case RotatedBox(), "rotatable_bounding_box":
            return {"rotatableBoundingBox": _rotatable_box(geometry, frame)}
        case Keypoints(), "skeleton":
            return {"skeleton": _skeleton(geometry, category, frame)}
    raise ValueError(f"{category.name!r} is a {category.shape}: got {geometry.kind}: shape detections first")


def _on_grid(xy: NDArray[np.float32], frame: Size) -> list[list[float]]:
    """Returns points, (K, 2) in pixels, in fractions of the frame at five decimals."""
    fractions: list[list[float]] = (np.rint(xy.astype(np.float64) / frame * GRID) / GRID).tolist()
    return fractions


def _polygons(geometry: Polygons, frame: Size) -> dict[str, Any]:
    parts = [[_on_grid(ring, frame) for ring in rings] for rings in geometry.parts]
    return {
        "polygon": {str(n): {"x": x, "y": y} for n, (x, y) in enumerate(parts[0][0])},
        "polygons": [[[value for point in ring for value in point] for ring in rings] for rings in parts],
    }


def _rotatable_box(box: RotatedBox, frame: Size) -> dict[str, float]:
    """Returns the box as it is before the turn; `theta` is in degrees, clockwise on the screen, about its centre."""
    top_left = np.array([[box.centre_x - box.width / 2, box.centre_y - box.height / 2], [box.width, box.height]])
    (x, y), (width, height) = _on_grid(top_left, frame)
    return {"h": height, "w": width, "x": x, "y": y, "theta": round(box.angle_degrees % 360, 5) % 360}


def _skeleton(pose: Keypoints, category: OntologyObject, frame: Size) -> dict[str, Any]:
    points = zip(category.skeleton, _on_grid(pose.xy, frame), (pose.confidence >= SEEN_FROM).tolist(), strict=True)
    return {
        str(n): {"x": x, "y": y, "name": point.name, "featureHash": point.feature_hash}
        | ({} if is_seen else {"visibility": "invisible"})
        for n, (point, (x, y), is_seen) in enumerate(points)
    }


def _bitmask(mask: Mask, frame: Size, unit: Size) -> dict[str, Any]:
    fitted = mask if frame == unit else _stretched(mask, frame, unit)
    width, height = unit
    return {"top": 0, "left": 0, "height": height, "width": width, "rleString": text_along_rows(fitted, *unit)}


def _stretched(mask: Mask, frame: Size, unit: Size) -> Mask:
    """Returns a mask of a frame in the pixels of a unit of another size; one that would vanish keeps a pixel."""
    (width, height), (unit_width, unit_height) = frame, unit
    columns = ((np.arange(unit_width) + 0.5) * width / unit_width).astype(np.int64) - mask.left
    rows = ((np.arange(unit_height) + 0.5) * height / unit_height).astype(np.int64) - mask.top
    columns_in = np.flatnonzero((columns >= 0) & (columns < mask.width))
    rows_in = np.flatnonzero((rows >= 0) & (rows < mask.height))
    found = Mask.of(mask.pixels[np.ix_(rows[rows_in], columns[columns_in])]) if len(rows_in) * len(columns_in) else None
    if found is None:
        x, y = mask.left * unit_width // width, mask.top * unit_height // height
        return Mask(x, y, 1, 1, np.array([0, 1], np.int32))
    return Mask(int(columns_in[0]) + found.left, int(rows_in[0]) + found.top, found.width, found.height, found.counts)
