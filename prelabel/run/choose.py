"""Which of the waiting tasks a run works on: all of them, those whose retry is due, or those that failed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from prelabel.plugins.protocols import Task
from prelabel.runtime.backoff import Backoff
from prelabel.store.ledger import Entry

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
