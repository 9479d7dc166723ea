"""What a run tells while it works: a picture on a terminal, JSON lines elsewhere, or nothing."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import IO, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichBars

Value = str | int | float | bool | None | list[str] | dict[str, int]


class Progress(Protocol):
    """Told from several threads; never blocks the work."""

    def begin(self, title: str, num_frames: int) -> None:
        """A task's frames are about to be looked at."""

    def frames(self, num_frames: int) -> None:
        """So many more frames of the task begun last were looked at."""

    def event(self, name: str, **values: Value) -> None:
        """Something happened that a log should have."""


class NullProgress:
    """Tells nobody."""

    def begin(self, title: str, num_frames: int) -> None:
        """Tells nobody."""

    def frames(self, num_frames: int) -> None:
        """Tells nobody."""

    def event(self, name: str, **values: Value) -> None:
        """Tells nobody."""


class JsonLines:
    """One JSON object a line: every event, and every few seconds how far the task is."""

    def __init__(self, stream: IO[str], seconds_between: float = 5.0) -> None:
        self._stream, self._seconds_between = stream, seconds_between
        self._lock = threading.RLock()  # a signal handler may tell while we tell
        self._title, self._num_frames, self._seen = "", 0, 0
        self._began = self._told = time.monotonic()

    def begin(self, title: str, num_frames: int) -> None:
        """Starts counting the task's frames."""
        self._title, self._num_frames, self._seen = title, num_frames, 0
        self._began = self._told = time.monotonic()
        self.event("task_started", task=title, frames=num_frames)

    def frames(self, num_frames: int) -> None:
        """Counts, and tells now and then."""
        self._seen += num_frames
        now = time.monotonic()
        if now - self._told >= self._seconds_between:
            self._told = now
            rate = self._seen / max(now - self._began, 1e-9)
            self.event(
                "progress",
                task=self._title,
                frames_seen=self._seen,
                frames=self._num_frames,
                frames_per_second=round(rate, 1),
                seconds_left=round((self._num_frames - self._seen) / max(rate, 1e-9), 1),
            )

    def event(self, name: str, **values: Value) -> None:
        """Writes a line."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "event": name, **values}, ensure_ascii=False)
        with self._lock:
            self._stream.write(line + "\n")
            self._stream.flush()


class Bars:
    """A bar for tasks and one for the frames of the task in hand, with frames a second and time left."""

    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        self.console = console
        self._bars = RichBars(*columns, console=console, transient=True)
        self._tasks: TaskID | None = None
        self._frames: TaskID | None = None
        self._began = time.monotonic()

    def __enter__(self) -> Bars:
        self._bars.start()
        self._tasks = self._bars.add_task("tasks", total=None, rate="")
        self._frames = self._bars.add_task("", total=None, rate="", visible=False)
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def begin(self, title: str, num_frames: int) -> None:
        """Starts the frames' bar again."""
        self._began = time.monotonic()
        if self._frames is not None:
            self._bars.reset(self._frames, description=escape(title), total=num_frames, rate="", visible=True)

    def frames(self, num_frames: int) -> None:
        """Moves the frames' bar on."""
        if self._frames is None:
            return
        self._bars.advance(self._frames, num_frames)
        seen = self._bars.tasks[self._frames].completed
        self._bars.update(self._frames, rate=f"{seen / max(time.monotonic() - self._began, 1e-9):.1f} frames/s")

    def event(self, name: str, **values: Value) -> None:
        """Moves the tasks' bar on, and prints what a person should see."""
        if self._tasks is not None and name == "run_started":
            num_tasks = values.get("tasks")
            self._bars.update(self._tasks, total=num_tasks if isinstance(num_tasks, int) else None)
        if name in ("task_done", "task_failed", "task_skipped") and self._tasks is not None:
            self._bars.advance(self._tasks)
        if name == "task_failed":
            told = escape(f"{values['task']}: {values['reason']}")
            self.console.print(f"[red]failed[/] {told}", highlight=False)
        elif name in ("warning", "stopping"):
            self.console.print(f"[yellow]{name}[/] {escape(str(values['message']))}", highlight=False)


@contextmanager
def show_progress() -> Iterator[Progress]:
    """Yields bars if standard output is a terminal, else JSON lines on it."""
    if sys.stdout.isatty():
        with Bars(Console()) as bars:
            yield bars
    else:
        yield JsonLines(sys.stdout)
