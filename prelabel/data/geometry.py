"""What is known beyond boxes as columns of a Parquet file: one for each kind that occurs, null where a row has none.

`mask`: struct of left, top, width, height and counts; `polygons`: list of parts of rings of x, y, x, y, …;
`rotated_box`: struct of centre_x, centre_y, width, height, angle_degrees; `keypoints`: list of x, y, confidence, x, …;
all as `prelabel.data.geometry` has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import pyarrow


GeometryKind = Literal["mask", "polygons", "rotated_box", "keypoints"]
GEOMETRY_KINDS: tuple[GeometryKind, ...] = get_args(GeometryKind)

SHAPES_OF: dict[GeometryKind, tuple[str, ...]] = {
    "mask": ("polygon", "bitmask"),
    "polygons": ("polygon",),
    "rotated_box": ("rotatable_bounding_box", "polygon"),
    "keypoints": ("skeleton",),
}
"""Shapes of an ontology that hold more of such a geometry than its box, the preferred one first."""

SEEN_FROM = 0.5
"""Confidence from which a keypoint counts as seen, Ultralytics' own when it draws them."""


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """What a detector can tell beyond boxes.

    Attributes:
        kind: of all the geometry that it gives; None: it gives boxes alone.
        keypoint_names: of the points of each `Keypoints`, in their order; else empty.
    """

    kind: GeometryKind | None = None
    keypoint_names: tuple[str, ...] = ()

    @property
    def shapes(self) -> tuple[str, ...]:
        """Shapes of an ontology that hold more of it than a box, the preferred one first."""
        return () if self.kind is None else SHAPES_OF[self.kind]


BOXES_ONLY = OutputSpec()


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """Which pixels are the thing's: the smallest window that holds them, and the runs within it.

    Attributes:
        left: of the window, in whole pixels of the frame.
        top: of the window.
        width: of the window, 1 or more.
        height: of the window, 1 or more.
        counts: int32 (K,), run lengths row by row, unset first: COCO's uncompressed form, along rows.
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
        """Returns the mask of pixels that are set; None if none is.

        Args:
            pixels: bool (H, W), of the frame or of a part of it.
            left: where that part begins in the frame.
            top: where that part begins in the frame.

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
        """The window, bool (height, width)."""
        is_set = np.arange(len(self.counts)) % 2 == 1
        return np.repeat(is_set, self.counts).reshape(self.height, self.width)

    @property
    def area(self) -> int:
        """Pixels that are set."""
        return int(self.counts[1::2].sum())


@dataclass(frozen=True, slots=True, eq=False)
class Polygons:
    """The outlines of a thing that may be in several parts.

    Attributes:
        parts: the largest first; of each its rings: the outer one, then those of its holes. A ring is float32 (K, 2), x
            and y, of three corners or more; the last is joined to the first.
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

    @property
    def num_points(self) -> int:
        """Corners of all rings."""
        return sum(len(ring) for rings in self.parts for ring in rings)


@dataclass(frozen=True, slots=True)
class RotatedBox:
    """A box that is turned about its centre.

    Attributes:
        centre_x: pixels.
        centre_y: pixels.
        width: of the box before it is turned, in pixels.
        height: of the box before it is turned, in pixels.
        angle_degrees: by which it is turned, clockwise on the screen.
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
        """The four corners, float32 (4, 2), clockwise from the one that is top left before it is turned.

        >>> RotatedBox(10, 10, 8, 4, 90).corners.round(3).tolist()
        [[12.0, 6.0], [12.0, 14.0], [8.0, 14.0], [8.0, 6.0]]
        """
        x, y = self.width / 2, self.height / 2
        turn = np.exp(1j * np.deg2rad(self.angle_degrees))
        turned = np.array([-x - 1j * y, x - 1j * y, x + 1j * y, -x + 1j * y]) * turn
        return np.stack([turned.real + self.centre_x, turned.imag + self.centre_y], axis=1).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Keypoints:
    """Named places on a thing, in the order of the detector's `keypoint_names`.

    Attributes:
        xy: float32 (K, 2), pixels.
        confidence: float32 (K,), 0..1, that a point can be seen.
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
    """Returns one entry a detection, object (N,); all None where there is none.

    Raises:
        ValueError: there are more or fewer, or one is of no known kind.
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
    """Returns the geometry of a part of a frame in pixels of the frame.

    Args:
        geometry: in pixels of the part.
        x: where the part begins in the frame.
        y: where the part begins in the frame.
    """
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
    """Returns the geometry cut to its frame; None if nothing of a mask is left. A rotated box stays as it is.

    Args:
        geometry: in pixels of the frame.
        width: pixels of the frame.
        height: pixels of the frame.
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
    """Returns the lengths of runs of equal values, int32, those unset first, so that a set one begins with a 0.

    >>> run_lengths([False, True, True]).tolist(), run_lengths([True]).tolist()
    ([1, 2], [0, 1])
    """
    flat = np.asarray(values, np.bool_)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = np.concatenate([[0], edges, [len(flat)]] if not flat[0] else [[0, 0], edges, [len(flat)]])
    return np.diff(starts).astype(np.int32)


_WINDOW = ("left", "top", "width", "height")


def geometry_as_columns(geometry: NDArray[np.object_]) -> dict[str, pyarrow.Array]:
    """Returns the columns, by kind; none of a kind that does not occur.

    Args:
        geometry: object (N,), as of `VideoDetections`.
    """
    import pyarrow as pa

    types: dict[str, pyarrow.DataType] = {
        "polygons": pa.list_(pa.list_(pa.list_(pa.float32()))),
        "rotated_box": pa.struct(
            [(name, pa.float64()) for name in ("centre_x", "centre_y", "width", "height", "angle_degrees")]
        ),
        "keypoints": pa.list_(pa.float32()),
    }
    values: list[Geometry | None] = geometry.tolist()
    columns: dict[str, pyarrow.Array] = {}
    for kind in {value.kind for value in values if value is not None}:
        of_kind = [value if value is not None and value.kind == kind else None for value in values]
        if kind == "mask":
            columns[kind] = _mask_column(of_kind)
        else:
            plain = [None if value is None else _as_plain(value) for value in of_kind]
            columns[kind] = pa.array(plain, types[kind])
    return columns


def geometry_of_table(table: pyarrow.Table) -> NDArray[np.object_]:
    """Returns what `geometry_as_columns` was given, object (N,)."""
    geometry = np.full(table.num_rows, None, object)
    for kind in GEOMETRY_KINDS:
        if kind in table.column_names:
            for row, value in enumerate(_READ[kind](table.column(kind).combine_chunks())):
                geometry[row] = value if value is not None else geometry[row]
    return geometry


def _mask_column(values: Sequence[Geometry | None]) -> pyarrow.Array:
    """Returns masks as a struct array; made of whole arrays, since run lengths are many."""
    import pyarrow as pa

    masks = [value if isinstance(value, Mask) else None for value in values]
    counts = [np.zeros(0, np.int32) if mask is None else mask.counts for mask in masks]
    ends = np.cumsum([0, *map(len, counts)], dtype=np.int32)
    runs = pa.ListArray.from_arrays(pa.array(ends), pa.array(np.concatenate([np.zeros(0, np.int32), *counts])))
    windows = [pa.array([0 if mask is None else getattr(mask, name) for mask in masks], pa.int32()) for name in _WINDOW]
    is_null = pa.array([mask is None for mask in masks])
    return pa.StructArray.from_arrays([*windows, runs], [*_WINDOW, "counts"], mask=is_null)


def _masks(column: pyarrow.StructArray) -> Iterator[Mask | None]:
    if not len(column):
        return
    left, top, width, height = (column.field(name).to_pylist() for name in _WINDOW)
    runs = column.field("counts")
    ends, counts = runs.offsets.to_numpy().tolist(), runs.values.to_numpy()
    for row, is_valid in enumerate(column.is_valid().to_pylist()):
        window = (left[row], top[row], width[row], height[row])
        yield Mask(*window, counts[ends[row] : ends[row + 1]]) if is_valid else None


def _as_plain(geometry: Geometry) -> object:
    match geometry:
        case Polygons():
            return [[ring.reshape(-1) for ring in rings] for rings in geometry.parts]
        case RotatedBox():
            return asdict(geometry)
        case Keypoints():
            return np.column_stack([geometry.xy, geometry.confidence]).reshape(-1)
    raise ValueError(f"{geometry.kind}: is no plain value")


def _polygons(value: list[list[list[float]]]) -> Polygons:
    return Polygons(tuple(tuple(np.array(ring, np.float32).reshape(-1, 2) for ring in rings) for rings in value))


def _keypoints(value: list[float]) -> Keypoints:
    rows = np.array(value, np.float32).reshape(-1, 3)
    return Keypoints(rows[:, :2], rows[:, 2])


def _each(read: Callable[[Any], Geometry]) -> Callable[[pyarrow.Array], Iterator[Geometry | None]]:
    return lambda column: (None if value is None else read(value) for value in column.to_pylist())


_READ: dict[GeometryKind, Callable[[pyarrow.Array], Iterator[Geometry | None]]] = {
    "mask": _masks,
    "polygons": _each(_polygons),
    "rotated_box": _each(lambda value: RotatedBox(**value)),
    "keypoints": _each(_keypoints),
}
