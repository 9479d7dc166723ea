"""Where tasks come from: the base class of a source, and tasks whose raw detections are stored.

A source in one file is a class with the three methods of `prelabel.TaskSource`. A config names it as
`source: {use: mine.py:Mine, ...}`; it is built with the section's other keys as keyword arguments. A class that derives
from `Source` may say and do more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar, Protocol

from prelabel.config.source import FileLabelsSection, SourceSection
from prelabel.data.frames import Media, VideoInfo
from prelabel.data.label_map import LabelMap
from prelabel.data.ontology import Ontology
from prelabel.errors import FetchError
from prelabel.labels.row.own import RowChange
from prelabel.plugins.protocols import LabelSink, SkippedTask, Task, TaskSource


@dataclass(frozen=True, slots=True)
class RowOptions:
    """How a run writes label rows.

    Attributes:
        max_row_bytes: the largest row that is written.
        skips_begun: whether rows that hold labels of anybody else stay as they are.
        model_record: model, weights and config, to note next to the labels; a value may be unknown.
    """

    max_row_bytes: int
    skips_begun: bool = False
    model_record: Mapping[str, str | None] | None = None


class RowSink(LabelSink, Protocol):
    """A sink of label rows."""

    def edit(self, task: Task, info: VideoInfo, change: RowChange) -> int:
        """Writes the task's row with a change on it, and returns its bytes. Raises what `write` raises."""

    def describe(self) -> str:
        """Returns where labels go, in words."""


class Source:
    """Base class of a source: only `tasks` has no default.

    Building a source does no work and cannot fail; `prepare` does what may.

    Attributes:
        Section: the keys of `source` in a config. A section with extra keys hands these to the class as options.
        moves_tasks: whether tasks move to another stage once they are labelled; files stay.
        keeps_rows: whether label rows are where tasks come from; else they are files in the output folder.
        fetch_workers: tasks that may be opened at the same time, each on a thread of its own.
        skipped: tasks seen so far that are not for this tool.
        warnings: what a user should know although no task failed; may grow during the run.
    """

    Section: ClassVar[type[SourceSection]] = FileLabelsSection
    moves_tasks: bool = True
    keeps_rows: bool = False
    fetch_workers: int = 1
    skipped: Sequence[SkippedTask] = ()
    warnings: Sequence[str] = ()

    def prepare(self) -> None:
        """Checks that tasks can be listed, before a run begins.

        Raises:
            SetupError: they cannot.
        """

    def tasks(self) -> Iterator[Task]:
        """Yields the tasks that wait now, each once."""
        raise NotImplementedError

    def proceed(self, task: Task, pathway: str | None) -> None:
        """Moves a task whose labels are saved. Default: it stays.

        Raises:
            SaveError: it did not move.
        """

    def fail(self, task: Task, reason: str) -> None:
        """Reports a task that failed. Default: the run's report does."""

    def prioritise(self, task: Task, priority: float) -> None:
        """Sets how urgent a task is, 0 to 1, before it moves. Default: tasks have no priority.

        Raises:
            SaveError: it was not taken.
        """

    def close(self) -> None:
        """Ends all waiting within `Task.open`, so that threads which fetch can end. Tasks may be opened again."""

    def count(self) -> int | None:
        """Returns how many tasks there will be; None where that is not known beforehand."""
        return None

    def describe(self) -> str:
        """Returns what waits, in words."""
        return type(self).__name__

    def check_pathway(self, pathway: str | None) -> str:
        """Returns what the pathway of this name or uuid is called, and where it leads, in words.

        Raises:
            AccountError: there is none; those that exist are named.
        """
        return repr(pathway)

    def find_tasks(self, keys: Collection[str]) -> dict[str, Task]:
        """Returns the tasks of these keys whose media can still be had, by key."""
        return {task.key: task for task in self.tasks() if task.key in keys}

    # Where labels go, and what earlier runs stored. None of these needs `prepare`.

    def ontology(self) -> Ontology | None:
        """Returns what may be labelled; None: the config names a file, or it is made from the model's classes."""
        return None

    def row_sink(self, label_map: LabelMap, options: RowOptions) -> RowSink:
        """Returns where label rows are, of a source that keeps them."""
        raise NotImplementedError

    def owns(self, key: str, title: str) -> bool:
        """Tells whether a task that a run stored in the output folder is of this source."""
        return True

    def stored(self, tasks: Sequence[StoredTask], skipped: Sequence[SkippedTask], warnings: Sequence[str]) -> Source:
        """Returns a source of tasks that earlier runs stored, to label them again; none of its tasks moves."""
        return StoredSource(tasks, skipped, warnings)


class BareSource(Source):
    """A source of a user that has the three methods alone."""

    def __init__(self, wrapped: TaskSource) -> None:
        self._wrapped = wrapped

    def tasks(self) -> Iterator[Task]:
        """Yields the wrapped source's tasks."""
        yield from self._wrapped.tasks()

    def proceed(self, task: Task, pathway: str | None) -> None:
        """Hands the task on."""
        self._wrapped.proceed(task, pathway)

    def fail(self, task: Task, reason: str) -> None:
        """Hands the task on."""
        self._wrapped.fail(task, reason)

    def describe(self) -> str:
        """Returns the name of the wrapped class."""
        return type(self._wrapped).__name__


@dataclass(frozen=True, slots=True)
class StoredTask:
    """A task whose raw detections an earlier run stored.

    Attributes:
        key: as in that run.
        title: as people call it.
        identity: of the media at that time.
        num_instances: object instances that prelabel wrote last.
    """

    key: str
    title: str
    identity: str
    num_instances: int
    num_frames: None = None

    def open(self) -> AbstractContextManager[Media]:
        """Raises a FetchError: media are not read again."""
        raise unreadable(self.title)


def unreadable(title: str) -> FetchError:
    """Returns the error for a task whose stored detections cannot be read, since its media are not read again."""
    return FetchError(f"{title}: its stored detections cannot be read: `prelabel run CONFIG` detects again")


class StoredSource(Source):
    """Tasks that earlier runs stored. None of them moves."""

    def __init__(self, tasks: Sequence[StoredTask], skipped: Sequence[SkippedTask], warnings: Sequence[str]) -> None:
        self._tasks = tasks
        self.skipped = list(skipped)
        self.warnings = tuple(warnings)

    def tasks(self) -> Iterator[Task]:
        """Yields each task once."""
        yield from self._tasks

    def count(self) -> int:
        """Returns how many there are."""
        return len(self._tasks)
