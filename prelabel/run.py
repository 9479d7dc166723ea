"""The run: tasks to videos to labels, stage beside stage, one task's failure its own."""

from __future__ import annotations

import random
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, closing, nullcontext
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from typing import Generic, cast
from weakref import WeakSet

import prelabel
from prelabel.agents import make_agent
from prelabel.agents.task_agent import Decision, Fetched, Found, Looked, TaskAgent
from prelabel.assemble import Assembly
from prelabel.capabilities import (
    CountsTasks,
    CountsUsage,
    FetchesAhead,
    LeavesAlone,
    Prioritises,
    moves_tasks,
    warnings_of,
)
from prelabel.choice import Choice, every_task
from prelabel.errors import AccountError, BusyError, OntologyError, OutageError, PrelabelError, TakenError, TaskError
from prelabel.frames import Media
from prelabel.interrupts import Stopped, StopSignal
from prelabel.leases import LEASES, Leases
from prelabel.ledger import Ledger
from prelabel.prefetch import map_ahead, prefetch
from prelabel.progress import Progress, tell_stage
from prelabel.protocols import Task
from prelabel.redact import redact
from prelabel.report import RunReport, Status, TaskReport
from prelabel.task_events import tell_end, tell_retry
from prelabel.task_records import TaskRecords


def run_tasks(
    assembly: Assembly,
    ledger: Ledger | None,
    progress: Progress,
    stop: StopSignal,
    limit: int | None = None,
    *,
    choose: Choice = every_task,
) -> RunReport:
    """Runs a config's agent over the tasks that wait, and returns how it went.

    Args:
        assembly: the parts.
        ledger: what is done; None in a dry run.
        progress: told of all that happens.
        stop: asked between tasks and between batches.
        limit: tasks to work on at most, those done already not counted.
        choose: which of the tasks that wait to take up.
    """
    with nullcontext() if ledger is None else Leases(assembly.output / LEASES) as leases:
        return Run(assembly, make_agent(assembly, progress, stop), ledger, leases, progress, stop, choose)(limit)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a try at a task ended.

    Attributes:
        task: which.
        report: what is to be told of it.
        may_pass: it failed, and another try may end otherwise.
    """

    task: Task
    report: TaskReport
    may_pass: bool = False


@dataclass(frozen=True, slots=True)
class Run(Generic[Found]):
    """One pass over the tasks that wait.

    Attributes:
        assembly: the parts.
        agent: what is done with each task.
        ledger: what is done; None in a dry run.
        leases: what is in hand here and elsewhere; None in a dry run.
        progress: told of all that happens.
        stop: asked between tasks and between batches.
        choose: which of the tasks that wait to take up.
        began_at: when the run began.
    """

    assembly: Assembly
    agent: TaskAgent[Found]
    ledger: Ledger | None
    leases: Leases | None
    progress: Progress
    stop: StopSignal
    choose: Choice = every_task
    began_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def _records(self) -> TaskRecords:
        return TaskRecords(self.ledger, self.agent.fingerprint)

    def __call__(self, limit: int | None = None) -> RunReport:
        """Works on the tasks that wait and returns how it went; at most on `limit`, those done already not counted."""
        began = time.perf_counter()
        self.progress.event(
            "run_started",
            output=str(self.assembly.output),
            model=self.agent.model.name,
            tasks=self._num_tasks(limit),
        )
        reports: list[TaskReport] = []
        failures: dict[str, Outcome] = {}
        stopped, aborted, is_outage = False, "", False
        try:
            for outcome in self._rounds(limit, failures):
                reports.append(outcome.report)
                tell_end(self.progress, outcome.report, dry_run=self.assembly.dry_run)
        except Stopped:
            stopped = True
        except (AccountError, OntologyError) as error:  # no other task could succeed
            aborted, is_outage = str(error), isinstance(error, OutageError)
        for outcome in failures.values():  # their next try did not come about
            self._record_failure(outcome)
            reports.append(outcome.report)
            tell_end(self.progress, outcome.report, dry_run=self.assembly.dry_run)
        source = self.assembly.source
        return RunReport(
            prelabel=prelabel.__version__,
            started_at=self.began_at.isoformat(timespec="seconds"),
            config_sha256=self.assembly.config.digest(),
            model=asdict(self.agent.model),
            dry_run=self.assembly.dry_run,
            seconds=round(time.perf_counter() - began, 3),
            tasks=tuple(reports),
            left_alone=tuple(source.left_alone) if isinstance(source, LeavesAlone) else (),
            warnings=(*self.agent.warnings, *warnings_of(source)),
            instances_are=self.assembly.config.labels.instances,
            usage=dict(self.agent.usage) if isinstance(self.agent, CountsUsage) else {},
            stopped=stopped or self.stop.is_set,
            aborted=aborted,
            is_outage=is_outage,
        )

    def _num_tasks(self, limit: int | None) -> int | None:
        """Returns how many tasks there will be, None where nobody can say beforehand."""
        source = self.assembly.source
        return source.count() if limit is None and isinstance(source, CountsTasks) else None

    def _rounds(self, limit: int | None, failures: dict[str, Outcome]) -> Iterator[Outcome]:
        """Yields how each task ended: all that wait, then, again and again, those whose failure may pass.

        Args:
            limit: tasks to work on at most.
            failures: by task key, those that wait for their next try.
        """
        attempts = self.assembly.config.retries.attempts
        tasks: Iterable[Task] = self.assembly.source.tasks()
        for attempt in range(1, attempts + 1):
            with closing(self._work_on(tasks, limit)) as outcomes:
                for outcome in outcomes:
                    failures.pop(outcome.task.key, None)
                    if outcome.may_pass and attempt < attempts:
                        failures[outcome.task.key] = outcome
                        tell_retry(self.progress, outcome.report)
                    else:
                        self._set_aside(outcome)
                        yield outcome
            if not failures or self.stop.is_set:
                return
            tasks, limit = [outcome.task for outcome in failures.values()], None
            self._wait_before(attempt + 1)

    def _wait_before(self, attempt: int) -> None:
        longest = self.assembly.config.retries.wait_seconds * 2 ** (attempt - 2)
        self.stop.wait(longest * (0.5 + 0.5 * random.random()))

    def _work_on(self, tasks: Iterable[Task], limit: int | None) -> Generator[Outcome, None, None]:
        """Yields how one try at each task ended."""
        waiting = self.progress.waiting
        fetch = self._fetch(tasks, limit)
        fetched = prefetch(fetch, max_items=1, name="fetch", tell_waiting=partial(waiting, "fetch"))
        looked = prefetch(self._look(fetched), max_items=1, name="look", tell_waiting=partial(waiting, "look"))
        try:
            for item in looked:
                outcome = item if isinstance(item, Outcome) else self._finish(item)
                yield outcome
                if self.leases is not None:
                    self.leases.give_back(outcome.task.key)
        finally:
            if isinstance(self.assembly.source, FetchesAhead):
                self.assembly.source.close()  # else "fetch" may wait for room on disk, which nobody gives back now
            looked.close()

    # Stage 1, on the thread "fetch" and its workers: what has to be brought here is brought here, ahead of its turn.

    def _fetch(self, tasks: Iterable[Task], limit: int | None) -> Iterator[Fetched | Looked[Found] | Outcome]:
        opened: WeakSet[ExitStack] = WeakSet()
        source = self.assembly.source
        num_workers = source.fetch_workers if isinstance(source, FetchesAhead) else 1
        fetch = partial(self._bring, opened)
        try:
            yield from map_ahead(fetch, self._chosen(tasks, limit), num_workers=num_workers, name="fetch")
        except BaseException:  # not at the end of the tasks: those fetched last still wait for their turn then
            for release in list(opened):
                release.close()
            raise

    def _chosen(self, tasks: Iterable[Task], limit: int | None) -> Iterator[Task | Looked[Found] | Outcome]:
        """Yields the tasks to take up, those with what is known of them of which something is; at most `limit`."""
        num_begun = 0
        for task in tasks:
            if self.stop.is_set:
                return
            if not self.choose(task, self._records.entry(task), self.agent.fingerprint(task)):
                continue
            begun = self._begin(task)
            yield begun
            num_begun += not isinstance(begun, Outcome)
            if num_begun == limit:
                return

    def _begin(self, task: Task) -> Task | Looked[Found] | Outcome:
        if self.leases is not None and not self.leases.take(task.key):
            return self._failed(task, BusyError(f"{task.title}: another worker has it in hand"))
        known = self._known(task)
        return known if known is not None else task

    def _bring(
        self, opened: WeakSet[ExitStack], item: Task | Looked[Found] | Outcome
    ) -> Fetched | Looked[Found] | Outcome:
        return item if isinstance(item, Looked | Outcome) else self._open(item, opened)

    def _open(self, task: Task, opened: WeakSet[ExitStack]) -> Fetched | Looked[Found]:
        began = time.perf_counter()
        release = ExitStack()
        opened.add(release)
        try:
            media = release.enter_context(task.open()) if self.agent.reads_media else Media("none", ())
        except Exception as error:
            return Looked(task, error)
        seconds = time.perf_counter() - began
        tell_stage(self.progress, task, "fetch", seconds, seconds)
        return Fetched(task, media, release, seconds)

    def _known(self, task: Task) -> Looked[Found] | Outcome | None:
        """Returns what an earlier run, or another worker, has left of this task under the same fingerprint."""
        entry = self._records.entry_of_today(task)
        found = self.agent.recall(task, None if entry is None else entry.step)
        if entry is not None and entry.step == "done":
            if found is not None and self.agent.holds(task):
                return self._already_done(task, self.agent.decide(task, found))
            if entry.updated_at >= self.began_at.isoformat(timespec="milliseconds"):
                return self._failed(task, TakenError(f"{task.title}: another worker has done it since this run began"))
        return Looked(task, found) if found is not None else None  # it came back, or its outputs are gone

    def _already_done(self, task: Task, decision: Decision) -> Outcome:
        report = replace(decision.report, status="already done", pathway=decision.pathway, priority=decision.priority)
        return Outcome(task, report)

    # Stage 2, on the thread "look".

    def _look(
        self, items: Generator[Fetched | Looked[Found] | Outcome, None, None]
    ) -> Iterator[Looked[Found] | Outcome]:
        with closing(items):  # an error's traceback would hold the thread "fetch" alive
            for kind, group in groupby(self._in_hand(items), key=type):
                if kind is Fetched:
                    yield from self._look_at(cast(Iterator[Fetched], group))
                else:
                    yield from cast(Iterator[Looked[Found] | Outcome], group)

    def _in_hand(
        self, items: Iterable[Fetched | Looked[Found] | Outcome]
    ) -> Iterator[Fetched | Looked[Found] | Outcome]:
        """Yields what comes; of tasks that nobody has begun to look at, none once somebody has asked to stop."""
        for item in items:
            if isinstance(item, Fetched) and self.stop.is_set:
                item.release.close()
            else:
                yield item

    def _look_at(self, fetched: Iterator[Fetched]) -> Iterator[Looked[Found]]:
        for looked in self.agent.look(fetched):
            if not isinstance(looked.found, Exception):
                self._records.record(looked.task, "inferred")
            yield looked

    # Stage 3, on the caller's thread: labels, then the move.

    def _finish(self, item: Looked[Found]) -> Outcome:
        began = time.perf_counter()
        task = item.task
        if isinstance(item.found, Exception):
            return self._failed(task, item.found)
        try:
            decision = self.agent.decide(task, item.found)
            report = decision.report
            row_bytes = None
            entry = self._records.entry_of_today(task)
            if entry is None or entry.step != "labelled":  # else a run that was cut off before the move saved them
                row_bytes = decision.write()
                if moves_tasks(self.assembly.source):  # else nothing stands between this and `done`
                    self._records.record(task, "labelled", sum(report.instances.values()))
            if not self.assembly.dry_run:
                self._move(task, decision)
        except Exception as error:
            return self._failed(task, error)
        self._records.record(task, "done", sum(report.instances.values()), report.partial or "")
        save_seconds = time.perf_counter() - began
        tell_stage(self.progress, task, "save", save_seconds, save_seconds)
        seconds = {**item.seconds, "save": save_seconds}
        rounded = {stage: round(value, 3) for stage, value in seconds.items()}
        return Outcome(
            task,
            replace(report, pathway=decision.pathway, priority=decision.priority, seconds=rounded, row_bytes=row_bytes),
        )

    def _move(self, task: Task, decision: Decision) -> None:
        source = self.assembly.source
        if decision.priority is not None and isinstance(source, Prioritises):
            source.prioritise(task, decision.priority)
        if not decision.stays:
            source.proceed(task, decision.pathway)

    # What is told and kept.

    def _failed(self, task: Task, error: Exception) -> Outcome:
        """Returns a failure that is the task's own; raises what would fail every other task as well."""
        if isinstance(error, AccountError | OntologyError):
            raise error
        # Ours, too: it may quote what a detector or a sink of the user's own raised.
        reason = redact(str(error) if isinstance(error, PrelabelError) else f"{type(error).__name__}: {error}")
        status: Status = "left to others" if isinstance(error, TakenError) else "failed"
        report = TaskReport(title=task.title, key=task.key, status=status, reason=reason)
        return Outcome(task, report, may_pass=not isinstance(error, TaskError) or error.may_pass)

    def _set_aside(self, outcome: Outcome) -> None:
        """Notes a failure that no further try will mend, and lets the source do what the config says."""
        if outcome.report.status != "failed":
            return
        self._record_failure(outcome)
        if not self.assembly.dry_run:
            self.assembly.source.fail(outcome.task, outcome.report.reason)

    def _record_failure(self, outcome: Outcome) -> None:
        if outcome.report.status == "failed":
            self._records.record(outcome.task, "failed", reason=outcome.report.reason)
