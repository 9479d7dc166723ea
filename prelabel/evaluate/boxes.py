"""The boxes on a label row as columns, in whatever shape they are drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prelabel.data.boxes import GRID, corners_on_grid
from prelabel.data.frames import VideoInfo
from prelabel.errors import LabelError
from prelabel.labels.row.own import LabelRow, iterate_frames
from prelabel.labels.row.shapes import geometry_text

UNKNOWN_GEOMETRY = 0
COLUMNS = ("corners", "class_name", "instance", "confidence", "geometry", "created_at")


@dataclass(frozen=True, slots=True)
class Boxes:
    """Boxes of one video's labels: one row for each object on a frame, in frame order.

    Attributes:
        frame_index: int64 (N,), 0-based, not falling.
        corners: int64 (N, 4), x1, y1, x2, y2 in hundred-thousandths of the frame.
        class_name: str (N,), the ontology object's name.
        instance: str (N,), the object hash, the same on all frames of an instance. Empty: unknown, one by itself.
        confidence: float64 (N,), 0..1; 1 if a person drew the box.
        geometry: uint64 (N,), a digest of the exact geometry; `UNKNOWN_GEOMETRY` if only the box is known.
        created_at: float64 (N,), seconds since 1970; NaN if unknown, as by default.
    """

    frame_index: NDArray[np.int64]
    corners: NDArray[np.int64]
    class_name: NDArray[np.str_]
    instance: NDArray[np.str_]
    confidence: NDArray[np.float64]
    geometry: NDArray[np.uint64]
    created_at: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        if not len(self.created_at):
            object.__setattr__(self, "created_at", np.full(len(self), np.nan))
        for name in COLUMNS:
            if len(getattr(self, name)) != len(self):
                raise ValueError(f"{name}: got {len(getattr(self, name))} rows, expected {len(self)}")
        if np.any(np.diff(self.frame_index) < 0):
            raise ValueError("frame_index: falls, expected presentation order")

    def __len__(self) -> int:
        return len(self.frame_index)

    def where(self, keep: NDArray[np.bool_]) -> Boxes:
        """Returns the rows for which `keep`, bool (N,), is true."""
        return replace(self, **{name: getattr(self, name)[keep] for name in ("frame_index", *COLUMNS)})

    @property
    def instance_number(self) -> NDArray[np.int64]:
        """The instance of each box, int64 (N,), from 0: one for each object hash, one for each box without a hash."""
        names = np.where(self.instance == "", np.char.add("box ", np.arange(len(self)).astype(np.str_)), self.instance)
        return np.unique(names, return_inverse=True)[1].reshape(-1)


def boxes_of_row(row: LabelRow) -> Boxes:
    """Returns the boxes on a label row; objects without a box around them, such as points, are left out.

    Any other shape gives its bounding box; its digest tells whether it changed.

    Raises:
        LabelError: it is not the label row of a video, an image or an image group.
    """
    boxes: list[tuple[Any, ...]] = []
    for unit_hash, frame_index, labels in iterate_frames(row):
        unit = row["data_units"][unit_hash]
        width, height = unit.get("width"), unit.get("height")
        aspect = width / height if width and height else 1.0
        for label in labels.get("objects") or ():
            try:
                if not label.get("isDeleted") and (corners := _corners(label, aspect)) is not None:
                    boxes.append((frame_index, corners, *_known(label)))
            except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
                raise LabelError(
                    f"label row {row.get('data_title')!r}: frame {frame_index}: an object is of no known form: "
                    f"{error!r}"
                ) from error
    boxes.sort(key=lambda box: box[0])
    columns = list(zip(*boxes, strict=True)) or [()] * 7
    return Boxes(
        frame_index=np.array(columns[0], np.int64),
        corners=np.array(columns[1], np.int64).reshape(-1, 4),
        class_name=np.array(columns[2], np.str_),
        instance=np.array(columns[3], np.str_),
        confidence=np.array(columns[4], np.float64),
        geometry=np.array(columns[5], np.uint64),
        created_at=np.array(columns[6], np.float64),
    )


def boxes_of_corners(
    frame_index: NDArray[np.int64],
    xyxy: NDArray[np.float64],
    info: VideoInfo,
    class_names: Sequence[str],
    *,
    confidence: NDArray[np.float32] | None = None,
    instance: NDArray[np.int64] | None = None,
) -> Boxes:
    """Returns boxes of which only the corners are known.

    Args:
        frame_index: int64 (N,), not falling.
        xyxy: (N, 4), corners in pixels of the displayed frame.
        info: the video.
        class_names: N names.
        confidence: (N,), 0..1; default: 1.
        instance: int64 (N,), the instance of each box, negative: unknown; default: all unknown.
    """
    num = len(frame_index)
    number = np.full(num, -1) if instance is None else instance
    return Boxes(
        frame_index=frame_index,
        corners=corners_on_grid(xyxy.astype(np.float32), info.sizes(frame_index)),
        class_name=np.array(class_names, np.str_),
        instance=np.where(number < 0, "", number.astype(np.str_)),
        confidence=np.ones(num) if confidence is None else confidence.astype(np.float64),
        geometry=np.full(num, UNKNOWN_GEOMETRY, np.uint64),
    )


def _known(label: Mapping[str, Any]) -> tuple[str, str, float, int, float]:
    """Returns an object's class name, instance, confidence, digest of its geometry, and when it was made."""
    text = geometry_text(label)
    digest = UNKNOWN_GEOMETRY if text is None else int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) or 1
    made_at = _seconds(str(label.get("createdAt")))
    return label["name"], label["objectHash"], float(label.get("confidence", 1.0)), digest, made_at


@lru_cache(maxsize=1024)
def _seconds(time: str) -> float:
    """Returns the seconds since 1970 of a label row's time; NaN if it is none.

    >>> _seconds("Thu, 02 Jan 2025 03:04:05 UTC")
    1735787045.0
    """
    try:
        return datetime.strptime(time, "%a, %d %b %Y %H:%M:%S UTC").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return float("nan")


def _corners(label: Mapping[str, Any], aspect: float) -> tuple[int, int, int, int] | None:
    """Returns the corners of the box around an object; None if it has none.

    Args:
        label: the object on a frame.
        aspect: width by height of the frame.
    """
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
    """Returns the x and y of a turned box's corners in fractions; the turn by `theta` degrees is one of pixels."""
    centre_x, centre_y = box["x"] + box["w"] / 2, box["y"] + box["h"] / 2
    turn = np.exp(1j * np.deg2rad(box["theta"]))
    corners = np.array([complex(x, y) for x in (-0.5, 0.5) for y in (-0.5, 0.5)])
    turned = turn * (corners.real * box["w"] * aspect + 1j * corners.imag * box["h"])
    return (turned.real / aspect + centre_x).tolist(), (turned.imag + centre_y).tolist()


def _mask_corners(mask: Mapping[str, Any]) -> tuple[int, int, int, int] | None:
    from faster_coco_eval.core import mask as coco_mask

    # COCO's run lengths go down the columns, Encord's along the rows: the same text is the mask with sides swapped.
    width, height = mask["width"], mask["height"]
    coded = {"size": [width, height], "counts": mask["rleString"].encode()}
    top, left, rows, columns = coco_mask.toBbox(coded).tolist()
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
