"""A worker on Ray as the run sees it."""

from __future__ import annotations

import threading
import time
from typing import Any

from prelabel.store.report import WorkerReport

TASKS_PER_WORKER = 2
"""One task is inferred while the next one is fetched."""
MAX_DEATHS = 3
"""A task is not tried again if this many workers have ended while they had it."""
POLL_SECONDS = 0.5
MAX_POLLS_PER_SECOND = 16
"""Workers that are asked for their status in a second, all together."""
LOST_SECONDS = 600.0
"""If no worker has answered for this long, the run ends."""


class WorkerHandle:
    """A worker: whether it answers, how many calls it has, and what it did."""

    def __init__(self, name: str, actor: Any) -> None:
        self.name, self.actor = name, actor
        self.host = self.device = ""
        self.is_up = True
        self.down_since = 0.0
        self.is_alone = False
        self.num_current = self.num_tasks = self.num_frames = 0
        self.usage: dict[str, float] = {}
        self.forwarding = threading.Lock()  # two threads forward events, and events have an order
        self._busy_since, self._busy_seconds = 0.0, 0.0

    def set_down(self) -> None:
        """Keeps tasks away from the worker until it answers a call that is made from now on."""
        self.is_up, self.down_since = False, time.monotonic()

    def begin(self, *, alone: bool) -> None:
        """Counts a call to the worker."""
        if not self.num_current:
            self._busy_since = time.monotonic()
        self.num_current += 1
        self.is_alone = alone

    def end(self, *, alone: bool) -> None:
        """Counts the end of a call."""
        self.num_current -= 1
        self.is_alone = self.is_alone and not alone
        if not self.num_current:
            self._busy_seconds += time.monotonic() - self._busy_since

    def report(self, seconds: float) -> WorkerReport:
        """Returns what the worker did in a run of so many seconds."""
        share = round(min(1.0, self._busy_seconds / seconds), 3) if seconds else 0.0
        return WorkerReport(self.name, self.host, self.device, self.num_tasks, self.num_frames, share)
