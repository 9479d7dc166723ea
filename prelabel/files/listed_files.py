"""The base classes of sources whose tasks are files, and of these tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from prelabel.errors import ConfigError
from prelabel.files.media_files import UNREADABLE_SUFFIXES
from prelabel.plugins.protocols import Task
from prelabel.runtime.buckets import Address
from prelabel.runtime.files import PREVIEW_SUFFIXES
from prelabel.store.source import SAVE_WORKERS, Source

NAME_YOURS = "; correct the path, or name the files in the command: prelabel run CONFIG VIDEO|FOLDER|GLOB"
NAMED_AT_MOST = 3
"""The largest number of files to name in a sentence; it gives only the number of the others."""


@dataclass(frozen=True, slots=True)
class FileTask:
    """A task for one file.

    Attributes:
        title: the path below the folder or address that the config names, with forward slashes.
        identity: a text that changes when the file does; the run processes a changed file again.
    """

    title: str
    identity: str
    num_frames: None = field(default=None, kw_only=True)

    @property
    def key(self) -> str:
        """The title, which stays the same if somebody moves the folder."""
        return self.title


class ListedFiles(Source):
    """A source with one task for each file. A subclass lists the files at a path."""

    moves_tasks = False
    save_workers = SAVE_WORKERS

    def __init__(self, paths: Sequence[Path | Address], root: str, output: str | None) -> None:
        """Lists no files yet.

        Args:
            paths: paths on this machine, or addresses.
            root: the deepest folder that holds all paths, with a slash at its end.
            output: the folder to which runs write, with a slash at its end; None if it is not where the files are.
        """
        self._paths, self._root, self._output = tuple(paths), root, output
        self._listed: list[Task] | None = None
        self._left_out: list[PurePath] = []

    def _list_at(self, path: Path | Address) -> Iterator[Task]:
        """Yields a task for each file at a path, in the order of names, and adds the others to `_left_out`."""
        raise NotImplementedError

    def _is_of_earlier_runs(self, place: str) -> bool:
        """Returns whether an earlier run wrote the file at a place, which is a path in the form of `root`.

        This is true for all files in an output folder below the root. If the output folder also holds the media, it is
        true for previews only.
        """
        if self._output is None or not place.startswith(self._output) or not self._output.startswith(self._root):
            return False
        return self._output != self._root or place.endswith(PREVIEW_SUFFIXES)

    def _is_there(self) -> bool:
        """Returns whether any file or folder is at the paths."""
        return bool(self._left_out)

    def prepare(self) -> None:
        """Lists the files for the next call of `tasks`.

        Raises:
            ConfigError: there is no video or image.
        """
        self._listed = self._list()
        if not self._listed:
            problem = "no video or image" if self._is_there() else "there is nothing"
            raise ConfigError(f"source.path: {problem} at {self._shown_paths()}{self._describe_left_out()}{NAME_YOURS}")

    def tasks(self) -> Iterator[Task]:
        """Yields a task for each file: those that `prepare` or `count` listed last, or else those that exist now."""
        files, self._listed = self._listed, None
        yield from self._list() if files is None else files

    def count(self) -> int:
        """Returns the number of tasks that the next call of `tasks` yields."""
        if self._listed is None:
            self._listed = self._list()
        return len(self._listed)

    def describe(self) -> str:
        """Returns the number of files, and the files that are left out, in words.

        Raises:
            ConfigError: there is no video or image.
        """
        self.prepare()
        return f"{self.count()} {_files(self.count())} at {self._shown_paths()}{self._describe_left_out()}"

    @property
    def warnings(self) -> list[str]:  # type: ignore[override]  # a plain attribute of the base class
        """A warning about media that no reader can decode, if there are any."""
        undecodable = [path for path in self._left_out if path.suffix.lower() in UNREADABLE_SUFFIXES]
        if not undecodable:
            return []
        return [f"{_count(undecodable)} left out that no reader decodes: {name_some(undecodable)}: convert them"]

    def owns(self, key: str, title: str) -> bool:
        """Returns whether a stored task is of a file: its key is its title."""
        return key == title

    def _list(self) -> list[Task]:
        """Returns a task for each file, in the order of paths, and stores what is left out."""
        self._left_out = []
        tasks = {task.title: task for path in self._paths for task in self._list_at(path)}
        return list(tasks.values()) if len(self._paths) == 1 else [tasks[title] for title in sorted(tasks)]

    def _shown_paths(self) -> str:
        shown = ", ".join(map(str, self._paths[:NAMED_AT_MOST]))
        return f"{shown}, …" if len(self._paths) > NAMED_AT_MOST else shown

    def _describe_left_out(self) -> str:
        if not self._left_out:
            return ""
        suffixes = Counter(path.suffix.lower() or "without suffix" for path in self._left_out)
        kinds = ", ".join(f"{num} {suffix}" for suffix, num in suffixes.most_common(NAMED_AT_MOST))
        more = ", …" if len(suffixes) > NAMED_AT_MOST else ""
        return f"; {len(self._left_out)} other {_files(len(self._left_out))} left out ({kinds}{more})"


def name_some(paths: Sequence[PurePath]) -> str:
    """Returns the names of the first files, and the number of the others."""
    more = len(paths) - NAMED_AT_MOST
    return ", ".join(path.name for path in paths[:NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")


def _count(paths: Sequence[PurePath]) -> str:
    return f"{len(paths)} {_files(len(paths))}"


def _files(num: int) -> str:
    return "file" if num == 1 else "files"
