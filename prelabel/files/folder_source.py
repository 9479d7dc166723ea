"""The source of tasks from files: a file, a folder, or a glob, on this machine or at an address."""

from __future__ import annotations

import functools
import glob
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PlainValidator

from prelabel.config.sections import Config
from prelabel.config.source import CLOSED, FileLabelsSection, Location, SourceSection, read_location
from prelabel.data.frames import Media
from prelabel.errors import FetchError
from prelabel.files.listed_files import FileTask, ListedFiles, name_some
from prelabel.files.media_files import is_unknown, kind_to_read, media_kind
from prelabel.files.remote_source import RemoteSource
from prelabel.plugins.affects import Affects
from prelabel.plugins.protocols import Task
from prelabel.runtime.buckets import Address
from prelabel.runtime.disk_cache import DiskCache
from prelabel.runtime.shared import Shared

OPENED_AT_MOST = 1000
"""The largest number of left-out files that are opened to say of which nothing tells what they are."""


def _check_paths(value: object) -> object:
    """Returns one location or several, all of them on this machine or none."""
    several = isinstance(value, list | tuple)
    locations = tuple(_check_path(each) for each in (value if isinstance(value, list | tuple) else [value]))
    if len({isinstance(location, Path) for location in locations}) != 1:
        raise ValueError(
            f"got {len(locations)} paths and addresses, expected only paths or only addresses, at least one"
        )
    return locations if several else locations[0]


def _check_path(value: object) -> Path | Address:
    if value == "":
        raise ValueError("is empty, expected a file, a folder or a glob")  # Path("") is the working directory
    stream = re.match(r"(rtsps?|rtmp|udp|srt):/+(.*)", str(value))  # a Path keeps only one of the two slashes
    if stream is not None:
        url = f"{stream[1]}://{stream[2]}"
        raise ValueError(f"{url} is a live stream: record it first: ffmpeg -i {url} -t 600 -c copy recording.mkv")
    return read_location(value)


class FolderSection(FileLabelsSection):
    """Videos and images on this machine, in a bucket, or behind links."""

    model_config = CLOSED

    use: Annotated[Literal["folder"], Affects.PLACE] = "folder"
    path: Annotated[Location | tuple[Location, ...], PlainValidator(_check_paths), Affects.PLACE] = Field(
        description="a file, a folder and all below it, or a glob such as clips/*.mp4; s3://bucket/clips/*.mp4, gs://, "
        "abfs://; https://host/clip.mp4; or a list of these"
    )
    cache_gb: Annotated[float, Affects.NOTHING] = Field(
        20.0, gt=0, description="disk space for downloads from buckets and links, in 10^9 bytes"
    )
    fetch_workers: Annotated[int, Affects.NOTHING] = Field(
        4, ge=1, le=64, description="files that are downloaded at the same time"
    )

    @property
    def paths(self) -> tuple[Path | Address, ...]:
        """The value of `path`, as several."""
        return self.path if isinstance(self.path, tuple) else (self.path,)


@dataclass(frozen=True, slots=True)
class FolderTask(FileTask):
    """A task for one file on this machine; its identity is size and modification time.

    Attributes:
        path: of the file.
    """

    path: Path

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


class FolderSource(ListedFiles):
    """The videos and images below a path on this machine, in the order of their names.

    A file that the config names directly is always a task. In a folder or a glob, the suffix decides whether a file is
    media. If the suffix is unknown, the first bytes decide. Hidden files, such as the `._clip.mp4` of macOS, and files
    that earlier runs wrote into `output` are left out.
    """

    Section: ClassVar[type[SourceSection]] = FolderSection

    def __init__(self, path: Path | Sequence[Path], output: Path) -> None:
        """Lists no files yet.

        Args:
            path: a file, a folder or a glob, or several of these.
            output: folder to which runs write.
        """
        paths = (path,) if isinstance(path, Path) else tuple(path)
        # Relative to the common folder of several paths, files with the same name have different titles.
        root = Path(os.path.commonpath([os.path.realpath(_root_of(each)) for each in paths]))
        super().__init__(paths, _with_end(root), _with_end(output))
        self._unlisted: list[OSError] = []

    @classmethod
    def from_config(cls, config: Config, shared: Shared) -> ListedFiles:
        """Returns the source that a config describes: of files on this machine, or of those at addresses."""
        section = config.source
        assert isinstance(section, FolderSection)
        addresses = [path for path in section.paths if isinstance(path, Address)]
        if not addresses:
            return cls([path for path in section.paths if isinstance(path, Path)], section.run_folder)
        cache = DiskCache(section.run_folder / ".prelabel" / "cache", int(section.cache_gb * 1e9))
        return RemoteSource(addresses, section.bucket, cache, section.fetch_workers)

    @property
    def warnings(self) -> list[str]:  # type: ignore[override]  # a plain attribute of the base class
        """Warnings about folders that could not be listed, and about left-out files that are or may be media."""
        said = [
            f"{each.filename}: cannot be listed: {each.strerror}: its files are left out" for each in self._unlisted
        ]
        unknown = [path for path in self._left_out[:OPENED_AT_MOST] if is_unknown(Path(path))]
        if unknown:
            names = name_some(unknown)
            said.append(f"left out, since nothing tells what they are: {names}: to try one, name it in source.path")
        return [*said, *super().warnings]

    def _is_there(self) -> bool:
        return any(Path(str(path)).exists() or glob.glob(str(path), recursive=True) for path in self._paths)

    def _list(self) -> list[Task]:
        self._unlisted = []
        return super()._list()

    def _list_at(self, path: Path | Address) -> Iterator[Task]:
        assert isinstance(path, Path)
        root = _root_of(path) if len(self._paths) == 1 else Path(self._root)
        if path.is_file():
            yield from filter(None, [_task_of(path, root)])
            return
        if path.is_dir():
            walk = os.walk(path, onerror=self._unlisted.append)
            paths = [Path(folder, name) for folder, _, names in walk for name in names]
            paths = [each for each in paths if not any(part.startswith(".") for part in each.relative_to(path).parts)]
        else:
            paths = [Path(found) for found in glob.glob(str(path), recursive=True)]
        real_folder = functools.cache(os.path.realpath)  # not `resolve`, which raises for links that form a circle
        for each in sorted(paths):
            real = os.path.realpath(each) if each.is_symlink() else f"{real_folder(each.parent)}{os.sep}{each.name}"
            if self._is_of_earlier_runs(real):
                continue
            task = _task_of(each, root)
            if task is not None and media_kind(each) is not None:
                yield task
            elif task is not None:
                self._left_out.append(each)


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
        return FolderTask(title, "", path)
    return FolderTask(title, f"{status.st_size}:{status.st_mtime_ns}", path) if stat.S_ISREG(status.st_mode) else None


def _root_of(path: Path) -> Path:
    """Returns the folder to which titles are relative."""
    if path.is_file():
        return path.parent
    if path.is_dir():
        return path
    # For a glob, these are the folders before the first wildcard, since titles must not depend on which files match.
    return Path(*takewhile(lambda part: not glob.has_magic(part), path.parts[:-1]))
