"""The source of tasks from files on this machine: a file, a folder, or a glob."""

from __future__ import annotations

import functools
import glob
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from prelabel.config.sections import Config
from prelabel.config.source import CLOSED, FileLabelsSection, SourceSection
from prelabel.data.frames import Media
from prelabel.errors import ConfigError, FetchError
from prelabel.files.media_files import UNREADABLE_SUFFIXES, kind_to_read, media_kind
from prelabel.plugins.affects import Affects
from prelabel.runtime.files import PREVIEW_SUFFIXES
from prelabel.runtime.shared import Shared
from prelabel.store.source import Source

NAME_YOURS = "; correct the path, or name the files in the command: prelabel run CONFIG VIDEO|FOLDER|GLOB"
NAMED_AT_MOST = 3
"""The largest number of files to name in a sentence; it gives only the number of the others."""


def _check_path(path: object) -> object:
    for each in path if isinstance(path, list | tuple) else [path]:
        if each == "":
            raise ValueError("is empty, expected a file, a folder or a glob")  # Path("") is the working directory
        address = re.match(r"([a-z][a-z0-9+.-]+):/+(.*)", str(each))  # a Path keeps only one of the two slashes
        if address is None:
            continue
        url = f"{address[1]}://{address[2]}"
        if address[1] in ("rtsp", "rtsps", "rtmp", "udp", "srt"):
            raise ValueError(f"{url} is a live stream: record it first: ffmpeg -i {url} -t 600 -c copy recording.mkv")
        raise ValueError(f"{url} is an address, expected files on this machine: download it first")
    return path


class FolderSection(FileLabelsSection):
    """Videos and images on this machine."""

    model_config = CLOSED

    use: Annotated[Literal["folder"], Affects.PLACE] = "folder"
    path: Annotated[Path | tuple[Path, ...], BeforeValidator(_check_path), Affects.PLACE] = Field(
        description="a file, a folder and all below it, or a glob such as clips/*.mp4; or a list of these"
    )


@dataclass(frozen=True, slots=True)
class FolderTask:
    """A task for one file.

    Attributes:
        path: of the file.
        title: the path below the folder that the config names, with forward slashes.
        identity: size and modification time when the file was listed; a file that changes later is processed again.
    """

    path: Path
    title: str
    identity: str
    num_frames: None = None

    @property
    def key(self) -> str:
        """The title, which stays the same if somebody moves the folder."""
        return self.title

    @contextmanager
    def open(self) -> Iterator[Media]:
        """Yields the file in its place, without a copy.

        Raises:
            FetchError: the file is gone, or cannot be opened.
            ReadError: it holds several images, and no reader shows more than one.
        """
        try:
            is_file = stat.S_ISREG(self.path.stat().st_mode)
        except FileNotFoundError:
            raise FetchError(f"{self.path}: is gone") from None
        except OSError as error:
            raise FetchError(f"{self.path}: cannot be opened: {error.strerror}") from error
        if not is_file:
            raise FetchError(f"{self.path}: is not a file any more")
        yield Media(kind_to_read(self.path), (self.path,))


class FolderSource(Source):
    """The videos and images below a path, in the order of their names.

    A file that the config names directly is always a task. In a folder or a glob, the suffix decides whether a file is
    media. If the suffix is unknown, the first bytes decide. Hidden files, such as the `._clip.mp4` of macOS, and files
    that earlier runs wrote into `output` are left out.
    """

    Section: ClassVar[type[SourceSection]] = FolderSection
    moves_tasks = False

    def __init__(self, path: Path | Sequence[Path], output: Path) -> None:
        """Lists no files yet.

        Args:
            path: a file, a folder or a glob, or several of these.
            output: folder to which runs write.
        """
        self._paths = (path,) if isinstance(path, Path) else tuple(path)
        self._output = _with_end(output)
        self._root = _common_root(self._paths)
        self._counted: list[FolderTask] | None = None
        self._unlisted: list[tuple[str, str]] = []
        self._left_out: list[Path] = []

    @classmethod
    def from_config(cls, config: Config, shared: Shared) -> FolderSource:
        """Returns the source that a config describes."""
        section = config.source
        assert isinstance(section, FolderSection)
        return cls(section.path, section.output)

    def prepare(self) -> None:
        """Checks that there is a video or an image.

        Raises:
            ConfigError: there is no video or image.
        """
        if not self._list():
            there = any(path.exists() or glob.glob(str(path), recursive=True) for path in self._paths)
            problem = "no video or image" if there else "there is nothing"
            raise ConfigError(f"source.path: {problem} at {self._shown_paths()}{self._describe_left_out()}{NAME_YOURS}")

    def tasks(self) -> Iterator[FolderTask]:
        """Yields a task for each file that exists now or, after `count`, for each file that it counted."""
        files, self._counted = self._counted, None
        yield from self._list() if files is None else files

    def count(self) -> int:
        """Returns the number of files that exist now."""
        self._counted = self._list()
        return len(self._counted)

    def describe(self) -> str:
        """Returns the number of files, and the files that are left out, in words.

        Raises:
            ConfigError: there is no video or image.
        """
        self.prepare()
        return f"{_count(len(self._list()), 'file')} at {self._shown_paths()}{self._describe_left_out()}"

    @property
    def warnings(self) -> list[str]:  # type: ignore[override]  # a plain attribute of the base class
        """Warnings about folders that could not be listed, and about media that no reader can decode."""
        said = [f"{folder}: cannot be listed: {reason}: its files are left out" for folder, reason in self._unlisted]
        undecodable = [path for path in self._left_out if path.suffix.lower() in UNREADABLE_SUFFIXES]
        if undecodable:
            names = ", ".join(path.name for path in undecodable[:NAMED_AT_MOST])
            more = len(undecodable) - NAMED_AT_MOST
            names += f" and {more} more" if more > 0 else ""
            said.append(f"{_count(len(undecodable), 'file')} left out that no reader decodes: {names}: convert them")
        return said

    def owns(self, key: str, title: str) -> bool:
        """Returns whether a stored task is of a file: its key is its title."""
        return key == title

    def _shown_paths(self) -> str:
        shown = ", ".join(map(str, self._paths[:NAMED_AT_MOST]))
        return f"{shown}, …" if len(self._paths) > NAMED_AT_MOST else shown

    def _describe_left_out(self) -> str:
        if not self._left_out:
            return ""
        suffixes = Counter(path.suffix.lower() or "without suffix" for path in self._left_out)
        kinds = ", ".join(f"{num} {suffix}" for suffix, num in suffixes.most_common(NAMED_AT_MOST))
        more = ", …" if len(suffixes) > NAMED_AT_MOST else ""
        return f"; {_count(len(self._left_out), 'other file')} left out ({kinds}{more})"

    def _list(self) -> list[FolderTask]:
        """Returns a task for each file, in the order of paths, and stores what is left out."""
        self._unlisted, self._left_out = [], []
        tasks = {task.title: task for path in self._paths for task in self._list_at(path)}
        return list(tasks.values()) if len(self._paths) == 1 else [tasks[title] for title in sorted(tasks)]

    def _list_at(self, path: Path) -> list[FolderTask]:
        root = _root_of(path) if len(self._paths) == 1 else Path(self._root)
        if path.is_file():
            return [task for task in [_task_of(path, root)] if task is not None]
        if path.is_dir():
            walk = os.walk(path, onerror=self._note_unlisted)
            paths = [Path(folder, name) for folder, _, names in walk for name in names]
            paths = [each for each in paths if not any(part.startswith(".") for part in each.relative_to(path).parts)]
        else:
            paths = [Path(found) for found in glob.glob(str(path), recursive=True)]
        real_folder = functools.cache(os.path.realpath)  # not `resolve`, which raises for links that form a circle
        tasks = []
        for each in sorted(paths):
            real = os.path.realpath(each) if each.is_symlink() else f"{real_folder(each.parent)}{os.sep}{each.name}"
            if self._is_of_earlier_runs(real):
                continue
            task = _task_of(each, root)
            if task is not None and media_kind(each) is not None:
                tasks.append(task)
            elif task is not None:
                self._left_out.append(each)
        return tasks

    def _is_of_earlier_runs(self, real: str) -> bool:
        """Returns whether an earlier run wrote a file.

        This is true for all files in an output folder below the media. If the output folder also holds the media, it is
        true for previews only.
        """
        if not real.startswith(self._output) or not self._output.startswith(self._root):
            return False
        return self._output != self._root or real.endswith(PREVIEW_SUFFIXES)

    def _note_unlisted(self, error: OSError) -> None:
        self._unlisted.append((error.filename, error.strerror or ""))


def _count(num: int, noun: str) -> str:
    return f"{num} {noun}{'' if num == 1 else 's'}"


def _with_end(folder: Path) -> str:
    return os.path.realpath(folder).rstrip(os.sep) + os.sep


def _task_of(path: Path, root: Path) -> FolderTask | None:
    """Returns the task of a file; None if the file is gone or is no regular file."""
    is_below = path.is_relative_to(root)
    title = (path.relative_to(root) if is_below else Path(os.path.relpath(path, root))).as_posix()
    try:
        status = path.stat()
    except FileNotFoundError:  # somebody deleted it since it was listed
        return None
    except OSError:  # `FolderTask.open` reports it
        return FolderTask(path, title, identity="")
    return FolderTask(path, title, f"{status.st_size}:{status.st_mtime_ns}") if stat.S_ISREG(status.st_mode) else None


def _root_of(path: Path) -> Path:
    """Returns the folder to which titles are relative."""
    if path.is_file():
        return path.parent
    return path if path.is_dir() else _fixed_part(path)


def _common_root(paths: Sequence[Path]) -> str:
    """Returns the deepest folder that holds all paths.

    Relative to it, files with the same name have different titles.
    """
    return _with_end(Path(os.path.commonpath([os.path.realpath(_root_of(path)) for path in paths])))


def _fixed_part(pattern: Path) -> Path:
    """Returns the folders before the first wildcard, because titles must not depend on which files match."""
    fixed = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return Path(*fixed)
