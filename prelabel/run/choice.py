"""Which of the tasks that wait a run takes up: every one, those due again, or those set aside."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from prelabel.ledger import Entry
from prelabel.protocols import Task

Choice: TypeAlias = Callable[[Task, Entry | None, str], bool]
"""Tells from a task, its entry in the ledger and its fingerprint of today whether to take it up."""

LONGEST_WAIT = timedelta(days=1)


def every_task(task: Task, entry: Entry | None, fingerprint: str) -> bool:
    """Takes up all that waits: somebody who starts a run wants to see what failed before tried again."""
    return True


@dataclass(frozen=True, slots=True)
class DueAgain:
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
        doublings = min(entry.num_failures - 1, 20)
        longest = min(self.first_wait * (1 << doublings), LONGEST_WAIT)
        # Drawn by the task, so that the answer is the same whenever it is asked for.
        return longest * (0.5 + 0.5 * random.Random(f"{entry.key} {entry.num_failures}").random())


@dataclass(frozen=True, slots=True)
class SetAside:
    """Takes up the tasks of these keys, whose entries say that they failed.

    Attributes:
        keys: of the tasks.
    """

    keys: frozenset[str]

    def __call__(self, task: Task, entry: Entry | None, fingerprint: str) -> bool:
        """Tells whether to take the task up."""
        return entry is not None and task.key in self.keys and entry.step == "failed"
