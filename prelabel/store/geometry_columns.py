"""Masks, polygons, rotated boxes and keypoints as columns of a Parquet file.

There is one column for each kind that occurs, null in rows without one: `mask`, a struct of left, top, width, height
and counts; `polygons`, a list of parts of rings of x, y, x, y, …; `rotated_box`, a struct of centre_x, centre_y, width,
height and angle_degrees; `keypoints`, a list of x, y, confidence, x, …; all as in `prelabel.data.geometry`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from prelabel.data.geometry import GEOMETRY_KINDS, Geometry, GeometryKind, Keypoints, Mask, Polygons, RotatedBox

if TYPE_CHECKING:
    import pyarrow

_WINDOW = ("left", "top", "width", "height")


def geometry_as_columns(geometry: NDArray[np.object_]) -> dict[str, pyarrow.Array]:
    """Returns the columns by kind.

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
    """Returns the geometry of each row, object (N,), as `geometry_as_columns` took it."""
    geometry = np.full(table.num_rows, None, object)
    for kind in GEOMETRY_KINDS:
        if kind in table.column_names:
            for row, value in enumerate(_READ[kind](table.column(kind).combine_chunks())):
                geometry[row] = value if value is not None else geometry[row]
    return geometry


def _mask_column(values: Sequence[Geometry | None]) -> pyarrow.Array:
    """Returns masks as a struct array, built from whole arrays: Python lists of run lengths would be slow."""
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
