"""Selects tasks by their entries in the ledger, and finds finished tasks."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

from prelabel.plugins.protocols import Task
from prelabel.run.agents.agent import Agent
from prelabel.runtime.backoff import Backoff
from prelabel.store.ledger import Entry, Ledger, Step
from prelabel.store.report import TaskReport

TaskFilter: TypeAlias = Callable[[Task, Entry | None, str], bool]
"""Returns whether to work on a task, given the task, its entry in the ledger and its current fingerprint."""

LONGEST_WAIT_SECONDS = 86_400.0


def every_task(task: Task, entry: Entry | None, fingerprint: str) -> bool:
    """Selects every waiting task, including those that failed before."""
    return True


@dataclass(frozen=True, slots=True)
class RetryBackoff:
    """Selects all tasks, but waits longer after each failure of a task. For `--watch`.

    A task is due at once if its config, model or media have changed.

    Attributes:
        first_wait: wait after the first failure; doubled after each further failure, up to a day.
        now: returns the current time.
    """

    first_wait: timedelta
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def __call__(self, task: Task, entry: Entry | None, fingerprint: str) -> bool:
        """Returns whether to work on the task."""
        if entry is None or entry.step != "failed" or entry.fingerprint != fingerprint:
            return True
        return self.now() >= datetime.fromisoformat(entry.updated_at) + self.wait(entry)

    def wait(self, entry: Entry) -> timedelta:
        """Returns the wait after the task's last failure: a random part of the doubled wait, from half to all of it."""
        # Seeded by the task, so that every call returns the same wait.
        draw = random.Random(f"{entry.key} {entry.num_failures}").random
        backoff = Backoff(first_seconds=self.first_wait.total_seconds(), max_seconds=LONGEST_WAIT_SECONDS, draw=draw)
        return timedelta(seconds=backoff.seconds(entry.num_failures))


@dataclass(frozen=True, slots=True)
class OnlyFailed:
    """Selects failed tasks.

    Attributes:
        keys: keys of the tasks to select.
    """

    keys: frozenset[str]

    def __call__(self, task: Task, entry: Entry | None, fingerprint: str) -> bool:
        """Returns whether to work on the task."""
        return entry is not None and task.key in self.keys and entry.step == "failed"


_LABELLED_OTHERWISE = (
    "of the files were labelled under another config, or have changed since: the files about all tasks leave them out "
    "until a run labels them again"
)


@dataclass(frozen=True, slots=True)
class TaskRecords:
    """Reads and writes the ledger entries of one run.

    Attributes:
        ledger: the ledger in the run's folder.
        agent: computes each task's fingerprint.
    """

    ledger: Ledger
    agent: Agent[Any, Any]

    def entry(self, task: Task) -> Entry | None:
        """Returns the entry of a task; None if no run has worked on it."""
        return self.ledger.entry(task.key)

    def current_entry(self, task: Task) -> Entry | None:
        """Returns the entry of a task if it was written under the current fingerprint; otherwise None."""
        entry = self.entry(task)
        return entry if entry is not None and entry.fingerprint == self.agent.fingerprint(task) else None

    def record(self, task: Task, step: Step, num_instances: int | None = None, reason: str = "") -> None:
        """Writes the entry of a task. Without `num_instances`, the entry keeps its earlier number."""
        entry = Entry(task.key, task.title, step, self.agent.fingerprint(task), num_instances or 0, reason)
        self.ledger.record(entry, keeps_instances=num_instances is None)


@dataclass(frozen=True, slots=True)
class KnownReport:
    """The report of a finished task, valid until the fingerprint or a file changes.

    Attributes:
        report: report of the task.
        fingerprint: fingerprint under which the task was done.
        stamps: stamps of the files that the report names.
    """

    report: TaskReport
    fingerprint: str
    stamps: tuple[tuple[int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class FinishedTasks:
    """Finds tasks that are complete. May be used from several threads.

    Attributes:
        records: the ledger.
        known: reports by task key; `--watch` keeps them between passes, so that no file is read twice.
    """

    records: TaskRecords
    known: dict[str, KnownReport] = field(default_factory=dict)

    def report(self, task: Task) -> TaskReport | None:
        """Returns the report of a finished task; None if its config has changed or its outputs are gone."""
        entry, agent = self.records.current_entry(task), self.records.agent
        if entry is None or entry.step != "done" or not agent.outputs_exist(task):
            return None
        known = self.known.get(task.key)
        if known is None or known.fingerprint != entry.fingerprint or known.stamps != _stamps(known.report):
            found = agent.load_cached(task, entry.step)
            if found is None:
                return None
            report = replace(agent.build_labels(task, found).report, status="already done")
            known = self.known[task.key] = KnownReport(report, entry.fingerprint, _stamps(report))
        return known.report

    def add_to(self, reports: Sequence[TaskReport], tasks: Iterable[Task]) -> tuple[list[TaskReport], list[str]]:
        """Returns the reports of a run and of finished tasks that it did not reach, and warnings.

        A run may have a limit or may be stopped. The files about all tasks still include all finished tasks.

        Args:
            reports: reports of the run.
            tasks: all tasks of the source.
        """
        ended = {report.key for report in reports if report.status != "skipped"}
        finished: dict[str, TaskReport] = {}
        num_old = 0
        for task in tasks:
            if task.key in ended:
                continue
            report = self.report(task)
            if report is not None:
                finished[task.key] = report
            else:
                num_old += self._is_done_otherwise(task)
        warnings = [f"{num_old} {_LABELLED_OTHERWISE}"] if num_old else []
        return [*(report for report in reports if report.key not in finished), *finished.values()], warnings

    def _is_done_otherwise(self, task: Task) -> bool:
        entry = self.records.entry(task)
        return entry is not None and entry.step == "done" and self.records.current_entry(task) is None


def _stamps(report: TaskReport) -> tuple[tuple[int, int] | None, ...]:
    paths = map(Path, report.outputs)
    return tuple(_stamp(path) if path.exists() else None for path in paths)


def _stamp(path: Path) -> tuple[int, int]:
    """Returns a file's size in bytes and modification time in nanoseconds; a new stamp means new content."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns
