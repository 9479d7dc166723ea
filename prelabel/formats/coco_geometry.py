"""What COCO has beyond boxes: `segmentation`, the area of it, and `keypoints`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prelabel.geometry import SEEN_FROM, Geometry, Keypoints, Mask, Polygons, RotatedBox
from prelabel.geometry.run_lengths import text_down_columns

Size = tuple[int, int]
"""Width and height in pixels."""


def coco_keys(geometry: Geometry, size: Size) -> dict[str, Any]:
    """Returns an annotation's keys that carry a geometry, in pixels of the displayed frame.

    A keypoint that is seen has COCO's visibility 2, any other 1: labelled, but not visible.

    Args:
        geometry: within its frame.
        size: of the frame.

    >>> coco_keys(Keypoints(np.array([[1.5, 2]]), np.array([0.9])), (8, 4))
    {'keypoints': [1.5, 2.0, 2], 'num_keypoints': 1}
    """
    match geometry:
        case Mask():
            return {"segmentation": _run_lengths(geometry, size), "area": geometry.area}
        case Polygons(parts=parts) if all(len(rings) == 1 for rings in parts):
            rings = [rings[0] for rings in parts]
            return {"segmentation": [_flat(ring) for ring in rings], "area": round(sum(map(_area, rings)), 3)}
        case Polygons():
            mask = _filled(geometry, size)
            return {} if mask is None else {"segmentation": _run_lengths(mask, size), "area": mask.area}
        case RotatedBox():
            return {"segmentation": [_flat(geometry.corners)], "area": round(geometry.width * geometry.height, 3)}
        case Keypoints():
            visibility = np.where(geometry.confidence >= SEEN_FROM, 2, 1).tolist()
            points = zip(np.round(geometry.xy.astype(np.float64), 3).tolist(), visibility, strict=True)
            return {
                "keypoints": [value for (x, y), visible in points for value in (x, y, visible)],
                "num_keypoints": len(visibility),
            }


def _flat(ring: NDArray[np.float32]) -> list[float]:
    values: list[float] = np.round(ring.astype(np.float64), 3).reshape(-1).tolist()
    return values


def _area(ring: NDArray[np.float32]) -> float:
    """Returns the area within a ring, by the shoelace formula."""
    (x, y), (next_x, next_y) = ring.astype(np.float64).T, np.roll(ring.astype(np.float64), -1, axis=0).T
    return abs(float((x * next_y - next_x * y).sum())) / 2


def _run_lengths(mask: Mask, size: Size) -> dict[str, Any]:
    width, height = size
    return {"size": [height, width], "counts": text_down_columns(mask, width, height)}


def _filled(polygons: Polygons, size: Size) -> Mask | None:
    """Returns the pixels within polygons and out of their holes, filled as COCO's tools do; None if there are none.

    COCO's lists of rings have no holes.
    """
    outer = _fill([rings[0] for rings in polygons.parts], size)
    holes = [hole for rings in polygons.parts for hole in rings[1:]]
    return Mask.of(outer & ~_fill(holes, size) if holes else outer)


def _fill(rings: Sequence[NDArray[np.float32]], size: Size) -> NDArray[np.bool_]:
    from faster_coco_eval.core import mask as coco_mask

    width, height = size
    encoded = coco_mask.frPyObjects([_flat(ring) for ring in rings], height, width)
    filled: NDArray[np.bool_] = coco_mask.decode(coco_mask.merge(encoded)).astype(np.bool_)
    return filled
