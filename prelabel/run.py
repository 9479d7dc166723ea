"""The run: tasks to videos to labels, stage beside stage, one task's failure its own."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from typing import Generic, cast

import prelabel
from prelabel.agents import make_agent
from prelabel.agents.task_agent import Decision, Fetched, Found, Looked, TaskAgent
from prelabel.assemble import Assembly
from prelabel.errors import AccountError, PrelabelError
from prelabel.interrupts import Stopped, StopSignal
from prelabel.ledger import Entry, Ledger, Step
from prelabel.prefetch import map_ahead, prefetch
from prelabel.progress import Progress, tell_stage
from prelabel.protocols import Prioritises, Task
from prelabel.redact import redact
from prelabel.report import RunReport, TaskReport


def run_tasks(
    assembly: Assembly, ledger: Ledger | None, progress: Progress, stop: StopSignal, limit: int | None = None
) -> RunReport:
    """Runs a config's agent over the tasks that wait, and returns how it went.

    Args:
        assembly: the parts.
        ledger: what is done; None in a dry run.
        progress: told of all that happens.
        stop: asked between tasks and between batches.
        limit: tasks to work on at most, those done already not counted.
    """
    return Run(assembly, make_agent(assembly, progress, stop), ledger, progress, stop)(limit)


@dataclass(frozen=True, slots=True)
class Run(Generic[Found]):
    """One pass over the tasks that wait.

    Attributes:
        assembly: the parts.
        agent: what is done with each task.
        ledger: what is done; None in a dry run.
        progress: told of all that happens.
        stop: asked between tasks and between batches.
    """

    assembly: Assembly
    agent: TaskAgent[Found]
    ledger: Ledger | None
    progress: Progress
    stop: StopSignal

    def __call__(self, limit: int | None = None) -> RunReport:
        """Works on the tasks that wait and returns how it went; at most on `limit`, those done already not counted."""
        started_at, began = datetime.now(UTC), time.perf_counter()
        self.progress.event(
            "run_started",
            output=str(self.assembly.output),
            model=self.agent.model.name,
            tasks=self._num_tasks(limit),
        )
        reports: list[TaskReport] = []
        fetched = prefetch(
            self._fetch(limit), max_items=1, name="fetch", tell_waiting=partial(self.progress.waiting, "fetch")
        )
        looked = prefetch(
            self._look(fetched), max_items=1, name="look", tell_waiting=partial(self.progress.waiting, "look")
        )
        stopped, aborted = False, ""
        source = self.assembly.source
        try:
            for item in looked:
                report = item if isinstance(item, TaskReport) else self._finish(item)
                reports.append(report)
                self._tell(report)
        except Stopped:
            stopped = True
        except AccountError as error:  # no other task could succeed
            aborted = str(error)
        finally:
            give_up = getattr(source, "close", None)
            if give_up is not None:  # the thread "fetch" may wait for room on disk, which nobody will give back now
                give_up()
            looked.close()
        return RunReport(
            prelabel=prelabel.__version__,
            started_at=started_at.isoformat(timespec="seconds"),
            config_sha256=self.assembly.config.digest(),
            model=asdict(self.agent.model),
            dry_run=self.assembly.dry_run,
            seconds=round(time.perf_counter() - began, 3),
            tasks=tuple(reports),
            left_alone=tuple(getattr(source, "left_alone", ())),
            warnings=(*self.agent.warnings, *getattr(source, "warnings", ())),
            instances_are=self.assembly.config.labels.instances,
            stopped=stopped or self.stop.is_set,
            aborted=aborted,
        )

    def _num_tasks(self, limit: int | None) -> int | None:
        """Returns how many tasks there will be, None where nobody can say beforehand."""
        count = getattr(self.assembly.source, "count", None)
        if count is None or limit is not None:
            return None
        num: int = count()
        return num

    # Stage 1, on the thread "fetch" and its workers: what has to be brought here is brought here, ahead of its turn.

    def _fetch(self, limit: int | None) -> Iterator[Fetched | Looked[Found] | TaskReport]:
        opened: list[ExitStack] = []
        num_workers = getattr(self.assembly.source, "fetch_workers", 1)
        fetch = partial(self._bring, opened)
        try:
            yield from map_ahead(fetch, self._waiting(limit), num_workers=num_workers, name="fetch")
        except BaseException:  # not at the end of the tasks: those fetched last still wait for their turn then
            for release in opened:
                release.close()
            raise

    def _waiting(self, limit: int | None) -> Iterator[Task | Looked[Found] | TaskReport]:
        num_begun = 0
        for task in self.assembly.source.tasks():
            if self.stop.is_set:
                return
            known = self._known(task)
            yield known if known is not None else task
            num_begun += not isinstance(known, TaskReport)
            if num_begun == limit:
                return

    def _bring(
        self, opened: list[ExitStack], item: Task | Looked[Found] | TaskReport
    ) -> Fetched | Looked[Found] | TaskReport:
        return item if isinstance(item, Looked | TaskReport) else self._open(item, opened)

    def _open(self, task: Task, opened: list[ExitStack]) -> Fetched | Looked[Found]:
        began = time.perf_counter()
        release = ExitStack()
        opened.append(release)
        try:
            media = release.enter_context(task.open())
        except Exception as error:
            return Looked(task, error)
        seconds = time.perf_counter() - began
        tell_stage(self.progress, task, "fetch", seconds, seconds)
        return Fetched(task, media, release, seconds)

    def _known(self, task: Task) -> Looked[Found] | TaskReport | None:
        """Returns what an earlier run has left of this task under the same fingerprint, None if nothing."""
        found = self.agent.recall(task)
        if found is None:
            return None
        if not self._is(task, "done") or not self.agent.holds(task):  # the task came back, or its outputs are gone
            return Looked(task, found)
        decision = self.agent.decide(task, found)
        return replace(decision.report, status="already done", pathway=decision.pathway, priority=decision.priority)

    # Stage 2, on the thread "look".

    def _look(
        self, items: Generator[Fetched | Looked[Found] | TaskReport, None, None]
    ) -> Iterator[Looked[Found] | TaskReport]:
        with closing(items):  # an error's traceback would hold the thread "fetch" alive
            for kind, group in groupby(items, key=type):
                if kind is Fetched:
                    yield from self._look_at(cast(Iterator[Fetched], group))
                else:
                    yield from cast(Iterator[Looked[Found] | TaskReport], group)

    def _look_at(self, fetched: Iterator[Fetched]) -> Iterator[Looked[Found]]:
        for looked in self.agent.look(fetched):
            if not isinstance(looked.found, Exception):
                self._record(looked.task, "inferred")
            yield looked

    # Stage 3, on the caller's thread: labels, then the move.

    def _finish(self, item: Looked[Found]) -> TaskReport:
        began = time.perf_counter()
        task = item.task
        if isinstance(item.found, Exception):
            return self._failed(task, item.found)
        try:
            decision = self.agent.decide(task, item.found)
            report = decision.report
            if not self._is(task, "labelled"):  # saved by an earlier run that was cut off before the task moved
                decision.write()
                self._record(task, "labelled", sum(report.instances.values()))
            if not self.assembly.dry_run:
                self._move(task, decision)
        except Exception as error:
            return self._failed(task, error)
        self._record(task, "done", sum(report.instances.values()), report.partial or "")
        save_seconds = time.perf_counter() - began
        tell_stage(self.progress, task, "save", save_seconds, save_seconds)
        seconds = {**item.seconds, "save": save_seconds}
        return replace(
            report,
            pathway=decision.pathway,
            priority=decision.priority,
            seconds={stage: round(value, 3) for stage, value in seconds.items()},
        )

    def _move(self, task: Task, decision: Decision) -> None:
        source = self.assembly.source
        if decision.priority is not None and isinstance(source, Prioritises):
            source.prioritise(task, decision.priority)
        source.proceed(task, decision.pathway)

    # What is told and kept.

    def _failed(self, task: Task, error: Exception) -> TaskReport:
        """Notes a failure that is the task's own; raises what would fail every other task as well."""
        if isinstance(error, AccountError):
            raise error
        reason = str(error) if isinstance(error, PrelabelError) else redact(f"{type(error).__name__}: {error}")
        self._record(task, "failed", reason=reason)
        if not self.assembly.dry_run:
            self.assembly.source.fail(task, reason)
        return TaskReport(title=task.title, key=task.key, status="failed", reason=reason)

    def _is(self, task: Task, step: Step) -> bool:
        """Tells whether an earlier run came to this very step with these very labels."""
        entry = self.ledger.entry(task.key) if self.ledger is not None else None
        return entry is not None and entry.step == step and entry.fingerprint == self.agent.fingerprint(task)

    def _record(self, task: Task, step: Step, num_instances: int = 0, reason: str = "") -> None:
        if self.ledger is not None:
            fingerprint = self.agent.fingerprint(task)
            self.ledger.record(Entry(task.key, task.title, step, fingerprint, num_instances, reason))

    def _tell(self, report: TaskReport) -> None:
        if report.status == "failed":
            self.progress.event("task_failed", task=report.title, task_id=report.key, reason=report.reason)
            return
        self.progress.event(
            "task_done" if report.status == "done" else "task_skipped",
            task=report.title,
            task_id=report.key,
            frames=report.num_inferred,
            instances=dict(report.instances),
            pathway=report.pathway,
            priority=report.priority,
            dry_run=self.assembly.dry_run,
            seconds=dict(report.seconds),
        )
        if report.partial:
            message = f"{report.title}: labelled in part: {report.partial}"
            self.progress.event("warning", task=report.title, task_id=report.key, message=message)
