"""Output files: names that are safe and tell their task, and contents that are whole or not there at all."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from prelabel.errors import MachineError, PrelabelError

MAX_SEGMENT_BYTES = 160
"""File systems take 255; suffixes, a digest and the mark of an unfinished file come on top."""
MAX_NAME_BYTES = 1000
DRY_RUN = "dry-run"
"""The folder of dry runs in an output."""
_PLAIN = re.compile(r"[\w\-+=@,()\[\]{}!#]([\w\-+=@,()\[\]{}!# .]{0,120}[\w\-+=@,()\[\]{}!#])?", re.ASCII)
"""A name that is taken as it is, told at a glance."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to; on leaving, what was written takes the place of `path` at once.

    It is there after a loss of power, too. After an error the unfinished file is gone and `path` is as it was.
    """
    folder = path.parent
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".{path.name}.{os.getpid()}.tmp"
    try:
        yield unfinished
        _sync(unfinished)
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
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


class OutputNames:
    """Which task's files have which name in an output folder: the same in every run. May be used from several threads.

    A task's name is its title without the suffix; where another task has that name already (`a.mp4`, `a.mov`), the
    whole title; where even that is taken, the title and a digest of the task's key.

    Attributes:
        output: the folder.

    Raises:
        MachineError: if the note of earlier names is damaged, or cannot be written.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self._path = output / ".prelabel" / "names.jsonl"  # a line a name: ten thousand tasks rewrite nothing
        self._lock = threading.Lock()
        self._key_by_name: dict[str, str] = {}
        self._name_by_task: dict[tuple[str, str], str] = {}  # of this run: a task is asked for again and again
        self._num_bytes_read = 0
        try:
            with self._path.open("rb") as note:
                self._read_on(note)
        except (FileNotFoundError, NotADirectoryError):  # none was given yet
            pass
        except OSError as error:
            raise MachineError(f"{self._path}: cannot be read: {error.strerror}") from error

    def of(self, task_key: str, task_title: str) -> str:
        """Returns the name of the task's files, a relative path; it is on disk when this returns."""
        task = (task_key, task_title)
        name = self._name_by_task.get(task)
        if name is None:
            name = self._name_by_task[task] = self._find_or_give(task_key, task_title)
        return name

    def _find_or_give(self, task_key: str, task_title: str) -> str:
        digest = hashlib.sha256(task_key.encode(errors="surrogatepass")).hexdigest()[:10]
        whole = safe_name(task_title)
        names = (output_name(task_title), whole, f"{whole}-{digest}")
        with self._lock:
            name = self._first_free(names, task_key)
            if name not in self._key_by_name:
                with self._held_from_others() as note:
                    self._read_on(note)
                    name = self._first_free(names, task_key)
                    if name not in self._key_by_name:
                        self._append(note, name, task_key)
        return name

    def path(self, task_key: str, task_title: str, ending: str) -> Path:
        """Returns where the task's file with this ending is, such as `.labels.json`, or will be."""
        return self.output / f"{self.of(task_key, task_title)}{ending}"

    @contextmanager
    def _held_from_others(self) -> Iterator[BinaryIO]:
        """Gives the note, and holds other processes that work in this folder off it until the block is left."""
        try:
            if not self._path.parent.is_dir():
                self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a+b") as note:
                fcntl.flock(note, fcntl.LOCK_EX)
                yield note
        except OSError as error:
            raise MachineError(f"{self._path}: cannot be written: {error.strerror}") from error

    def _first_free(self, names: tuple[str, ...], task_key: str) -> str:
        return next(name for name in names if self._key_by_name.get(name, task_key) == task_key)

    def _append(self, note: BinaryIO, name: str, task_key: str) -> None:
        line = json.dumps([name, task_key]).encode() + b"\n"
        note.truncate(self._num_bytes_read)  # what a loss of power has left of a line
        note.write(line)
        note.flush()
        os.fsync(note.fileno())
        if not self._num_bytes_read:
            _sync(self._path.parent)
        self._key_by_name[name] = task_key
        self._num_bytes_read += len(line)

    def _read_on(self, note: BinaryIO) -> None:
        """Reads the names that were given since this was last called, here or elsewhere."""
        note.seek(self._num_bytes_read)
        whole_lines, end, _ = note.read().rpartition(b"\n")
        try:
            self._key_by_name.update(json.loads(line) for line in whole_lines.splitlines())
        except ValueError as error:
            raise MachineError(f"{self._path}: which output belongs to which task cannot be read: {error}") from error
        self._num_bytes_read += len(whole_lines) + len(end)


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
