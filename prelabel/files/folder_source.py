"""Tasks from files on this machine: a file, a folder, or a glob."""

from __future__ import annotations

import functools
import glob
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from prelabel.config.sections import Config
from prelabel.config.source import CLOSED, FileLabelsSection, SourceSection
from prelabel.data.frames import Media
from prelabel.data.ontology import Ontology
from prelabel.errors import ConfigError, FetchError
from prelabel.plugins.affects import Affects
from prelabel.runtime.files import PREVIEW_SUFFIXES
from prelabel.runtime.shared import Shared
from prelabel.sources import Source, load_ontology

IMAGE_SUFFIXES = frozenset(".jpg .jpeg .png .bmp .webp .tif .tiff".split())
VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .mkv .webm .avi .ts .mts .m2ts .mpg .mpeg .vob .wmv .flv .3gp .ogv".split()
    + ".h264 .264 .h265 .265 .hevc".split()
)


def _not_empty(path: object) -> object:
    if path == "":
        raise ValueError("is empty, expected a file, a folder or a glob")  # Path("") is the working directory
    return path


class FolderSection(FileLabelsSection):
    """Videos and images on this machine."""

    model_config = CLOSED

    use: Annotated[Literal["folder"], Affects.PLACE] = "folder"
    path: Annotated[Path, BeforeValidator(_not_empty), Affects.PLACE] = Field(
        description="a file, a folder (searched through) or a glob such as clips/*.mp4"
    )


@dataclass(frozen=True, slots=True)
class FolderTask:
    """One file.

    Attributes:
        path: where it is.
        title: its path below the folder that was asked for, with forward slashes.
        identity: size and time of change when it was listed; a file that changes after that is looked at again.
    """

    path: Path
    title: str
    identity: str
    num_frames: None = None

    @property
    def key(self) -> str:
        """The title: it stays when the folder is moved."""
        return self.title

    @contextmanager
    def open(self) -> Iterator[Media]:
        """Yields the file where it is."""
        try:
            is_file = stat.S_ISREG(self.path.stat().st_mode)
        except FileNotFoundError:
            raise FetchError(f"{self.path}: is gone") from None
        except OSError as error:
            raise FetchError(f"{self.path}: cannot be opened: {error.strerror}") from error
        if not is_file:
            raise FetchError(f"{self.path}: is no file any more")
        yield Media("images" if self.path.suffix.lower() in IMAGE_SUFFIXES else "video", (self.path,))


class FolderSource(Source):
    """Videos and images below a path, in the order of their names.

    A file that is named itself is taken whatever its suffix. In a folder or a glob, other files are passed over, and so
    are hidden files, such as the `._clip.mp4` of macOS, and what earlier runs wrote into `output`.
    """

    Section: ClassVar[type[SourceSection]] = FolderSection
    moves_tasks = False

    def __init__(self, path: Path, output: Path, ontology_of: FolderSection | None = None) -> None:
        """Reads nothing.

        Args:
            path: a file, a folder or a glob.
            output: where runs write.
            ontology_of: names the ontology; None: it is made from the model's classes.
        """
        self._path, self._output, self._section = path, _with_end(output), ontology_of
        self._root = _with_end(path if path.is_dir() else _fixed_part(path))
        self.warnings: list[str] = []
        self._counted: list[FolderTask] | None = None

    @classmethod
    def from_config(cls, config: Config, shared: Shared) -> FolderSource:
        """Returns the source of a config."""
        section = config.source
        assert isinstance(section, FolderSection)
        return cls(section.path, section.output, section)

    def prepare(self) -> None:
        """Checks that there is a video or an image.

        Raises:
            ConfigError: there is none.
        """
        if next(self._files(), None) is None:
            there = self._path.exists() or glob.glob(str(self._path), recursive=True)
            raise ConfigError(f"source.path: {'no video or image' if there else 'there is nothing'} at {self._path}")

    def tasks(self) -> Iterator[FolderTask]:
        """Yields one task per file that is there now, or was when they were last counted."""
        files, self._counted = self._counted, None
        yield from self._sorted() if files is None else files

    def count(self) -> int:
        """Returns how many files are there now."""
        self._counted = self._sorted()
        return len(self._counted)

    def describe(self) -> str:
        """Returns what waits, in words.

        Raises:
            ConfigError: nothing does.
        """
        self.prepare()
        files = self._sorted()
        return f"{len(files)} file{'s' if len(files) > 1 else ''} at {self._path}"

    def ontology(self) -> Ontology | None:
        """Returns the ontology of the file that the section names."""
        return None if self._section is None else load_ontology(self._section)

    def owns(self, key: str, title: str) -> bool:
        """Tells whether a stored task is of files: their keys are their titles."""
        return key == title

    def _sorted(self) -> list[FolderTask]:
        return sorted(self._files(), key=lambda task: task.path)

    def _files(self) -> Iterator[FolderTask]:
        real_folder = functools.cache(os.path.realpath)  # not `resolve`: it raises at links that lead round in a circle
        for task in _find_files(self._path, self._note):
            path = task.path
            real = os.path.realpath(path) if path.is_symlink() else f"{real_folder(path.parent)}{os.sep}{path.name}"
            if path == self._path or not self._is_of_earlier_runs(real):
                yield task

    def _is_of_earlier_runs(self, real: str) -> bool:
        """Tells: all that lies in an output below the media; of an output that is their folder, the previews."""
        if not real.startswith(self._output) or not self._output.startswith(self._root):
            return False
        return self._output != self._root or real.endswith(PREVIEW_SUFFIXES)

    def _note(self, error: OSError) -> None:
        warning = f"{error.filename}: cannot be looked into: {error.strerror}: what lies in it was passed over"
        if warning not in self.warnings:
            self.warnings.append(warning)


def _with_end(folder: Path) -> str:
    return os.path.realpath(folder).rstrip(os.sep) + os.sep


def _find_files(path: Path, note: Callable[[OSError], None]) -> Iterator[FolderTask]:
    if path.is_file():
        return _tasks([path], path.parent)
    if path.is_dir():
        below = (Path(folder, name) for folder, _, names in os.walk(path, onerror=note) for name in names)
        return _tasks(_known(file for file in below if not _is_hidden(file.relative_to(path))), path)
    return _tasks(_known(map(Path, glob.glob(str(path), recursive=True))), _fixed_part(path))


def _is_hidden(below: Path) -> bool:
    return any(part.startswith(".") for part in below.parts)


def _known(files: Iterable[Path]) -> Iterator[Path]:
    return (file for file in files if file.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES)


def _tasks(files: Iterable[Path], root: Path) -> Iterator[FolderTask]:
    for file in files:
        title = file.relative_to(root).as_posix()
        try:
            status = file.stat()
        except FileNotFoundError:  # gone since it was listed
            continue
        except OSError:  # somebody should hear of it, when it is opened
            yield FolderTask(file, title, identity="")
            continue
        if stat.S_ISREG(status.st_mode):
            yield FolderTask(file, title, f"{status.st_size}:{status.st_mtime_ns}")


def _fixed_part(pattern: Path) -> Path:
    """Returns the folders before the first wildcard: titles must not depend on what happens to match."""
    fixed = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return Path(*fixed)
