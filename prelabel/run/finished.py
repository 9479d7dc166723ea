"""What the ledger says of tasks, and which tasks are finished."""

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
from prelabel.store.labelled import stamp_of
from prelabel.store.ledger import Entry, Ledger, Step
from prelabel.store.report import TaskReport

TaskFilter: TypeAlias = Callable[[Task, Entry | None, str], bool]
"""Tells from a task, its entry in the ledger and its fingerprint of today whether to work on it."""

LONGEST_WAIT_SECONDS = 86_400.0


def every_task(task: Task, entry: Entry | None, fingerprint: str) -> bool:
    """Selects every waiting task, including those that failed before."""
    return True


@dataclass(frozen=True, slots=True)
class RetryBackoff:
    """Selects all tasks, but waits longer after each failure of the same task. For `--watch`.

    A task whose config, model or media have changed is due at once.

    Attributes:
        first_wait: after the first failure; doubled with each further one, up to a day.
        now: returns the time.
    """

    first_wait: timedelta
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def __call__(self, task: Task, entry: Entry | None, fingerprint: str) -> bool:
        """Tells whether to work on the task."""
        if entry is None or entry.step != "failed" or entry.fingerprint != fingerprint:
            return True
        return self.now() >= datetime.fromisoformat(entry.updated_at) + self.wait(entry)

    def wait(self, entry: Entry) -> timedelta:
        """Returns how long the task rests after its last failure: half of the doubled wait, up to all of it."""
        # Seeded by the task, so that the answer is the same whenever it is asked for.
        draw = random.Random(f"{entry.key} {entry.num_failures}").random
        backoff = Backoff(first_seconds=self.first_wait.total_seconds(), max_seconds=LONGEST_WAIT_SECONDS, draw=draw)
        return timedelta(seconds=backoff.seconds(entry.num_failures))


@dataclass(frozen=True, slots=True)
class OnlyFailed:
    """Selects failed tasks.

    Attributes:
        keys: of the tasks to select.
    """

    keys: frozenset[str]

    def __call__(self, task: Task, entry: Entry | None, fingerprint: str) -> bool:
        """Tells whether to work on the task."""
        return entry is not None and task.key in self.keys and entry.step == "failed"


_LABELLED_OTHERWISE = (
    "of the files were labelled under another config, or have changed since: the files about all tasks leave them out "
    "until a run labels them again"
)


@dataclass(frozen=True, slots=True)
class TaskRecords:
    """The ledger as one run uses it.

    Attributes:
        ledger: of the run's folder.
        agent: gives each task's fingerprint.
    """

    ledger: Ledger
    agent: Agent[Any, Any]

    def entry(self, task: Task) -> Entry | None:
        """Returns the entry of a task; None if no run has worked on it."""
        return self.ledger.entry(task.key)

    def current_entry(self, task: Task) -> Entry | None:
        """Returns the entry of a task if it was made under the fingerprint of today."""
        entry = self.entry(task)
        return entry if entry is not None and entry.fingerprint == self.agent.fingerprint(task) else None

    def record(self, task: Task, step: Step, num_instances: int | None = None, reason: str = "") -> None:
        """Writes the entry of a task; an earlier number of instances stays unless a new one is given."""
        entry = Entry(task.key, task.title, step, self.agent.fingerprint(task), num_instances or 0, reason)
        self.ledger.record(entry, keeps_instances=num_instances is None)


@dataclass(frozen=True, slots=True)
class KnownReport:
    """The report of a finished task, valid as long as nothing about the task changes.

    Attributes:
        report: of the task.
        fingerprint: under which it was done.
        stamps: of the files that the report names.
    """

    report: TaskReport
    fingerprint: str
    stamps: tuple[tuple[int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class FinishedTasks:
    """Finds tasks that are complete. May be used from several threads.

    Attributes:
        records: the ledger.
        known: by task key; `--watch` keeps it from pass to pass, and reads no file twice.
    """

    records: TaskRecords
    known: dict[str, KnownReport] = field(default_factory=dict)

    def report(self, task: Task) -> TaskReport | None:
        """Returns the report of a task that is done under today's config with its outputs still there; else None."""
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

        A run may have been stopped or had a limit. Files about all tasks hold the finished ones all the same.

        Args:
            reports: of the run.
            tasks: all that there are.
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
    return tuple(stamp_of(path) if path.exists() else None for path in paths)
