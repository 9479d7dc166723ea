"""Masks, polygons, rotated boxes and keypoints: the geometry that a detector can give in addition to boxes.

All units are pixels of the displayed frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

GeometryKind = Literal["mask", "polygons", "rotated_box", "keypoints"]
GEOMETRY_KINDS: tuple[GeometryKind, ...] = get_args(GeometryKind)

SHAPES_OF: dict[GeometryKind, tuple[str, ...]] = {
    "mask": ("polygon", "bitmask"),
    "polygons": ("polygon",),
    "rotated_box": ("rotatable_bounding_box", "polygon"),
    "keypoints": ("skeleton",),
}
"""The ontology shapes that can hold each kind of geometry and not only its box, the preferred one first."""

SEEN_FROM = 0.5
"""The lowest confidence of a visible keypoint; Ultralytics draws keypoints from the same value on."""


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """What a detector gives in addition to boxes.

    Attributes:
        kind: of its geometry; None if it gives boxes only.
        keypoint_names: of the points of each `Keypoints`, in order; empty for other kinds.
    """

    kind: GeometryKind | None = None
    keypoint_names: tuple[str, ...] = ()

    @property
    def shapes(self) -> tuple[str, ...]:
        """The ontology shapes that can hold the geometry and not only its box, the preferred one first."""
        return () if self.kind is None else SHAPES_OF[self.kind]


BOXES_ONLY = OutputSpec()


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """The pixels of a thing, as run lengths within the smallest window that contains them.

    Attributes:
        left: of the window, in whole pixels of the frame.
        top: of the window.
        width: of the window, 1 or more.
        height: of the window, 1 or more.
        counts: (K,) int32, run lengths row by row, unset pixels first. COCO's uncompressed form goes column by column.
    """

    kind: ClassVar[GeometryKind] = "mask"
    left: int
    top: int
    width: int
    height: int
    counts: NDArray[np.int32]

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1 or int(self.counts.sum()) != self.width * self.height:
            raise ValueError(
                f"mask: got runs of {int(self.counts.sum())} pixels in a window of {self.width} x {self.height}"
            )

    @classmethod
    def of(cls, pixels: NDArray[np.bool_], left: int = 0, top: int = 0) -> Mask | None:
        """Returns the mask of the set pixels; None if no pixel is set.

        Args:
            pixels: (H, W) bool, of the frame or of a part of it.
            left: of that part in the frame, in pixels.
            top: of that part in the frame, in pixels.

        >>> mask = Mask.of(np.array([[0, 0, 0], [0, 1, 1], [0, 0, 1]], bool))
        >>> (mask.left, mask.top, mask.width, mask.height), mask.counts.tolist()
        ((1, 1, 2, 2), [0, 2, 1, 1])
        """
        rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
        if not len(rows):
            return None
        y1, y2, x1, x2 = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        window = np.ascontiguousarray(pixels[y1:y2, x1:x2])
        return cls(left + int(x1), top + int(y1), int(x2 - x1), int(y2 - y1), run_lengths(window.reshape(-1)))

    @property
    def pixels(self) -> NDArray[np.bool_]:
        """The pixels of the window, (height, width) bool."""
        is_set = np.arange(len(self.counts)) % 2 == 1
        return np.repeat(is_set, self.counts).reshape(self.height, self.width)

    @property
    def area(self) -> int:
        """The number of set pixels."""
        return int(self.counts[1::2].sum())


@dataclass(frozen=True, slots=True, eq=False)
class Polygons:
    """The outlines of a thing in one or more parts.

    Attributes:
        parts: of the thing, the largest first. Each part is a tuple of rings: the outline, then its holes. A ring is
            (K, 2) float32, x and y of 3 corners or more; its last corner is joined to the first.
    """

    kind: ClassVar[GeometryKind] = "polygons"
    parts: tuple[tuple[NDArray[np.float32], ...], ...]

    def __post_init__(self) -> None:
        parts = tuple(tuple(np.asarray(ring, np.float32) for ring in rings) for rings in self.parts)
        if not parts or not all(parts):
            raise ValueError("polygons: got a part without a ring, or no part")
        for ring in (ring for rings in parts for ring in rings):
            if ring.ndim != 2 or ring.shape[1] != 2 or len(ring) < 3 or not np.isfinite(ring).all():
                raise ValueError(f"polygons: got a ring of shape {ring.shape}, expected (3 or more, 2), in pixels")
        object.__setattr__(self, "parts", parts)


@dataclass(frozen=True, slots=True)
class RotatedBox:
    """A box rotated about its centre.

    Attributes:
        centre_x: in pixels.
        centre_y: in pixels.
        width: before the rotation, in pixels.
        height: before the rotation, in pixels.
        angle_degrees: of the rotation, clockwise on the screen.
    """

    kind: ClassVar[GeometryKind] = "rotated_box"
    centre_x: float
    centre_y: float
    width: float
    height: float
    angle_degrees: float

    def __post_init__(self) -> None:
        values = (self.centre_x, self.centre_y, self.width, self.height, self.angle_degrees)
        if not np.isfinite(values).all() or self.width <= 0 or self.height <= 0:
            raise ValueError(f"rotated box: got {values}, expected finite numbers, width and height above 0")

    @property
    def corners(self) -> NDArray[np.float32]:
        """The corners, (4, 2) float32, clockwise from the one that is top left before the rotation.

        >>> RotatedBox(10, 10, 8, 4, 90).corners.round(3).tolist()
        [[12.0, 6.0], [12.0, 14.0], [8.0, 14.0], [8.0, 6.0]]
        """
        x, y = self.width / 2, self.height / 2
        turn = np.exp(1j * np.deg2rad(self.angle_degrees))
        turned = np.array([-x - 1j * y, x - 1j * y, x + 1j * y, -x + 1j * y]) * turn
        return np.stack([turned.real + self.centre_x, turned.imag + self.centre_y], axis=1).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Keypoints:
    """The named points on a thing, in the order of the detector's `keypoint_names`.

    Attributes:
        xy: (K, 2) float32, in pixels.
        confidence: (K,) float32, 0..1, how sure the detector is that the point is visible.
    """

    kind: ClassVar[GeometryKind] = "keypoints"
    xy: NDArray[np.float32]
    confidence: NDArray[np.float32]

    def __post_init__(self) -> None:
        xy, confidence = np.asarray(self.xy, np.float32), np.asarray(self.confidence, np.float32)
        if xy.ndim != 2 or xy.shape[1] != 2 or confidence.shape != (len(xy),):
            raise ValueError(f"keypoints: got {xy.shape} and {confidence.shape}, expected (K, 2) and (K,)")
        if not np.isfinite(xy).all() or not ((confidence >= 0) & (confidence <= 1)).all():
            raise ValueError("keypoints: got NaN or infinity, or a confidence outside 0..1")
        object.__setattr__(self, "xy", xy)
        object.__setattr__(self, "confidence", confidence)


Geometry: TypeAlias = Mask | Polygons | RotatedBox | Keypoints


def as_geometry_column(values: Sequence[Geometry | None] | NDArray[np.object_], num: int) -> NDArray[np.object_]:
    """Returns one entry for each detection, (N,) object; all None if `values` is empty.

    Raises:
        ValueError: the number of entries is not `num`, or an entry is of another type.
    """
    column = np.full(num, None, object)
    if not len(values):
        return column
    if len(values) != num:
        raise ValueError(f"geometry: got {len(values)} rows, expected {num}")
    for row, value in enumerate(values):
        if value is not None and not isinstance(value, Geometry):
            raise ValueError(f"geometry: got {value!r}, expected a Mask, Polygons, RotatedBox, Keypoints or None")
        column[row] = value
    return column


def move_geometry(geometry: Geometry, x: int, y: int) -> Geometry:
    """Returns the geometry moved by `x` and `y` pixels, for example from a tile to its frame."""
    by = np.array([x, y], np.float32)
    match geometry:
        case Mask():
            return replace(geometry, left=geometry.left + x, top=geometry.top + y)
        case Polygons():
            return Polygons(tuple(tuple(ring + by for ring in rings) for rings in geometry.parts))
        case RotatedBox():
            return replace(geometry, centre_x=geometry.centre_x + x, centre_y=geometry.centre_y + y)
        case Keypoints():
            return replace(geometry, xy=geometry.xy + by)


def clip_geometry(geometry: Geometry, width: int, height: int) -> Geometry | None:
    """Returns the geometry clipped to its frame; None if a mask has no pixels in the frame.

    A rotated box is not clipped, because it would become a polygon.

    Args:
        geometry: in pixels of the frame.
        width: of the frame in pixels.
        height: of the frame in pixels.
    """
    size = np.array([width, height], np.float32)
    match geometry:
        case Mask(left=left, top=top):
            if left >= 0 and top >= 0 and left + geometry.width <= width and top + geometry.height <= height:
                return geometry
            x, y = max(-left, 0), max(-top, 0)
            return Mask.of(geometry.pixels[y : max(height - top, 0), x : max(width - left, 0)], left + x, top + y)
        case Polygons():
            return Polygons(tuple(tuple(np.clip(ring, 0, size) for ring in rings) for rings in geometry.parts))
        case Keypoints():
            return replace(geometry, xy=np.clip(geometry.xy, 0, size))
        case RotatedBox():
            return geometry


def run_lengths(values: ArrayLike) -> NDArray[np.int32]:
    """Returns the lengths of runs of equal values, int32, unset first.

    If the first value is set, the first length is 0.

    >>> run_lengths([False, True, True]).tolist(), run_lengths([True]).tolist()
    ([1, 2], [0, 1])
    """
    flat = np.asarray(values, np.bool_)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = np.concatenate([[0], edges, [len(flat)]] if not flat[0] else [[0, 0], edges, [len(flat)]])
    return np.diff(starts).astype(np.int32)
