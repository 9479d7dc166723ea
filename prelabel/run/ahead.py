"""What runs ahead of the labels, on threads of its own: tasks are fetched, and looked at."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Generic, cast
from weakref import WeakSet

from prelabel.data.frames import Media
from prelabel.plugins.protocols import Task
from prelabel.run.agents.agent import FetchedTask, Found, InferredTask, TaskAgent
from prelabel.run.finished import FinishedTasks
from prelabel.run.records import Outcome, TaskFilter, TaskRecords
from prelabel.runtime.interrupts import StopSignal
from prelabel.runtime.prefetch import map_ahead, prefetch
from prelabel.runtime.progress import Progress, emit_stage_time
from prelabel.sources import Source


@dataclass(frozen=True, slots=True)
class InferenceStage(Generic[Found]):
    """Looks at tasks ahead of who makes labels of what was found.

    Attributes:
        source: where the tasks are from.
        agent: what looks at them.
        records: what is known of tasks, and kept.
        finished: tells of which tasks nothing is left to do.
        progress: told of all that happens.
        stop: asked between tasks; what is fetched, but not looked at by then, is let go.
        choose: which of the tasks that wait to take up.
    """

    source: Source
    agent: TaskAgent[Found]
    records: TaskRecords
    finished: FinishedTasks[Found]
    progress: Progress
    stop: StopSignal
    choose: TaskFilter

    def __call__(
        self, tasks: Iterable[Task], limit: int | None
    ) -> Generator[InferredTask[Found] | Outcome, None, None]:
        """Yields what was found of each task, or how it ended where nothing is left to do; at most of `limit` tasks."""
        waiting = self.progress.waiting
        fetch = self._fetch(tasks, limit)
        fetched = prefetch(fetch, max_items=1, name="fetch", tell_waiting=partial(waiting, "fetch"))
        looked = prefetch(self._look(fetched), max_items=1, name="look", tell_waiting=partial(waiting, "look"))
        try:
            yield from looked
        finally:
            self.source.close()  # else "fetch" may wait for room on disk, which nobody gives back now
            looked.close()

    # On the thread "fetch" and its workers: what has to be brought here is brought here, ahead of its turn.

    def _fetch(self, tasks: Iterable[Task], limit: int | None) -> Iterator[FetchedTask | InferredTask[Found] | Outcome]:
        opened: WeakSet[ExitStack] = WeakSet()
        num_workers = self.source.fetch_workers
        fetch = partial(self._bring, opened)
        try:
            yield from map_ahead(fetch, self._chosen(tasks, limit), num_workers=num_workers, name="fetch")
        except BaseException:  # not at the end of the tasks: those fetched last still wait for their turn then
            for release in list(opened):
                release.close()
            raise

    def _chosen(self, tasks: Iterable[Task], limit: int | None) -> Iterator[Task | InferredTask[Found] | Outcome]:
        """Yields the tasks to take up, those with what is known of them of which something is; at most `limit`."""
        num_begun = 0
        for task in tasks:
            if self.stop.is_set:
                return
            if not self.choose(task, self.records.entry(task), self.agent.fingerprint(task)):
                continue
            begun = self._begin(task)
            yield begun
            num_begun += not isinstance(begun, Outcome)
            if num_begun == limit:
                return

    def _begin(self, task: Task) -> Task | InferredTask[Found] | Outcome:
        finished = self.finished.report(task)
        if finished is not None:
            return Outcome(task, finished)
        entry = self.records.entry_of_today(task)
        found = self.agent.recall(task, None if entry is None else entry.step)
        return InferredTask(task, found) if found is not None else task

    def _bring(
        self, opened: WeakSet[ExitStack], item: Task | InferredTask[Found] | Outcome
    ) -> FetchedTask | InferredTask[Found] | Outcome:
        return item if isinstance(item, InferredTask | Outcome) else self._open(item, opened)

    def _open(self, task: Task, opened: WeakSet[ExitStack]) -> FetchedTask | InferredTask[Found]:
        began = time.perf_counter()
        release = ExitStack()
        opened.add(release)
        try:
            media = release.enter_context(task.open()) if self.agent.reads_media else Media("none", ())
        except Exception as error:
            return InferredTask(task, error)
        seconds = time.perf_counter() - began
        emit_stage_time(self.progress, task.key, task.title, "fetch", seconds, seconds)
        return FetchedTask(task, media, release, seconds)

    # On the thread "look".

    def _look(
        self, items: Generator[FetchedTask | InferredTask[Found] | Outcome, None, None]
    ) -> Iterator[InferredTask[Found] | Outcome]:
        with closing(items):  # an error's traceback would hold the thread "fetch" alive
            for kind, group in groupby(self._in_hand(items), key=type):
                if kind is FetchedTask:
                    yield from self._look_at(cast(Iterator[FetchedTask], group))
                else:
                    yield from cast(Iterator[InferredTask[Found] | Outcome], group)

    def _in_hand(
        self, items: Iterable[FetchedTask | InferredTask[Found] | Outcome]
    ) -> Iterator[FetchedTask | InferredTask[Found] | Outcome]:
        """Yields what comes; of tasks that nobody has begun to look at, none once somebody has asked to stop."""
        for item in items:
            if isinstance(item, FetchedTask) and self.stop.is_set:
                item.release.close()
            else:
                yield item

    def _look_at(self, fetched: Iterator[FetchedTask]) -> Iterator[InferredTask[Found]]:
        for looked in self.agent.look(fetched):
            if not isinstance(looked.found, Exception):
                self.records.record(looked.task, "inferred")
            yield looked
