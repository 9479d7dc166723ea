"""What a run that watches tells of its passes: each only what those before did not."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from prelabel.progress import Progress, Value

Standing = tuple[str, Value]
"""How a task that was not worked on stands: the event that says so, and the reason."""


class News:
    """Tells one pass after the other of a run.

    That a task was skipped, or left to others, is told once; that a later pass began, when something else is.
    """

    def __init__(self) -> None:
        self._standing: dict[Value, Standing] = {}
        self._is_first = True

    def of_pass(self, told: Progress) -> Progress:
        """Returns what the next pass is told, which tells `told` what is new."""
        is_first, self._is_first = self._is_first, False
        return _NewsOfPass(told, self._standing, starts_at_once=is_first)


class _NewsOfPass:
    """Told from several threads, and by a signal handler while it tells."""

    def __init__(self, told: Progress, standing: dict[Value, Standing], *, starts_at_once: bool) -> None:
        self._told, self._standing, self._starts_at_once = told, standing, starts_at_once
        self._start: Mapping[str, Value] | None = None
        self._old: set[Value] = set()
        self._lock = threading.RLock()

    def begin(self, title: str, num_frames: int, task_id: str = "") -> None:
        """Tells it."""
        self._tell_start()
        self._told.begin(title, num_frames, task_id)

    def frames(self, num_frames: int) -> None:
        """Tells it."""
        self._told.frames(num_frames)

    def waiting(self, stage: str, num_items: int) -> None:
        """Tells it."""
        self._told.waiting(stage, num_items)

    def event(self, name: str, **values: Value) -> None:
        """Tells what is new."""
        with self._lock:
            if name == "run_started" and not self._starts_at_once:
                self._start = {**values, "tasks": None}  # most of them were done before
            elif name == "stopping":
                self._told.event(name, **values)
            elif self._is_new(name, values):
                self._tell_start()
                self._told.event(name, **values)

    def _tell_start(self) -> None:
        with self._lock:
            start, self._start = self._start, None
            if start is not None:
                self._told.event("run_started", **start)

    def _is_new(self, name: str, values: Mapping[str, Value]) -> bool:
        task = values.get("task_id")
        if name == "warning":
            return task not in self._old
        if name == "task_done":
            self._standing[task] = ("task_skipped", None)
        if name not in ("task_skipped", "task_left"):
            return True
        standing = (name, values.get("reason"))
        if self._standing.get(task) == standing:
            self._old.add(task)
            return False
        self._standing[task] = standing
        return True
