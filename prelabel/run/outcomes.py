"""How a try at a task ended, and what of a failure is the task's own."""

from __future__ import annotations

from dataclasses import dataclass

from prelabel.errors import AccountError, OntologyError, PrelabelError, TakenError, TaskError
from prelabel.protocols import Task
from prelabel.redact import redact
from prelabel.report import Status, TaskReport


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


def failed_outcome(task: Task, error: Exception) -> Outcome:
    """Returns a failure that is the task's own; raises what would fail every other task as well."""
    if isinstance(error, AccountError | OntologyError):
        raise error
    # Ours, too: it may quote what a detector or a sink of the user's own raised.
    reason = redact(str(error) if isinstance(error, PrelabelError) else f"{type(error).__name__}: {error}")
    status: Status = "left to others" if isinstance(error, TakenError) else "failed"
    report = TaskReport(title=task.title, key=task.key, status=status, reason=reason)
    return Outcome(task, report, may_pass=not isinstance(error, TaskError) or error.may_pass)
