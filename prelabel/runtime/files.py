"""Output files: names that are safe and tell their task, and contents that are whole or not there at all."""

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

from prelabel.errors import PrelabelError

MAX_SEGMENT_BYTES = 160
"""File systems take 255; suffixes, a digest and the mark of an unfinished file come on top."""
MAX_NAME_BYTES = 1000
DRY_RUN = "dry-run"
"""The folder of dry runs in an output."""
_PLAIN = re.compile(r"[\w\-+=@,()\[\]{}!#]([\w\-+=@,()\[\]{}!# .]{0,120}[\w\-+=@,()\[\]{}!#])?", re.ASCII)
"""A name that is taken as it is, told at a glance."""


@contextmanager
def atomic_write(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yields a path beside `path` to write to; on leaving, what was written takes the place of `path` at once.

    It is there after a loss of power, too. After an error the unfinished file is gone and `path` is as it was.
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
"""Of pictures that lie beside the labels."""


def _sync(path: Path) -> None:
    """Waits until a file, or a folder's names, are on disk: a rename alone may be lost with the power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text_atomically(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    with atomic_write(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def read_json(path: Path, failure: type[PrelabelError]) -> Any:
    """Returns a JSON file's content.

    Raises:
        PrelabelError: of the kind asked for, naming the file, if it cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise failure(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise failure(f"{path}: is not JSON: {error}") from error


def candidate_names(task_key: str, task_title: str) -> tuple[str, str, str]:
    """Returns names for a task's files, the preferred one first; no other task has the last.

    >>> candidate_names("7", "day 1/clip.mp4")
    ('day 1/clip', 'day 1/clip.mp4', 'day 1/clip.mp4-7902699be4')
    """
    digest = hashlib.sha256(task_key.encode(errors="surrogatepass")).hexdigest()[:10]
    whole = safe_name(task_title)
    return output_name(task_title), whole, f"{whole}-{digest}"


def output_name(task_title: str) -> str:
    """Returns the name of a task's output files, without the suffix of its media; sub-folders are kept.

    >>> output_name("day 1/clip.mp4")
    'day 1/clip'
    >>> output_name("../clip.mp4")
    'clip-f73f4521d8'
    """
    return safe_name(task_title.removesuffix(PurePosixPath(task_title).suffix) or task_title, told_apart_by=task_title)


def safe_name(title: str, *, told_apart_by: str | None = None) -> str:
    """Returns a relative path that any file system takes; where the title had to be changed, it ends in a digest.

    Args:
        title: of a task; anything that a person or a platform may have written.
        told_apart_by: what the digest is of; default: the title.

    >>> safe_name("clip.mp4")
    'clip.mp4'
    >>> safe_name("dry-run/clip.mp4")
    'dry-run_/clip.mp4-8d055b73ca'
    """
    segments = [_safe_segment(segment) for segment in title.split("/")]
    if len(segments) > 1 and segments[0] == DRY_RUN:  # else a run's file would lie where a dry run's does
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
