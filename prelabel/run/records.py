"""What the ledger knows of tasks, and is told of them, under the fingerprints of one agent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from prelabel.ledger import Entry, Ledger, Step
from prelabel.protocols import Task


@dataclass(frozen=True, slots=True)
class TaskRecords:
    """A ledger as one run uses it.

    Attributes:
        ledger: what is done; None in a dry run: nothing is known then, and nothing is kept.
        fingerprint: returns a hash of all that decides what a task's labels will say.
    """

    ledger: Ledger | None
    fingerprint: Callable[[Task], str]

    def entry(self, task: Task) -> Entry | None:
        """Returns where the task stands; None if nothing is known of it."""
        return self.ledger.entry(task.key) if self.ledger is not None else None

    def entry_of_today(self, task: Task) -> Entry | None:
        """Returns where the task stands, if it came there with these very labels."""
        entry = self.entry(task)
        return entry if entry is not None and entry.fingerprint == self.fingerprint(task) else None

    def record(self, task: Task, step: Step, num_instances: int | None = None, reason: str = "") -> None:
        """Writes where a task stands; what stays on its row unless `num_instances` were written now."""
        if self.ledger is not None:
            entry = Entry(task.key, task.title, step, self.fingerprint(task), num_instances or 0, reason)
            self.ledger.record(entry, keeps_instances=num_instances is None)
