"""Output files: safe names for the files of a task, and atomic writes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

from prelabel.errors import PrelabelError
from prelabel.runtime.process_settings import paused_garbage_collection

MAX_SEGMENT_BYTES = 160
"""File systems allow 255. Suffixes, a digest and the suffix of an unfinished file are added to this."""
MAX_NAME_BYTES = 1000
DRY_RUN = "dry-run"
"""The folder for dry runs in an output folder."""
_PLAIN = re.compile(r"[\w\-+=@,()\[\]{}!#]([\w\-+=@,()\[\]{}!# .]{0,120}[\w\-+=@,()\[\]{}!#])?", re.ASCII)
"""Names that need no change: a quick check for the common case."""


@contextmanager
def atomic_write(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yields a temporary path in the same folder; when the context ends, that file replaces `path` atomically.

    If `durable`, the file also survives a loss of power. After an error the temporary file is deleted and `path` is
    unchanged.
    """
    folder = path.parent
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".{path.name}.{os.getpid()}.tmp"
    try:
        yield unfinished
        if durable:
            _sync(unfinished)
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    if durable:
        _sync(folder)


PREVIEW_SUFFIXES = (".preview.mp4", ".preview.jpg")
"""Suffixes of the preview files next to the labels."""


def _sync(path: Path) -> None:
    """Waits until a file, or a folder's entries, are on disk; a power loss can undo a rename alone."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text_atomically(path: Path, text: str) -> None:
    """Writes a text file atomically, so that it is complete or unchanged."""
    write_bytes_atomically(path, text.encode())


def write_bytes_atomically(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Writes a file atomically; `durable` as in `atomic_write`."""
    with atomic_write(path, durable=durable) as unfinished:
        unfinished.write_bytes(content)


def read_json(path: Path, failure: type[PrelabelError]) -> Any:
    """Returns a JSON file's content.

    Raises:
        PrelabelError: the file cannot be read or is not JSON; the class is `failure`.
    """
    try:
        with paused_garbage_collection():  # large files make many objects without cycles
            return _parse_json(path.read_bytes())
    except OSError as error:
        raise failure(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise failure(f"{path}: is not JSON: {error}") from error


def _parse_json(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return json.loads(content.decode())  # it also reads NaN, which is no JSON, but which some tools write


def candidate_names(task_key: str, task_title: str) -> tuple[str, str, str]:
    """Returns names for a task's files, the preferred one first; the last is unique to the task.

    >>> candidate_names("7", "day 1/clip.mp4")
    ('day 1/clip', 'day 1/clip.mp4', 'day 1/clip.mp4-7902699be4')
    """
    digest = hashlib.sha256(task_key.encode(errors="surrogatepass")).hexdigest()[:10]
    whole = safe_name(task_title)
    return output_name(task_title), whole, f"{whole}-{digest}"


def output_name(task_title: str) -> str:
    """Returns the name of a task's output files: the title without the media's suffix, with sub-folders.

    >>> output_name("day 1/clip.mp4")
    'day 1/clip'
    >>> output_name("../clip.mp4")
    'clip-f73f4521d8'
    """
    return safe_name(task_title.removesuffix(PurePosixPath(task_title).suffix) or task_title, told_apart_by=task_title)


def safe_name(title: str, *, told_apart_by: str | None = None) -> str:
    """Returns a relative path that any file system accepts; it ends in a digest if the title was changed.

    Args:
        title: of a task; may contain any characters.
        told_apart_by: text to compute the digest from; default: the title.

    >>> safe_name("clip.mp4")
    'clip.mp4'
    >>> safe_name("dry-run/clip.mp4")
    'dry-run_/clip.mp4-8d055b73ca'
    """
    segments = [_safe_segment(segment) for segment in title.split("/")]
    if len(segments) > 1 and segments[0] == DRY_RUN:  # keeps it apart from the files of dry runs
        segments[0] += "_"
    name = "/".join(segment for segment in segments if segment)
    if len(name.encode()) > MAX_NAME_BYTES:
        name = name.rsplit("/", 1)[-1]
    if name and name == title:
        return name
    digest = hashlib.sha256((told_apart_by or title).encode(errors="surrogatepass")).hexdigest()[:10]
    return f"{name or 'task'}-{digest}"


def _safe_segment(segment: str) -> str:
    if _PLAIN.fullmatch(segment):
        return segment
    normal = unicodedata.normalize("NFC", segment)
    shown = "".join(letter if _is_safe(letter) else "_" for letter in normal).strip(" .")
    return shown.encode()[:MAX_SEGMENT_BYTES].decode(errors="ignore").rstrip(" .")


def _is_safe(letter: str) -> bool:
    return letter in " ._-+=@,()[]{}!#" or unicodedata.category(letter)[0] in "LMN"
