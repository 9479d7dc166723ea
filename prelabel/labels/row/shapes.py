"""Converts boxes and other geometry to the JSON of label rows, and that JSON to the text to hash."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from prelabel.data.boxes import GRID
from prelabel.data.geometry import SEEN_FROM, Geometry, Keypoints, Mask, Polygons, RotatedBox
from prelabel.data.masks import text_along_rows
from prelabel.data.ontology import OntologyObject

Corners = tuple[int, int, int, int]
"""x1, y1, x2, y2 in hundred-thousandths of the frame."""

Size = tuple[int, int]
"""Width and height in pixels."""


def box_geometry(shape: str, corners: Corners, width: int, height: int) -> dict[str, Any]:
    """Returns a box as the SDK writes it for the shape of an ontology object.

    Args:
        shape: one of `prelabel.data.ontology.BOX_SHAPES`, but not a bounding box.
        corners: of a box with an area, within the frame; a bitmask has at least one pixel set.
        width: of the data unit in pixels; a bitmask has the same width.
        height: of the data unit in pixels; a bitmask has the same height.

    >>> box_geometry("rotatable_bounding_box", (10000, 20000, 40000, 50000), 640, 360)
    {'rotatableBoundingBox': {'h': 0.3, 'w': 0.3, 'x': 0.1, 'y': 0.2, 'theta': 0.0}}
    """
    x1, y1, x2, y2 = corners
    left, top, right, bottom = x1 / GRID, y1 / GRID, x2 / GRID, y2 / GRID
    match shape:
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
            x_span, y_span = _pixel_span(x1, x2, width), _pixel_span(y1, y2, height)
            rle = _rectangle_rle(x_span, y_span, width, height)
            return {"bitmask": {"top": 0, "left": 0, "height": height, "width": width, "rleString": rle}}
    raise ValueError(f"shape: got {shape!r}, expected one that a box can be written as")


def geometry_keys(geometry: Geometry, category: OntologyObject, frame: Size, unit: Size) -> dict[str, Any]:
    """Returns a mask, polygons, a rotated box or keypoints as the SDK writes them for the object's shape.

    Args:
        geometry: in pixels of the displayed frame; keypoints in the skeleton's order.
        category: the ontology object.
        frame: size of the displayed frame.
        unit: size of the data unit; a bitmask has the same size.

    Raises:
        ValueError: the shape does not fit the geometry.
    """
    match geometry, category.shape:
        case Mask(), "bitmask":
            rle = text_along_rows(geometry if frame == unit else _scaled(geometry, frame, unit), *unit)
            return {"bitmask": {"top": 0, "left": 0, "height": unit[1], "width": unit[0], "rleString": rle}}
        case Polygons(), "polygon":
            parts = [[_on_grid(ring, frame) for ring in rings] for rings in geometry.parts]
            return {
                "polygon": {str(n): {"x": x, "y": y} for n, (x, y) in enumerate(parts[0][0])},
                "polygons": [[[value for point in ring for value in point] for ring in rings] for rings in parts],
            }
        case RotatedBox(), "rotatable_bounding_box":
            return {"rotatableBoundingBox": _rotatable_box(geometry, frame)}
        case Keypoints(), "skeleton":
            return {"skeleton": _skeleton(geometry, category, frame)}
    raise ValueError(f"{category.name!r} is a {category.shape}: got {geometry.kind}: filter the detections first")


def _on_grid(xy: NDArray[np.float32], frame: Size) -> list[list[float]]:
    """Returns points in pixels, (K, 2), as fractions of the frame at five decimals."""
    fractions: list[list[float]] = (np.rint(xy.astype(np.float64) / frame * GRID) / GRID).tolist()
    return fractions


def _rotatable_box(box: RotatedBox, frame: Size) -> dict[str, float]:
    """Returns the box before its rotation, with the angle `theta`.

    The rotation is about the box's centre, in degrees clockwise on the screen.
    """
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


def _scaled(mask: Mask, frame: Size, unit: Size) -> Mask:
    """Returns a mask scaled from the frame's size to the unit's; it has at least one pixel.

    The two sizes differ if the platform stores a video in another size than that in which it displays its frames.
    """
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


def geometry_text(label: Mapping[str, Any]) -> str | None:
    """Returns an object's geometry as text in hundred-thousandths; None if prelabel does not write this form.

    The text is the same after a round trip through the platform's JSON, which can turn 1.0 into 1.

    >>> geometry_text({"boundingBox": {"h": 0.3, "w": 1, "x": 0, "y": 0.2}})
    'boundingBox 30000,100000,0,20000'
    """
    try:
        if box := label.get("boundingBox"):
            return f"boundingBox {_numbers(box[key] for key in ('h', 'w', 'x', 'y'))}"
        if box := label.get("rotatableBoundingBox"):
            return f"rotatableBoundingBox {_numbers(box[key] for key in ('h', 'w', 'x', 'y', 'theta'))}"
        if mask := label.get("bitmask"):
            return f"bitmask {mask['top']} {mask['left']} {mask['width']} {mask['height']} {mask['rleString']}"
        if label.get("polygon") or label.get("polygons"):
            return _polygon_text(label)
        if skeleton := label.get("skeleton"):
            return "skeleton " + " ".join(_point_text(skeleton[key]) for key in sorted(skeleton, key=int))
    except (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError):
        pass
    return None


def geometry_texts(labels: Sequence[Mapping[str, Any]]) -> list[str | None]:
    """Returns `geometry_text` of each object; for boxes, this takes a third of the time."""
    rows, hwxy = plain_boxes(labels)
    texts: list[str | None] = [None] * len(labels)
    for row, text in zip(rows, box_texts(np.rint(hwxy * GRID).astype(np.int64)), strict=True):
        texts[row] = text
    return [geometry_text(label) if text is None else text for label, text in zip(labels, texts, strict=True)]


def plain_boxes(labels: Sequence[Mapping[str, Any]]) -> tuple[list[int], NDArray[np.float64]]:
    """Returns the rows of the objects that are bounding boxes, and these boxes, (N, 4).

    A box is height, width, left and top in fractions of the frame.
    """
    rows, packed = [], []
    for row, label in enumerate(labels):
        try:
            box = label["boundingBox"]
            packed.append(_FOUR_NUMBERS.pack(box["h"], box["w"], box["x"], box["y"]))
            rows.append(row)
        except (KeyError, TypeError, struct.error):
            continue
    return rows, np.frombuffer(b"".join(packed)).reshape(-1, 4)


_FOUR_NUMBERS = struct.Struct("4d")


def box_texts(hwxy: NDArray[np.int64]) -> list[str]:
    """Returns `geometry_text` of bounding boxes.

    Args:
        hwxy: (N, 4), height, width, left and top in hundred-thousandths of the frame.

    >>> box_texts(np.array([[30000, 100000, 0, 20000]]))
    ['boundingBox 30000,100000,0,20000']
    """
    if not len(hwxy):
        return []
    # orjson writes an array about ten times as fast as Python formats its numbers.
    rows = orjson.dumps(np.ascontiguousarray(hwxy), option=orjson.OPT_SERIALIZE_NUMPY).decode()
    return [f"boundingBox {row}" for row in rows[2:-2].split("],[")]


def _polygon_text(label: Mapping[str, Any]) -> str | None:
    first = label.get("polygon")
    points = sorted(first.items(), key=lambda item: int(item[0])) if first else []
    outline = _numbers(value for _, point in points for value in (point["x"], point["y"]))
    polygons = label.get("polygons")
    if not polygons:
        return f"polygon {outline}"
    # The platform may return only one of the two forms. If it returns both and they differ, somebody has edited one.
    if outline not in ("", _numbers(polygons[0][0])):
        return None
    return "polygon " + " and ".join(" without ".join(map(_numbers, rings)) for rings in polygons)


def _point_text(point: Mapping[str, Any]) -> str:
    # The platform stores one flag for each word, the SDK writes the word itself.
    flags = (word for word in ("invisible", "occluded", "selfOccluded", "visible") if point.get(word))
    visibility = next(flags, point.get("visibility") or "visible")
    return f"{point['featureHash']} {_numbers((point['x'], point['y']))} {visibility}"


def _numbers(values: Iterable[float]) -> str:
    return ",".join(str(round(value * GRID)) for value in values)


def _pixel_span(low: int, high: int, num_pixels: int) -> tuple[int, int]:
    """Returns the first and the end of the pixels from `low` to `high`, which are in hundred-thousandths."""
    start = (low * num_pixels + GRID // 2) // GRID
    end = (high * num_pixels + GRID // 2) // GRID
    start = min(start, num_pixels - 1)
    return start, max(end, start + 1)


def _rectangle_rle(x_span: tuple[int, int], y_span: tuple[int, int], width: int, height: int) -> str:
    """Returns the run lengths of a filled rectangle, as `encord.common.bitmask_operations` encodes them.

    Runs go row by row, unset pixels first. From the fourth run on, each is written as its difference from the run two
    before it. So all rows of a rectangle but the first become zeros. This function computes the text directly, because
    encoding a mask of the whole frame would take milliseconds for each box.

    Args:
        x_span: left and right in whole pixels; right is exclusive.
        y_span: top and bottom in whole pixels; bottom is exclusive.
        width: of the frame in pixels.
        height: of the frame in pixels.

    >>> _rectangle_rle((1, 3), (1, 3), width=4, height=4)
    '52203'
    """
    (left, right), (top, bottom) = x_span, y_span
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
    """Returns a signed count in COCO's text form: five bits for each character, low bits first."""
    text = ""
    while True:
        bits, count = count & 0x1F, count >> 5
        more = count != (-1 if bits & 0x10 else 0)
        text += chr(bits + 48 + (0x20 if more else 0))
        if not more:
            return text
