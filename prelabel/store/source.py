"""The base class of a source, and the source of tasks whose raw detections are stored.

A source plug-in is a class with the three methods of `prelabel.TaskSource`. A config names it as
`source: {use: mine.py:Mine, ...}`. prelabel builds it with the section's other keys as keyword arguments. A class that
derives from `Source` can override more methods.
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

SAVE_WORKERS = 16
"""The most tasks that a run saves at the same time, if its source allows several."""


@dataclass(frozen=True, slots=True)
class RowOptions:
    """How a run writes label rows.

    Attributes:
        max_row_bytes: size of the largest row that the run writes.
        skips_begun: whether the run skips rows with labels that prelabel did not write or that somebody has changed.
        model_record: model, weights and config, to save with the labels; a value may be unknown.
    """

    max_row_bytes: int
    skips_begun: bool = False
    model_record: Mapping[str, str | None] | None = None


class RowSink(LabelSink, Protocol):
    """A sink of label rows."""

    def edit(self, task: Task, info: VideoInfo, change: RowChange) -> int:
        """Writes the task's row after a change, and returns its size in bytes; raises the errors of `write`."""

    def expected_row(self, task: Task) -> bytes:
        """Returns the task's row as JSON, as it probably is when the labels are written.

        A worker makes the labels for this row. If the row turns out to be another one, the run makes them.
        """

    def describe(self) -> str:
        """Returns the place to which labels go, in words."""


class Source:
    """The base class of a source; only `tasks` has no default.

    Building a source does no work and cannot fail; `prepare` does the work that can.

    Attributes:
        Section: the keys of `source` in a config. A section with extra keys passes these to the class as options.
        moves_tasks: whether labelled tasks move to another stage; files do not.
        keeps_rows: whether the source stores label rows itself; otherwise they are files in the output folder.
        fetch_workers: number of tasks that may be opened at the same time, each on a thread of its own.
        save_workers: number of tasks that may be saved and moved at the same time, each on a thread of its own.
        skipped: tasks seen so far that are not for this tool.
        warnings: what a user should know although no task failed; may grow during the run.
    """

    Section: ClassVar[type[SourceSection]] = FileLabelsSection
    moves_tasks: bool = True
    keeps_rows: bool = False
    fetch_workers: int = 1
    save_workers: int = 1
    skipped: Sequence[SkippedTask] = ()
    warnings: Sequence[str] = ()

    def prepare(self) -> None:
        """Checks that tasks can be listed, before a run begins.

        Raises:
            SetupError: tasks cannot be listed.
        """

    def tasks(self) -> Iterator[Task]:
        """Yields each task that waits now, once."""
        raise NotImplementedError

    def proceed(self, task: Task, pathway: str | None) -> None:
        """Moves a task whose labels are saved. By default, the task stays.

        Raises:
            SaveError: the task was not moved.
        """

    def fail(self, task: Task, reason: str) -> None:
        """Reports a failed task. By default, only the run's report does so."""

    def prioritise(self, task: Task, priority: float) -> None:
        """Sets the priority of a task, 0 to 1, before it moves. By default, tasks have no priority.

        Raises:
            SaveError: the priority was not set.
        """

    def close(self) -> None:
        """Ends all waiting in `Task.open`, so that the threads that fetch can end. Tasks may be opened again."""

    def count(self) -> int | None:
        """Returns the number of tasks that `tasks` will yield; None if it is not known beforehand."""
        return None

    def describe(self) -> str:
        """Returns what the source offers, in words."""
        return type(self).__name__

    def check_pathway(self, pathway: str | None) -> str:
        """Returns the name of a pathway and where it leads, in words.

        Args:
            pathway: name or uuid.

        Raises:
            AccountError: there is no such pathway; the message names those that exist.
        """
        return repr(pathway)

    def find_tasks(self, keys: Collection[str]) -> dict[str, Task]:
        """Returns the tasks with these keys whose media are still available, by key."""
        return {task.key: task for task in self.tasks() if task.key in keys}

    # The methods below are about the place of labels, and about what earlier runs stored. None of them needs `prepare`.

    def ontology(self) -> Ontology | None:
        """Returns the ontology of the source; None if it has none.

        Without one, the ontology comes from a file that the config names, or is made from the model's classes.
        """
        return None

    def row_sink(self, label_map: LabelMap, options: RowOptions) -> RowSink:
        """Returns the sink for the source's label rows; only for a source with `keeps_rows`."""
        raise NotImplementedError

    def owns(self, key: str, title: str) -> bool:
        """Returns whether a task that a run stored in the output folder belongs to this source."""
        return True

    def stored(self, tasks: Sequence[StoredTask], skipped: Sequence[SkippedTask], warnings: Sequence[str]) -> Source:
        """Returns a source of tasks that earlier runs stored, to label them again; it moves no task."""
        return StoredSource(tasks, skipped, warnings)


class BareSource(Source):
    """Adapts a user's source that has only the three methods of `TaskSource`."""

    def __init__(self, wrapped: TaskSource) -> None:
        self._wrapped = wrapped

    def tasks(self) -> Iterator[Task]:
        """Yields the wrapped source's tasks."""
        yield from self._wrapped.tasks()

    def proceed(self, task: Task, pathway: str | None) -> None:
        """Calls the wrapped source."""
        self._wrapped.proceed(task, pathway)

    def fail(self, task: Task, reason: str) -> None:
        """Calls the wrapped source."""
        self._wrapped.fail(task, reason)

    def describe(self) -> str:
        """Returns the name of the wrapped class."""
        return type(self._wrapped).__name__


@dataclass(frozen=True, slots=True)
class StoredTask:
    """A task whose raw detections an earlier run stored.

    Attributes:
        key: as in that run.
        title: the name to show to people.
        identity: of the media at that time.
        num_instances: number of object instances that prelabel wrote last.
    """

    key: str
    title: str
    identity: str
    num_instances: int
    num_frames: None = None

    def open(self) -> AbstractContextManager[Media]:
        """Raises a `FetchError`, because the media are not read again."""
        raise unreadable(self.title)


def unreadable(title: str) -> FetchError:
    """Returns the error for a task whose stored detections cannot be read."""
    return FetchError(f"{title}: its stored detections cannot be read: `prelabel run CONFIG` detects again")


class StoredSource(Source):
    """A source of tasks that earlier runs stored; it moves no task."""

    save_workers = SAVE_WORKERS

    def __init__(self, tasks: Sequence[StoredTask], skipped: Sequence[SkippedTask], warnings: Sequence[str]) -> None:
        self._tasks = tasks
        self.skipped = list(skipped)
        self.warnings = tuple(warnings)

    def tasks(self) -> Iterator[Task]:
        """Yields each task once."""
        yield from self._tasks

    def count(self) -> int:
        """Returns the number of tasks."""
        return len(self._tasks)
