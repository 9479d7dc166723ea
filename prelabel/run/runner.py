"""The run: tasks to videos to labels, stage beside stage, one task's failure its own."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Generic

import prelabel
from prelabel.assembly.assemble import Assembly
from prelabel.config.fingerprints import config_fingerprint
from prelabel.errors import AccountError, OntologyError, OutageError
from prelabel.plugins.protocols import Task
from prelabel.plugins.traits import usage_of, usage_warnings
from prelabel.run.agents.agent import Decision, Found, InferredTask, TaskAgent
from prelabel.run.agents.make import make_agent
from prelabel.run.ahead import InferenceStage
from prelabel.run.finished import FinishedTasks, KnownReport, WholeReports
from prelabel.run.records import (
    LONGEST_WAIT_SECONDS,
    Outcome,
    TaskFilter,
    TaskRecords,
    emit_retry,
    emit_task_end,
    every_task,
    failed_outcome,
)
from prelabel.runtime.backoff import Backoff
from prelabel.runtime.interrupts import Stopped, StopSignal
from prelabel.runtime.progress import Progress, emit_stage_time
from prelabel.store.report import RunReport, TaskReport


def run_tasks(
    assembly: Assembly,
    progress: Progress,
    stop: StopSignal,
    limit: int | None = None,
    *,
    choose: TaskFilter = every_task,
    known: dict[str, KnownReport] | None = None,
) -> RunReport:
    """Runs a config's agent over the tasks that wait, and returns how it went.

    Args:
        assembly: the parts.
        progress: told of all that happens.
        stop: asked between tasks and between batches.
        limit: tasks to work on at most, those done already not counted.
        choose: which of the tasks that wait to take up.
        known: of finished tasks, by task key, from earlier runs in this process; this one adds to it.

    Raises:
        MachineError: another run writes to the same output.
    """
    known = {} if known is None else known
    with assembly.store.hold():
        return Run(assembly, make_agent(assembly, progress, stop), progress, stop, choose, known)(limit)


@dataclass(frozen=True, slots=True)
class Run(Generic[Found]):
    """One pass over the tasks that wait.

    Attributes:
        assembly: the parts.
        agent: what is done with each task.
        progress: told of all that happens.
        stop: asked between tasks and between batches.
        choose: which of the tasks that wait to take up.
        known: of finished tasks, by task key.
        began_at: when the run began.
    """

    assembly: Assembly
    agent: TaskAgent[Found]
    progress: Progress
    stop: StopSignal
    choose: TaskFilter = every_task
    known: dict[str, KnownReport] = field(default_factory=dict)
    began_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def _records(self) -> TaskRecords:
        return TaskRecords(self.assembly.store.ledger, self.agent.fingerprint)

    @property
    def _finished(self) -> FinishedTasks[Found]:
        return FinishedTasks(self.agent, self._records, self.known)

    def __call__(self, limit: int | None = None) -> RunReport:
        """Works on the tasks that wait and returns how it went; at most on `limit`, those done already not counted."""
        began = time.perf_counter()
        self.progress.event(
            "run_started",
            output=str(self.assembly.output),
            model=self.agent.model.name,
            tasks=self._num_tasks(limit),
        )
        counted_before = self._usage()
        reports: list[TaskReport] = []
        failures: dict[str, Outcome] = {}
        stopped, aborted, is_outage = False, "", False
        try:
            for outcome in self._rounds(limit, failures):
                reports.append(outcome.report)
                emit_task_end(self.progress, outcome.report, dry_run=self.assembly.dry_run)
        except Stopped:
            stopped = True
        except (AccountError, OntologyError) as error:  # no other task could succeed
            aborted, is_outage = str(error), isinstance(error, OutageError)
        for outcome in failures.values():  # their next try did not come about
            self._record_failure(outcome)
            reports.append(outcome.report)
            emit_task_end(self.progress, outcome.report, dry_run=self.assembly.dry_run)
        seconds = round(time.perf_counter() - began, 3)
        whole, usage = self._with_finished(reports), _since(counted_before, self._usage())
        source = self.assembly.source
        return RunReport(
            prelabel=prelabel.__version__,
            started_at=self.began_at.isoformat(timespec="seconds"),
            config_sha256=config_fingerprint(self.assembly.config),
            model=asdict(self.agent.model),
            dry_run=self.assembly.dry_run,
            seconds=seconds,
            tasks=whole.reports,
            left_alone=tuple(source.left_alone),
            warnings=(*self.agent.warnings, *usage_warnings(self.agent, usage), *source.warnings, *whole.notes),
            instances_are=self.assembly.config.labels.instances,
            usage=usage,
            stopped=stopped or self.stop.is_set,
            aborted=aborted,
            is_outage=is_outage,
        )

    def _with_finished(self, reports: Sequence[TaskReport]) -> WholeReports:
        """Returns the reports, with those of tasks done before that the run did not come to where files are of all."""
        if not self.assembly.writes_files:
            return WholeReports(tuple(reports))
        return self._finished.beside(reports, self.assembly.source.tasks())

    def _usage(self) -> dict[str, float]:
        """Returns what the agent's model has counted up to now, for other runs, too."""
        return usage_of(self.agent)

    def _num_tasks(self, limit: int | None) -> int | None:
        """Returns how many tasks there will be, None where nobody can say beforehand."""
        return self.assembly.source.count() if limit is None else None

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
                    if outcome.retryable and attempt < attempts:
                        failures[outcome.task.key] = outcome
                        emit_retry(self.progress, outcome.report)
                    else:
                        self._set_aside(outcome)
                        yield outcome
            if not failures or self.stop.is_set:
                return
            tasks, limit = [outcome.task for outcome in failures.values()], None
            self._wait_before(attempt + 1)

    def _wait_before(self, attempt: int) -> None:
        backoff = Backoff(first_seconds=self.assembly.config.retries.wait_seconds, max_seconds=LONGEST_WAIT_SECONDS)
        self.stop.wait(backoff.seconds(attempt - 1))

    def _work_on(self, tasks: Iterable[Task], limit: int | None) -> Generator[Outcome, None, None]:
        """Yields how one try at each task ended."""
        ahead = InferenceStage(
            source=self.assembly.source,
            agent=self.agent,
            records=self._records,
            finished=self._finished,
            progress=self.progress,
            stop=self.stop,
            choose=self.choose,
        )
        with closing(ahead(tasks, limit)) as looked:
            for item in looked:
                yield item if isinstance(item, Outcome) else self._finish(item)

    # On the caller's thread: labels, then the move.

    def _finish(self, item: InferredTask[Found]) -> Outcome:
        began = time.perf_counter()
        task = item.task
        if isinstance(item.found, Exception):
            return failed_outcome(task, item.found)
        try:
            decision = self.agent.decide(task, item.found)
            report = decision.report
            row_bytes = None
            entry = self._records.entry_of_today(task)
            if entry is None or entry.step != "labelled":  # else a run that was cut off before the move saved them
                row_bytes = decision.write()
                if self.assembly.source.moves_tasks:  # else nothing stands between this and `done`
                    self._records.record(task, "labelled", sum(report.instances.values()))
            if not self.assembly.dry_run:
                self._move(task, decision)
        except Exception as error:
            return failed_outcome(task, error)
        self._records.record(task, "done", sum(report.instances.values()), report.partial or "")
        save_seconds = time.perf_counter() - began
        emit_stage_time(self.progress, task.key, task.title, "save", save_seconds, save_seconds)
        seconds = {**item.seconds, "save": save_seconds}
        rounded = {stage: round(value, 3) for stage, value in seconds.items()}
        return Outcome(
            task,
            replace(report, pathway=decision.pathway, priority=decision.priority, seconds=rounded, row_bytes=row_bytes),
        )

    def _move(self, task: Task, decision: Decision) -> None:
        source = self.assembly.source
        if decision.priority is not None:
            source.prioritise(task, decision.priority)
        if not decision.stays:
            source.proceed(task, decision.pathway)

    # What is told and kept.

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


def _since(before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    """Returns what was counted in between: a model may be that of several stages, and of every pass of a watch.

    >>> _since({"requests": 2}, {"requests": 5, "cost": 0.1})
    {'requests': 3, 'cost': 0.1}
    """
    return {name: round(number - before.get(name, 0), 9) for name, number in now.items()}
