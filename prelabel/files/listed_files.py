"""The base class of sources whose tasks are files: what they list, and what they leave out, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

from prelabel.errors import ConfigError
from prelabel.files.media_files import UNREADABLE_SUFFIXES
from prelabel.plugins.protocols import Task
from prelabel.runtime.buckets import Address
from prelabel.store.source import SAVE_WORKERS, Source

NAME_YOURS = "; correct the path, or name the files in the command: prelabel run CONFIG VIDEO|FOLDER|GLOB"
NAMED_AT_MOST = 3
"""The largest number of files to name in a sentence; it gives only the number of the others."""


class ListedFiles(Source):
    """A source with one task for each file. A subclass lists the files at a path."""

    moves_tasks = False
    save_workers = SAVE_WORKERS

    def __init__(self, paths: Sequence[Path | Address]) -> None:
        """Lists no files yet.

        Args:
            paths: paths on this machine, or addresses.
        """
        self._paths = tuple(paths)
        self._listed: list[Task] | None = None
        self._left_out: list[PurePath] = []

    def _list_at(self, path: Path | Address) -> Iterator[Task]:
        """Yields a task for each file at a path, in the order of names, and adds the others to `_left_out`."""
        raise NotImplementedError

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
        return f"{count_of(self.count(), 'file')} at {self._shown_paths()}{self._describe_left_out()}"

    @property
    def warnings(self) -> list[str]:  # type: ignore[override]  # a plain attribute of the base class
        """A warning about media that no reader can decode, if there are any."""
        undecodable = [path for path in self._left_out if path.suffix.lower() in UNREADABLE_SUFFIXES]
        if not undecodable:
            return []
        names = ", ".join(path.name for path in undecodable[:NAMED_AT_MOST])
        more = len(undecodable) - NAMED_AT_MOST
        names += f" and {more} more" if more > 0 else ""
        return [f"{count_of(len(undecodable), 'file')} left out that no reader decodes: {names}: convert them"]

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
        return f"; {count_of(len(self._left_out), 'other file')} left out ({kinds}{more})"


def count_of(num: int, noun: str) -> str:
    """Returns a number and its noun.

    >>> count_of(1, "file"), count_of(2, "file")
    ('1 file', '2 files')
    """
    return f"{num} {noun}{'' if num == 1 else 's'}"
