"""Parquet files with metadata in JSON: written whole or not at all, and read with errors that name the file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from prelabel.errors import LabelError
from prelabel.runtime.files import atomic_write

if TYPE_CHECKING:
    import pyarrow

Number = TypeVar("Number", bound=np.number[Any])
_METADATA_KEY = b"prelabel"


def write_parquet(
    path: Path,
    columns: Mapping[str, pyarrow.Array],
    metadata: Mapping[str, object],
    *,
    values_repeat: bool = True,
    durable: bool = True,
) -> None:
    """Writes a file, whole or not at all.

    Args:
        path: of the file.
        columns: by name.
        metadata: values that JSON can hold; `format` is one of them.
        values_repeat: whether columns hold values more than once, so that a dictionary is worth its time.
        durable: whether the file survives a loss of power; a cache need not, and is cheaper without.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(dict(columns)).replace_schema_metadata({_METADATA_KEY: json.dumps(metadata)})
    # Given a path, pyarrow (26.0) looks up its kind of file system each time; given an open file, it does not.
    with atomic_write(path, durable=durable) as unfinished, pa.OSFile(str(unfinished), "wb") as file:
        pq.write_table(table, file, compression="zstd", use_dictionary=values_repeat)


# pyarrow's own conversions (`pa.array`, `to_numpy`; 26.0) import pandas where it is installed: half a second of each
# run. These two share memory with the arrays they get.


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
def open_parquet(path: Path, format: int) -> Iterator[tuple[pyarrow.Table, dict[str, Any]]]:
    """Yields table and metadata of a file; what goes wrong with them inside the block is an error that names the file.

    Raises:
        LabelError: the file is missing, damaged, of another format, or not written by prelabel.
    """
    import pyarrow.parquet as pq

    with _errors_naming(path), pq.ParquetFile(path) as file:
        table = file.read().combine_chunks()
        yield table, _metadata(path, table.schema, format)


@contextmanager
def open_metadata(path: Path, format: int) -> Iterator[dict[str, Any]]:
    """Yields the metadata of a file without reading its columns.

    Raises:
        LabelError: as `open_parquet`.
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
