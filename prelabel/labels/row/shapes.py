"""A box in the forms that a label row has for its shape, and the canonical text of any geometry that we write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from prelabel.data.boxes import GRID

Corners = tuple[int, int, int, int]
"""x1, y1, x2, y2 in hundred-thousandths of the frame."""


def box_geometry(shape: str, corners: Corners, width: int, height: int) -> dict[str, Any]:
    """Returns the keys that carry a box's geometry, as the SDK writes them for the shape.

    Args:
        shape: one of `prelabel.data.ontology.BOX_SHAPES`.
        corners: of a box with an area, within the frame.
        width: pixels of the data unit; a bitmask is as large as it.
        height: pixels of the data unit.

    >>> box_geometry("bounding_box", (10000, 20000, 40000, 50000), 640, 360)
    {'boundingBox': {'h': 0.3, 'w': 0.3, 'x': 0.1, 'y': 0.2}}
    """
    x1, y1, x2, y2 = corners
    left, top, right, bottom = x1 / GRID, y1 / GRID, x2 / GRID, y2 / GRID
    match shape:
        case "bounding_box":
            return {"boundingBox": {"h": (y2 - y1) / GRID, "w": (x2 - x1) / GRID, "x": left, "y": top}}
        case "rotatable_bounding_box":
            box = {"h": (y2 - y1) / GRID, "w": (x2 - x1) / GRID, "x": left, "y": top, "theta": 0.0}
            return {"rotatableBoundingBox": box}
        case "polygon":
            points = ((left, top), (right, top), (right, bottom), (left, bottom))
            return {
                "polygon": {str(n): {"x": x, "y": y} for n, (x, y) in enumerate(points)},
                "polygons": [[[value for point in points for value in point]]],
            }
        case "bitmask":
            return {"bitmask": _filled_bitmask(corners, width, height)}
    raise ValueError(f"shape: got {shape!r}, expected one that a box can be written as")


def geometry_text(label: Mapping[str, Any]) -> str | None:
    """Returns the geometry of an object on a frame as text at five decimals, None where it is of no form that we write.

    The same geometry gives the same text after a round trip through JSON, where 1.0 may come back as 1.

    >>> geometry_text({"boundingBox": {"h": 0.3, "w": 1, "x": 0, "y": 0.2}})
    'boundingBox 0.30000 1.00000 0.00000 0.20000'
    """
    try:
        for key, text_of in _TEXTS.items():
            if label.get(key):
                return text_of(label)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        pass
    return None


def _box_text(label: Mapping[str, Any]) -> str:
    box = label["boundingBox"]
    return f"boundingBox {box['h']:.5f} {box['w']:.5f} {box['x']:.5f} {box['y']:.5f}"


def _rotatable_text(label: Mapping[str, Any]) -> str:
    box = label["rotatableBoundingBox"]
    return f"rotatableBoundingBox {box['h']:.5f} {box['w']:.5f} {box['x']:.5f} {box['y']:.5f} {box['theta']:.5f}"


def _bitmask_text(label: Mapping[str, Any]) -> str:
    mask = label["bitmask"]
    return f"bitmask {mask['top']} {mask['left']} {mask['width']} {mask['height']} {mask['rleString']}"


def _polygon_text(label: Mapping[str, Any]) -> str | None:
    first = label.get("polygon")
    points = sorted(first.items(), key=lambda item: int(item[0])) if first else []
    outline = _numbers(value for _, point in points for value in (point["x"], point["y"]))
    polygons = label.get("polygons")
    if not polygons:
        return f"polygon {outline}"
    # The platform may keep one of the two forms; where both stand and differ, somebody has edited one of them.
    if outline not in ("", _numbers(polygons[0][0])):
        return None
    return "polygon " + " and ".join(" without ".join(map(_numbers, rings)) for rings in polygons)


def _skeleton_text(label: Mapping[str, Any]) -> str:
    skeleton = label["skeleton"]
    points = [skeleton[key] for key in sorted(skeleton, key=int)]
    return "skeleton " + " ".join(
        f"{point['featureHash']} {point['x']:.5f} {point['y']:.5f} {_visibility(point)}" for point in points
    )


def _visibility(point: Mapping[str, Any]) -> str:
    """Returns a point's visibility, which the platform keeps as flags and the SDK writes as a word."""
    flags = (word for word in ("invisible", "occluded", "selfOccluded", "visible") if point.get(word))
    return next(flags, point.get("visibility") or "visible")


_TEXTS: Mapping[str, Callable[[Mapping[str, Any]], str | None]] = {
    "boundingBox": _box_text,
    "rotatableBoundingBox": _rotatable_text,
    "bitmask": _bitmask_text,
    "polygon": _polygon_text,
    "polygons": _polygon_text,
    "skeleton": _skeleton_text,
}


def _numbers(values: Any) -> str:
    return " ".join(f"{value:.5f}" for value in values)


def _filled_bitmask(corners: Corners, width: int, height: int) -> dict[str, Any]:
    """Returns a bitmask of the whole picture in which the box's pixels, one or more, are set."""
    left, right = _pixel_span(corners[0], corners[2], width)
    top, bottom = _pixel_span(corners[1], corners[3], height)
    rle = _rectangle_rle((left, top, right, bottom), width, height)
    return {"top": 0, "left": 0, "height": height, "width": width, "rleString": rle}


def _pixel_span(low: int, high: int, num_pixels: int) -> tuple[int, int]:
    start = (low * num_pixels + GRID // 2) // GRID
    end = (high * num_pixels + GRID // 2) // GRID
    start = min(start, num_pixels - 1)
    return start, max(end, start + 1)


def _rectangle_rle(xyxy: tuple[int, int, int, int], width: int, height: int) -> str:
    """Returns the run lengths of a filled rectangle, as `encord.common.bitmask_operations` encodes them.

    Runs go row by row, unset first. From the fourth on each is written as its difference to the one two before it, so
    that all of a rectangle's rows but the first are zeros.

    Args:
        xyxy: whole pixels; right and bottom are the first that are not set.
        width: pixels of the picture.
        height: pixels of the picture.

    >>> _rectangle_rle((1, 1, 3, 3), width=4, height=4)
    '52203'
    """
    left, top, right, bottom = xyxy
    gap = width - (right - left)
    if gap == 0:
        runs, rows = [top * width, (bottom - top) * width], 1
    else:
        runs, rows = [top * width + left, right - left], bottom - top
    rest = width * height - (bottom - 1) * width - right
    text = "".join(map(_encode_count, runs))
    if rows > 1:
        text += _encode_count(gap) + _encode_count(0) * (2 * rows - 3)
        return text + _encode_count(rest - gap) if rest else text
    return text + _encode_count(rest) if rest else text


def _encode_count(count: int) -> str:
    """Returns a signed count in COCO's text form: five bits a character, low bits first."""
    text = ""
    while True:
        bits, count = count & 0x1F, count >> 5
        more = count != (-1 if bits & 0x10 else 0)
        text += chr(bits + 48 + (0x20 if more else 0))
        if not more:
            return text
