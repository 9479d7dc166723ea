"""A worker in this process: runs inference on one task while it fetches the next."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, Generic, TypeVar, cast
from weakref import WeakSet

from prelabel.data.frames import Media
from prelabel.plugins.protocols import TaskFacts
from prelabel.run.agents.agent import Agent
from prelabel.run.work import CachedTask, FetchedTask, Found, InferredTask, TaskResult
from prelabel.runtime.interrupts import StopSignal
from prelabel.runtime.prefetch import map_ahead, prefetch
from prelabel.runtime.progress import Progress, emit_stage_time

Pending = TypeVar("Pending", bound=TaskFacts)


@dataclass(frozen=True, slots=True)
class Worker(Generic[Found, Pending]):
    """Fetches the media of tasks and runs an agent's inference on them.

    Attributes:
        agent: runs the inference.
        fetch: opens a task's media.
        num_fetchers: number of tasks that are fetched at the same time.
        progress: notified of every fetch.
        stop: checked between tasks.
    """

    agent: Agent[Found, Any]
    fetch: Callable[[Pending], AbstractContextManager[Media]]
    num_fetchers: int
    progress: Progress
    stop: StopSignal

    def process(
        self, tasks: Iterable[Pending | CachedTask[Found] | TaskResult]
    ) -> Generator[InferredTask[Found] | TaskResult, None, None]:
        """Yields the result of each task, in order. Results among the input are passed on.

        After a stop request, tasks that are fetched but not started are dropped.

        Args:
            tasks: tasks or results; read on a separate thread, one task ahead.

        Raises:
            Stopped: a second stop request.
        """
        fetched = prefetch(
            self._fetch_all(tasks), max_items=1, name="fetch", tell_waiting=partial(self.progress.waiting, "fetch")
        )
        with closing(fetched):  # without it, the traceback of an error would keep the thread "fetch" alive
            for kind, group in groupby(self._until_stop(fetched), key=type):
                if kind is FetchedTask:
                    yield from self.agent.infer(cast(Iterator[FetchedTask], group))
                else:
                    yield from cast(Iterator[InferredTask[Found] | TaskResult], group)

    def _fetch_all(
        self, tasks: Iterable[Pending | CachedTask[Found] | TaskResult]
    ) -> Iterator[FetchedTask | InferredTask[Found] | TaskResult]:
        opened: WeakSet[ExitStack] = WeakSet()  # weak, so that finished tasks do not stay in memory
        try:
            yield from map_ahead(partial(self._fetch, opened), tasks, num_workers=self.num_fetchers, name="fetch")
        except BaseException:  # only on errors: at the normal end, the agent still has to read the last tasks
            for release in list(opened):
                release.close()
            raise

    def _fetch(
        self, opened: WeakSet[ExitStack], task: Pending | CachedTask[Found] | TaskResult
    ) -> FetchedTask | InferredTask[Found] | TaskResult:
        if isinstance(task, TaskResult):
            return task
        if isinstance(task, CachedTask):
            return task.result
        began = time.perf_counter()
        release = ExitStack()
        opened.add(release)
        try:
            media = release.enter_context(self.fetch(task)) if self.agent.reads_media else Media("none", ())
        except Exception as error:
            return InferredTask.failed(task.key, error)
        seconds = time.perf_counter() - began
        emit_stage_time(self.progress, task.key, task.title, "fetch", seconds, seconds)
        return FetchedTask(task, media, release, seconds)

    def _until_stop(
        self, fetched: Iterable[FetchedTask | InferredTask[Found] | TaskResult]
    ) -> Iterator[FetchedTask | InferredTask[Found] | TaskResult]:
        for item in fetched:
            if isinstance(item, FetchedTask) and self.stop.is_set:
                item.release.close()  # the agent never gets this task, so it cannot close it
            else:
                yield item
