"""Which of the tasks that wait a run takes up: every one, those due again, or those set aside."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from prelabel.errors import AccountError, OntologyError, PrelabelError, TakenError, TaskError
from prelabel.plugins.protocols import Task
from prelabel.runtime.backoff import Backoff
from prelabel.runtime.progress import Progress
from prelabel.runtime.redact import redact
from prelabel.store.ledger import Entry, Ledger, Step
from prelabel.store.report import Status, TaskReport


@dataclass(frozen=True, slots=True)
class TaskRecords:
    """A ledger as one run uses it.

    Attributes:
        ledger: what is done.
        fingerprint: returns a hash of all that decides what a task's labels will say.
    """

    ledger: Ledger
    fingerprint: Callable[[Task], str]

    def entry(self, task: Task) -> Entry | None:
        """Returns where the task stands; None if nothing is known of it."""
        return self.ledger.entry(task.key)

    def entry_of_today(self, task: Task) -> Entry | None:
        """Returns where the task stands, if it came there with these very labels."""
        entry = self.entry(task)
        return entry if entry is not None and entry.fingerprint == self.fingerprint(task) else None

    def record(self, task: Task, step: Step, num_instances: int | None = None, reason: str = "") -> None:
        """Writes where a task stands; what stays on its row unless `num_instances` were written now."""
        entry = Entry(task.key, task.title, step, self.fingerprint(task), num_instances or 0, reason)
        self.ledger.record(entry, keeps_instances=num_instances is None)


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
    retryable: bool = False


def failed_outcome(task: Task, error: Exception) -> Outcome:
    """Returns a failure that is the task's own; raises what would fail every other task as well."""
    if isinstance(error, AccountError | OntologyError):
        raise error
    # Ours, too: it may quote what a detector or a sink of the user's own raised.
    reason = redact(str(error) if isinstance(error, PrelabelError) else f"{type(error).__name__}: {error}")
    status: Status = "skipped" if isinstance(error, TakenError) else "failed"
    report = TaskReport(title=task.title, key=task.key, status=status, reason=reason)
    return Outcome(task, report, retryable=not isinstance(error, TaskError) or error.retryable)


def emit_retry(progress: Progress, report: TaskReport) -> None:
    """Tells that a task has failed and will be tried again."""
    progress.event("task_to_retry", task=report.title, task_id=report.key, reason=report.reason)


def emit_task_end(progress: Progress, report: TaskReport, *, dry_run: bool) -> None:
    """Tells how a task ended."""
    if report.status in ("failed", "skipped"):
        name = "task_failed" if report.status == "failed" else "task_skipped"
        progress.event(name, task=report.title, task_id=report.key, reason=report.reason)
        return
    progress.event(
        "task_done" if report.status == "done" else "task_skipped",
        task=report.title,
        task_id=report.key,
        frames=report.num_inferred,
        instances=dict(report.instances),
        pathway=report.pathway,
        priority=report.priority,
        dry_run=dry_run,
        seconds=dict(report.seconds),
    )
    if report.partial:
        message = f"{report.title}: labelled in part: {report.partial}"
        progress.event("warning", task=report.title, task_id=report.key, message=message)


TaskFilter: TypeAlias = Callable[[Task, Entry | None, str], bool]
"""Tells from a task, its entry in the ledger and its fingerprint of today whether to take it up."""

LONGEST_WAIT_SECONDS = 86_400.0


def every_task(task: Task, entry: Entry | None, fingerprint: str) -> bool:
    """Takes up all that waits: somebody who starts a run wants to see what failed before tried again."""
    return True


@dataclass(frozen=True, slots=True)
class RetryBackoff:
    """Leaves a task that was set aside alone for longer each time; takes up all others.

    For runs that look again and again. A change of config, model or media makes it due at once.

    Attributes:
        first_wait: after it was set aside once; doubled with every further time, up to a day.
        now: returns the time.
    """

    first_wait: timedelta
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def __call__(self, task: Task, entry: Entry | None, fingerprint: str) -> bool:
        """Tells whether to take the task up."""
        if entry is None or entry.step != "failed" or entry.fingerprint != fingerprint:
            return True
        return self.now() >= datetime.fromisoformat(entry.updated_at) + self.wait(entry)

    def wait(self, entry: Entry) -> timedelta:
        """Returns how long the task rests after its last failure: from half of the doubled wait to all of it."""
        # Seeded by the task, so that the answer is the same whenever it is asked for.
        draw = random.Random(f"{entry.key} {entry.num_failures}").random
        backoff = Backoff(first_seconds=self.first_wait.total_seconds(), max_seconds=LONGEST_WAIT_SECONDS, draw=draw)
        return timedelta(seconds=backoff.seconds(entry.num_failures))


@dataclass(frozen=True, slots=True)
class OnlyFailed:
    """Takes up the tasks of these keys, whose entries say that they failed.

    Attributes:
        keys: of the tasks.
    """

    keys: frozenset[str]

    def __call__(self, task: Task, entry: Entry | None, fingerprint: str) -> bool:
        """Tells whether to take the task up."""
        return entry is not None and task.key in self.keys and entry.step == "failed"
