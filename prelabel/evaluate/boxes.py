"""The boxes on a label row as columns, whatever shape they are drawn in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prelabel.data.boxes import GRID, corners_on_grid
from prelabel.data.frames import VideoInfo
from prelabel.errors import LabelError
from prelabel.labels.row.own import LabelRow, iterate_frames
from prelabel.labels.row.shapes import geometry_text

UNKNOWN_GEOMETRY = 0


@dataclass(frozen=True, slots=True)
class Boxes:
    """Boxes of one video's labels: one row an object on a frame, in frame order.

    Attributes:
        frame_index: int64 (N,), 0-based, not falling.
        corners: int64 (N, 4), x1, y1, x2, y2 in hundred-thousandths of the frame.
        class_name: str (N,), the ontology object's.
        instance: str (N,), the object hash; the same on several frames is one instance. Empty: unknown, one a box.
        confidence: float64 (N,), 0..1; 1 where a person drew.
        geometry: uint64 (N,), a digest of the exact geometry; `UNKNOWN_GEOMETRY` where only the box is known.
    """

    frame_index: NDArray[np.int64]
    corners: NDArray[np.int64]
    class_name: NDArray[np.str_]
    instance: NDArray[np.str_]
    confidence: NDArray[np.float64]
    geometry: NDArray[np.uint64]

    def __post_init__(self) -> None:
        for name in ("corners", "class_name", "instance", "confidence", "geometry"):
            if len(getattr(self, name)) != len(self.frame_index):
                raise ValueError(f"{name}: got {len(getattr(self, name))} rows, expected {len(self.frame_index)}")
        if np.any(np.diff(self.frame_index) < 0):
            raise ValueError("frame_index: falls, expected presentation order")

    def __len__(self) -> int:
        return len(self.frame_index)

    def where(self, keep: NDArray[np.bool_]) -> Boxes:
        """Returns the rows for which `keep`, bool (N,), is true."""
        columns = ("frame_index", "corners", "class_name", "instance", "confidence", "geometry")
        return replace(self, **{name: getattr(self, name)[keep] for name in columns})

    @property
    def instance_number(self) -> NDArray[np.int64]:
        """Which instance each box belongs to, int64 (N,), from 0: one an object hash, one a box without a hash."""
        names = np.where(self.instance == "", np.char.add("box ", np.arange(len(self)).astype(np.str_)), self.instance)
        return np.unique(names, return_inverse=True)[1].reshape(-1)


@dataclass(frozen=True, slots=True)
class _Box:
    frame_index: int
    corners: tuple[int, int, int, int]
    class_name: str
    instance: str
    confidence: float
    geometry: int


def boxes_of_row(row: LabelRow) -> Boxes:
    """Returns the boxes on a label row; objects that have no box around them, such as points, are left out.

    Of a shape that is no box its bounding box is taken; whether it changed is told by its geometry as a whole.

    Raises:
        LabelError: if it is not the label row of a video, an image or an image group.
    """
    found = [
        box
        for unit_hash, frame_index, labels in iterate_frames(row)
        for label in labels.get("objects") or ()
        if (box := _box_of(label, frame_index, row, _aspect(row["data_units"][unit_hash]))) is not None
    ]
    return _as_columns(sorted(found, key=lambda box: box.frame_index))


def boxes_of_corners(
    frame_index: NDArray[np.int64],
    xyxy: NDArray[np.float64],
    info: VideoInfo,
    class_names: Sequence[str],
    *,
    confidence: NDArray[np.float32] | None = None,
    instance: NDArray[np.int64] | None = None,
) -> Boxes:
    """Returns boxes of which only corners are known.

    Args:
        frame_index: int64 (N,), not falling.
        xyxy: (N, 4) corners in pixels of the displayed frame.
        info: the video.
        class_names: as many.
        confidence: (N,) 0..1; default: 1.
        instance: int64 (N,), the instance of each; default: one a box.
    """
    num = len(frame_index)
    return Boxes(
        frame_index=frame_index,
        corners=corners_on_grid(xyxy.astype(np.float32), info.sizes(frame_index)),
        class_name=np.array(class_names, np.str_),
        instance=np.full(num, "", np.str_) if instance is None else instance.astype(np.str_),
        confidence=np.ones(num) if confidence is None else confidence.astype(np.float64),
        geometry=np.full(num, UNKNOWN_GEOMETRY, np.uint64),
    )


def _as_columns(found: list[_Box]) -> Boxes:
    return Boxes(
        frame_index=np.array([box.frame_index for box in found], np.int64),
        corners=np.array([box.corners for box in found], np.int64).reshape(-1, 4),
        class_name=np.array([box.class_name for box in found], np.str_),
        instance=np.array([box.instance for box in found], np.str_),
        confidence=np.array([box.confidence for box in found], np.float64),
        geometry=np.array([box.geometry for box in found], np.uint64),
    )


def _aspect(unit: Mapping[str, Any]) -> float:
    """Returns width by height of a data unit; 1.0 where nobody says."""
    width, height = unit.get("width"), unit.get("height")
    return width / height if width and height else 1.0


def _box_of(label: Mapping[str, Any], frame_index: int, row: LabelRow, aspect: float) -> _Box | None:
    if label.get("isDeleted"):
        return None
    try:
        corners = _corners(label, aspect)
        if corners is None:
            return None
        return _Box(
            frame_index=frame_index,
            corners=corners,
            class_name=label["name"],
            instance=label["objectHash"],
            confidence=float(label.get("confidence", 1.0)),
            geometry=_digest(geometry_text(label)),
        )
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise LabelError(
            f"label row {row.get('data_title')!r}: frame {frame_index}: an object is of no known form: {error!r}"
        ) from error


def _digest(geometry: str | None) -> int:
    if geometry is None:
        return UNKNOWN_GEOMETRY
    return int.from_bytes(hashlib.sha256(geometry.encode()).digest()[:8]) or 1


def _corners(label: Mapping[str, Any], aspect: float) -> tuple[int, int, int, int] | None:
    if box := label.get("boundingBox"):
        return _on_grid([box["x"], box["x"] + box["w"]], [box["y"], box["y"] + box["h"]])
    if box := label.get("rotatableBoundingBox"):
        return _on_grid(*_turned(box, aspect))
    if mask := label.get("bitmask"):
        return _mask_corners(mask)
    points = list(_points(label))
    return _on_grid([x for x, _ in points], [y for _, y in points]) if len(points) > 1 else None


def _on_grid(xs: list[float], ys: list[float]) -> tuple[int, int, int, int]:
    return (round(min(xs) * GRID), round(min(ys) * GRID), round(max(xs) * GRID), round(max(ys) * GRID))


def _turned(box: Mapping[str, float], aspect: float) -> tuple[list[float], list[float]]:
    """Returns the corners of a box turned about its centre by `theta` degrees, in fractions.

    Args:
        box: as the label row has it.
        aspect: width by height of the frame, in whose pixels the turn is taken.
    """
    centre_x, centre_y = box["x"] + box["w"] / 2, box["y"] + box["h"] / 2
    turn = np.exp(1j * np.deg2rad(box["theta"]))
    corners = np.array([complex(x, y) for x in (-0.5, 0.5) for y in (-0.5, 0.5)])
    turned = turn * (corners.real * box["w"] * aspect + 1j * corners.imag * box["h"])
    return (turned.real / aspect + centre_x).tolist(), (turned.imag + centre_y).tolist()


def _mask_corners(mask: Mapping[str, Any]) -> tuple[int, int, int, int] | None:
    from faster_coco_eval.core import mask as coco_mask

    # COCO's run lengths go down the columns, Encord's along the rows: the same text is the picture with sides swapped.
    width, height = mask["width"], mask["height"]
    top, left, rows, columns = coco_mask.toBbox(
        {"size": [width, height], "counts": mask["rleString"].encode()}
    ).tolist()
    if not rows or not columns:
        return None
    return _on_grid([left / width, (left + columns) / width], [top / height, (top + rows) / height])


def _points(label: Mapping[str, Any]) -> Iterator[tuple[float, float]]:
    for polygon in label.get("polygons") or ():
        for ring in polygon:
            yield from zip(ring[::2], ring[1::2], strict=True)
    for key in ("polygon", "polyline", "skeleton"):
        points = label.get(key) or {}
        for point in points.values() if isinstance(points, Mapping) else points:
            yield point["x"], point["y"]
