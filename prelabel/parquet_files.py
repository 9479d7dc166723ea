"""What a run keeps of a task in Parquet: columns, and facts beside them under a format number, whole or not at all."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prelabel.errors import LabelError
from prelabel.files import whole_file
from prelabel.frames import VideoInfo

if TYPE_CHECKING:
    import pyarrow

_METADATA_KEY = b"prelabel"


def write_columns(
    path: Path,
    columns: Mapping[str, pyarrow.Array],
    facts: Mapping[str, object],
    *,
    values_repeat: bool = True,
) -> None:
    """Writes a file, whole or not at all.

    Args:
        path: of the file.
        columns: by name.
        facts: what JSON can hold; `format` among them.
        values_repeat: whether a look for values that stand in a column more than once is worth its time.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(dict(columns)).replace_schema_metadata({_METADATA_KEY: json.dumps(facts)})
    # A file that is open already: pyarrow looks into what kind of file system a path lies on, each time.
    with whole_file(path) as unfinished, pa.OSFile(str(unfinished), "wb") as file:
        pq.write_table(table, file, compression="zstd", use_dictionary=values_repeat)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what reading a file may raise into errors that name it.

    Raises:
        LabelError: the file is missing, damaged, or none of ours.
    """
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError:
        raise LabelError(f"{path}: there is no such file") from None
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise LabelError(f"{path}: not whole, or not written by prelabel: delete it and run again ({error})") from error


def facts_of(path: Path, schema: pyarrow.Schema, format: int) -> dict[str, Any]:
    """Returns the facts beside a file's columns.

    Raises:
        LabelError: they are of another format.
    """
    facts: dict[str, Any] = json.loads((schema.metadata or {})[_METADATA_KEY])
    if facts["format"] != format:
        raise LabelError(f"{path}: got format {facts['format']}, expected {format}: delete it and run again")
    return facts


def info_as_facts(info: VideoInfo) -> dict[str, Any]:
    """Returns what JSON can hold of a video's facts."""
    return {field.name: getattr(info, field.name) for field in dataclasses.fields(info)}


def info_of_facts(facts: Mapping[str, Any]) -> VideoInfo:
    """Returns what `info_as_facts` was given."""
    return VideoInfo(**{**facts, "frame_sizes": tuple((width, height) for width, height in facts["frame_sizes"])})
