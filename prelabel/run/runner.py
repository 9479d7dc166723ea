"""Runs all tasks: infers, labels, saves and moves each one, and retries failed tasks."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import takewhile
from typing import Any

import prelabel
from prelabel.assembly.assemble import Assembly
from prelabel.config.fingerprints import config_fingerprint
from prelabel.data.frames import MediaLocation
from prelabel.errors import AccountError, OntologyError
from prelabel.plugins.protocols import Task
from prelabel.plugins.traits import usage_of, usage_warnings
from prelabel.run.agents.agent import Agent
from prelabel.run.agents.box_labels import Detected
from prelabel.run.agents.make import make_agent
from prelabel.run.finished import LONGEST_WAIT_SECONDS, FinishedTasks, KnownReport, TaskFilter, TaskRecords, every_task
from prelabel.run.saving import RunEndsError, Saver, emit_task_end
from prelabel.run.work import CachedTask, Failure, InferredTask, TaskResult, Work
from prelabel.run.worker import Worker
from prelabel.run.workers import RayWorkers
from prelabel.runtime.backoff import Backoff
from prelabel.runtime.interrupts import Stopped, StopSignal
from prelabel.runtime.prefetch import map_ahead, prefetch
from prelabel.runtime.progress import Progress
from prelabel.store.report import Price, RunReport, TaskReport, count_devices


def run_tasks(
    assembly: Assembly,
    progress: Progress,
    stop: StopSignal,
    limit: int | None = None,
    *,
    choose: TaskFilter = every_task,
    known: dict[str, KnownReport] | None = None,
    workers: RayWorkers | None = None,
) -> RunReport:
    """Runs a config's agent on the waiting tasks and returns the report.

    Args:
        assembly: the components of the run.
        progress: notified of all events.
        stop: checked between tasks and between batches.
        limit: the most tasks to work on; finished tasks do not count.
        choose: selects the waiting tasks to work on.
        known: reports of finished tasks by task key, from earlier passes in this process; this pass adds to it.
        workers: infer the tasks; None: this process does.

    Raises:
        MachineError: another run writes to the same output.
    """
    with assembly.store.hold():
        agent = make_agent(assembly, progress, stop)
        finished = FinishedTasks(TaskRecords(assembly.store.ledger, agent), {} if known is None else known)
        return Run(assembly, agent, finished, progress, stop, choose, workers).report(limit)


@dataclass(frozen=True)
class Run:
    """One pass over the waiting tasks.

    Inference runs ahead on a separate thread. Labels, saves and moves happen on the caller's thread; if workers infer,
    on several threads.

    Attributes:
        assembly: the components of the run.
        agent: infers, labels and saves each task.
        finished: finds finished tasks in the ledger.
        progress: notified of all events.
        stop: checked between tasks and between batches.
        choose: selects the waiting tasks to work on.
        workers: infer the tasks; None: this process does.
    """

    assembly: Assembly
    agent: Agent[Any, Any]
    finished: FinishedTasks
    progress: Progress
    stop: StopSignal
    choose: TaskFilter = every_task
    workers: RayWorkers | None = None
    _tasks: dict[str, Task] = field(default_factory=dict, init=False)  # tasks in flight, by key

    @property
    def _records(self) -> TaskRecords:
        return self.finished.records

    @property
    def _saver(self) -> Saver:
        return Saver(self.assembly, self.agent, self._records, self.progress)

    def report(self, limit: int | None = None) -> RunReport:
        """Works on the waiting tasks, at most `limit` of them, and returns the report."""
        started_at, began, source = datetime.now(UTC), time.perf_counter(), self.assembly.source
        self.progress.event(
            "run_started",
            output=str(self.assembly.output),
            model=self.agent.model.name,
            tasks=source.count() if limit is None else None,
        )
        usage_before = usage_of(self.agent)
        reports: list[TaskReport] = []
        retries: dict[str, TaskResult] = {}
        stopped, ending = False, None
        try:
            for result in self._attempts(limit, retries):
                reports.append(self._ended(result))
        except Stopped:
            stopped = True
        except RunEndsError as error:
            ending = error.failure
        except (AccountError, OntologyError) as error:  # the source could not list its tasks
            ending = Failure.of(error)
        for result in retries.values():  # the run ended before their next attempt
            self._record_failure(result)
            reports.append(self._ended(result))
        seconds = round(time.perf_counter() - began, 3)
        notes: list[str] = []
        if self.assembly.writes_files:
            try:
                reports, notes = self.finished.add_to(reports, source.tasks())
            except AccountError as error:  # a bucket that cannot be listed any more
                notes = [f"the files about all tasks hold only the tasks of this run: {error}"]
        usage = _since(usage_before, usage_of(self.agent))
        config = self.assembly.config
        workers = () if self.workers is None else self.workers.reports()
        return RunReport(
            prelabel=prelabel.__version__,
            started_at=started_at.isoformat(timespec="seconds"),
            config_sha256=config_fingerprint(config),
            model=asdict(self.agent.model),
            dry_run=self.assembly.dry_run,
            seconds=seconds,
            tasks=tuple(reports),
            skipped=tuple(source.skipped),
            warnings=(
                *self.assembly.notes,
                *self.agent.warnings,
                *usage_warnings(self.agent, usage),
                *source.warnings,
                *notes,
            ),
            instances_are=config.labels.instances,
            usage=usage,
            stopped=stopped or self.stop.is_set,
            aborted=ending.reason if ending else "",
            is_outage=ending is not None and ending.effect == "outage",
            shapes=tuple(self.agent.shapes),
            device=self.agent.device,
            workers=workers,
            num_devices=count_devices(workers, 1.0 if config.workers is None else config.workers.gpus),
            price=Price.of(config.report),
        )

    def _ended(self, result: TaskResult) -> TaskReport:
        emit_task_end(self.progress, result.report, dry_run=self.assembly.dry_run)
        return result.report

    # Attempts

    def _attempts(self, limit: int | None, retries: dict[str, TaskResult]) -> Iterator[TaskResult]:
        """Yields the final result of each task. Tasks that failed are retried after all others, if a retry may help.

        Args:
            limit: the most tasks to work on.
            retries: filled with the failures that wait for their next attempt, by task key.
        """
        attempts = self.assembly.config.retries.attempts
        backoff = Backoff(first_seconds=self.assembly.config.retries.wait_seconds, max_seconds=LONGEST_WAIT_SECONDS)
        tasks: Iterable[Task] = self.assembly.source.tasks()
        for attempt in range(1, attempts + 1):
            with closing(self._attempt(tasks, limit)) as results:
                for result in results:
                    retries.pop(result.task.key, None)
                    if result.retryable and attempt < attempts:
                        retries[result.task.key] = result
                        report = result.report
                        self.progress.event(
                            "task_to_retry", task=report.title, task_id=report.key, reason=report.reason
                        )
                    else:
                        self._give_up(result)
                        yield result
            if not retries or self.stop.is_set:
                return
            tasks, limit = [result.task for result in retries.values()], None
            self.stop.wait(backoff.seconds(attempt))

    def _attempt(self, tasks: Iterable[Task], limit: int | None) -> Generator[TaskResult, None, None]:
        """Yields the result of one attempt at each task."""
        source = self.assembly.source
        inferred = prefetch(
            self._store_each(self._infer(self._choose(tasks, limit))),
            max_items=1,
            name="infer",
            tell_waiting=partial(self.progress.waiting, "infer"),
        )
        try:
            yield from self._finish_all(inferred)
        finally:
            source.close()  # a fetch that waits for disk space would never end, since no task frees any now
            inferred.close()
            self._tasks.clear()

    def _infer(
        self, tasks: Iterator[Task | CachedTask[Any] | TaskResult]
    ) -> Generator[InferredTask[Any] | TaskResult, None, None]:
        """Returns the inference results of tasks, from workers if the run has some."""
        if self.workers is not None and not self.agent.stays_because:
            return self.workers.process(tasks, self._work, self.progress, self.stop)
        worker: Worker[Any, Task] = Worker(
            self.agent, lambda task: task.open(), self.assembly.source.fetch_workers, self.progress, self.stop
        )
        return worker.process(tasks)

    def _work(self, item: Task | CachedTask[Detected], stack: ExitStack) -> Work:
        """Returns what a worker gets for a task. The media of a task without `locate` are opened until `stack` closes.

        Raises:
            FetchError: the media cannot be found.
        """
        if isinstance(item, CachedTask):
            row = self.assembly.expected_row(item.task)
            return Work.of(item.task, MediaLocation("none"), row, item.found.raw_file)
        task = item
        locate: Callable[[], MediaLocation] | None = getattr(task, "locate", None)
        if not self.agent.reads_media:
            location = MediaLocation("none")
        elif locate is not None:
            location = locate()
        else:
            media = stack.enter_context(task.open())
            location = MediaLocation(media.kind, tuple(path.absolute() for path in media.paths))
        return Work.of(task, location, self.assembly.expected_row(task))

    def _choose(self, tasks: Iterable[Task], limit: int | None) -> Iterator[Task | CachedTask[Any] | TaskResult]:
        """Yields the tasks to work on, or their cached results. Runs on the thread that fetches."""
        num_begun = 0
        for task in tasks:
            if self.stop.is_set:
                return
            if not self.choose(task, self._records.entry(task), self.agent.fingerprint(task)):
                continue
            report = self.finished.report(task)
            if report is not None:
                yield TaskResult(task, report)
                continue
            self._tasks[task.key] = task
            entry = self._records.current_entry(task)
            found = self.agent.load_cached(task, None if entry is None else entry.step)
            yield task if found is None else CachedTask(task, found)
            num_begun += 1
            if num_begun == limit:
                return

    def _store_each(
        self, results: Generator[InferredTask[Any] | TaskResult, None, None]
    ) -> Iterator[InferredTask[Any] | TaskResult]:
        """Stores each inference result before it is labelled. Runs on the inference thread."""
        with closing(results):
            for item in results:
                if isinstance(item, InferredTask) and item.failure is None and not item.is_cached:
                    try:
                        self.agent.store(self._tasks[item.key], item.found)
                    except Exception as error:  # such as a full disk: a later task may need less space
                        yield InferredTask.failed(item.key, error)
                        continue
                    self._records.record(self._tasks[item.key], "inferred")
                yield item

    # Labels, saves, moves

    def _finish_all(self, inferred: Iterable[InferredTask[Any] | TaskResult]) -> Iterator[TaskResult]:
        """Labels, saves and moves tasks, several of them at a time if workers infer.

        Raises:
            RunEndsError: every other task would fail too. The tasks that are being saved end before.
            Exception: an error of `inferred`; here too, the tasks that are being saved end before.
        """
        endings: list[Exception] = []

        def until_the_end() -> Iterator[InferredTask[Any] | TaskResult]:
            try:
                yield from takewhile(lambda _: not endings, inferred)
            except Exception as error:  # raised below; here it would lose the results that are not taken yet
                endings.append(error)

        with closing(map_ahead(self._finish, until_the_end(), num_workers=self._num_savers, name="save")) as results:
            for result in results:
                if isinstance(result, RunEndsError):
                    endings.append(result)
                else:
                    yield result
        if endings:
            raise endings[0]

    @property
    def _num_savers(self) -> int:
        """The number of tasks to save at a time: the platform may take longer to answer than a worker to infer."""
        config = self.assembly.config
        may_share = config.sink is None and config.refine is None  # a user's sink and a model are for one thread
        if self.workers is None or self.agent.stays_because or not may_share:
            return 1
        return min(self.assembly.source.save_workers, self.workers.num)

    def _finish(self, item: InferredTask[Any] | TaskResult) -> TaskResult | RunEndsError:
        if isinstance(item, TaskResult):
            return item
        try:
            return self._saver.finish(self._tasks.pop(item.key), item)
        except RunEndsError as error:
            return error

    # Failures

    def _give_up(self, result: TaskResult) -> None:
        """Records a failure that this run does not retry, and tells the source, which handles it as configured."""
        self._record_failure(result)
        if result.report.status == "failed" and not self.assembly.dry_run:
            self.assembly.source.fail(result.task, result.report.reason)

    def _record_failure(self, result: TaskResult) -> None:
        if result.report.status == "failed":
            self._records.record(result.task, "failed", reason=result.report.reason)


def _since(before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    """Returns the usage between two counts, since several stages and passes may share one model.

    >>> _since({"requests": 2}, {"requests": 5, "cost": 0.1})
    {'requests': 3, 'cost': 0.1}
    """
    return {name: round(number - before.get(name, 0), 9) for name, number in now.items()}
