"""Reads and writes Parquet files with metadata in JSON.

A file is written completely or not at all. Errors when reading name the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from prelabel.data.geometry import GEOMETRY_KINDS, Geometry, GeometryKind, Keypoints, Mask, Polygons, RotatedBox
from prelabel.errors import LabelError
from prelabel.runtime.files import atomic_write

if TYPE_CHECKING:
    import pyarrow


Number = TypeVar("Number", bound=np.number[Any])
_METADATA_KEY = b"prelabel"


@dataclass(frozen=True, slots=True)
class ParquetContent:
    """What a file contains.

    Attributes:
        columns: by name.
        metadata: values that JSON can hold; `format` is one of them.
        values_repeat: whether columns hold values more than once, so that a dictionary saves space.
    """

    columns: Mapping[str, pyarrow.Array]
    metadata: Mapping[str, object]
    values_repeat: bool = True

    def write(self, path: Path, *, durable: bool = True) -> None:
        """Writes a file completely or not at all.

        Args:
            path: of the file.
            durable: whether the file survives a power failure. A cache need not, and is written faster without.
        """
        import pyarrow as pa

        # For a path, pyarrow (26.0) looks up the kind of file system each time; for an open file, it does not.
        with atomic_write(path, durable=durable) as unfinished, pa.OSFile(str(unfinished), "wb") as file:
            self._write_to(file)

    def to_bytes(self) -> bytes:
        """Returns the bytes of the file, for another process that writes it."""
        import pyarrow as pa

        file = pa.BufferOutputStream()
        self._write_to(file)
        return bytes(file.getvalue())

    def _write_to(self, file: pyarrow.NativeFile) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.table(dict(self.columns)).replace_schema_metadata({_METADATA_KEY: json.dumps(self.metadata)})
        pq.write_table(table, file, compression="zstd", use_dictionary=self.values_repeat)


# pyarrow's own conversions (`pa.array`, `to_numpy`; 26.0) import pandas if it is installed, which takes half a second
# of each run. The results of these two functions share memory with their arguments.


def to_arrow(values: NDArray[Number]) -> pyarrow.Array:
    """Returns the values of an array (N,) as a column."""
    import pyarrow as pa

    values = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])


def to_numpy(column: pyarrow.Array, dtype: type[Number]) -> NDArray[Number]:
    """Returns the values of a column without nulls, (N,), read-only."""
    _, values = column.buffers()
    if values is None:
        return np.zeros(0, dtype)
    return np.frombuffer(values, dtype)[column.offset : column.offset + len(column)]


@contextmanager
def open_parquet(source: Path | bytes, format: int) -> Iterator[tuple[pyarrow.Table, dict[str, Any]]]:
    """Yields the table and the metadata of a file.

    Errors inside the block that come from the file's content become a `LabelError` too.

    Args:
        source: path of the file, or its bytes.
        format: the number in its metadata.

    Raises:
        LabelError: the file is missing, damaged, of another format, or not written by prelabel; the message names it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = source if isinstance(source, Path) else Path("detections of a worker")
    with _errors_naming(path), pq.ParquetFile(path if isinstance(source, Path) else pa.BufferReader(source)) as file:
        table = file.read().combine_chunks()
        yield table, _metadata(path, table.schema, format)


@contextmanager
def open_metadata(path: Path, format: int) -> Iterator[dict[str, Any]]:
    """Yields the metadata of a file without reading its columns.

    Raises:
        LabelError: in the same cases as `open_parquet`.
    """
    import pyarrow.parquet as pq

    with _errors_naming(path):
        yield _metadata(path, pq.read_schema(path), format)


def _metadata(path: Path, schema: pyarrow.Schema, format: int) -> dict[str, Any]:
    metadata: dict[str, Any] = json.loads((schema.metadata or {})[_METADATA_KEY])
    if metadata["format"] != format:
        raise LabelError(f"{path}: got format {metadata['format']}, expected {format}: delete it and run again")
    return metadata


@contextmanager
def _errors_naming(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError:
        raise LabelError(f"{path}: there is no such file") from None
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise LabelError(f"{path}: not whole, or not written by prelabel: delete it and run again ({error})") from error


_WINDOW = ("left", "top", "width", "height")


def geometry_as_columns(geometry: NDArray[np.object_]) -> dict[str, pyarrow.Array]:
    """Returns a column for each kind of geometry that occurs, by kind.

    Args:
        geometry: object (N,), as in `VideoDetections`.
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
    """Returns the geometry of each row, object (N,), from the columns that `geometry_as_columns` made."""
    geometry = np.full(table.num_rows, None, object)
    for kind in GEOMETRY_KINDS:
        if kind in table.column_names:
            column = table.column(kind).combine_chunks()
            plain = _masks(column) if kind == "mask" else (_from_plain(kind, value) for value in column.to_pylist())
            for row, value in enumerate(plain):
                geometry[row] = value if value is not None else geometry[row]
    return geometry


def _mask_column(values: Sequence[Geometry | None]) -> pyarrow.Array:
    """Returns masks as a struct array.

    It is built from whole arrays, because Python lists of run lengths would be slow.
    """
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


def _from_plain(kind: GeometryKind, value: Any) -> Geometry | None:
    """Returns the geometry that `_as_plain` was given."""
    match kind, value:
        case _, None:
            return None
        case "polygons", _:
            rings_of = ([np.array(ring, np.float32).reshape(-1, 2) for ring in rings] for rings in value)
            return Polygons(tuple(map(tuple, rings_of)))
        case "rotated_box", _:
            return RotatedBox(**value)
    rows = np.array(value, np.float32).reshape(-1, 3)
    return Keypoints(rows[:, :2], rows[:, 2])
