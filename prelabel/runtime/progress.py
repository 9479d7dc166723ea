"""Progress of a run: bars on a terminal, JSON lines elsewhere, or nothing."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import IO, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichBars

Value = str | int | float | bool | None | list[str] | dict[str, int] | dict[str, float]


class Progress(Protocol):
    """Receives the progress of a run, from several threads; must not block."""

    def begin(self, title: str, num_frames: int, task_id: str = "", worker: str = "") -> None:
        """A task is about to be inferred, by a worker if there are several."""

    def frames(self, num_frames: int, worker: str = "") -> None:
        """`num_frames` more frames of the worker's current task were inferred."""

    def waiting(self, stage: str, num_items: int) -> None:
        """`num_items` items are queued after this step."""

    def event(self, name: str, **values: Value) -> None:
        """An event for the log."""


class NullProgress:
    """A `Progress` that ignores everything."""

    def begin(self, title: str, num_frames: int, task_id: str = "", worker: str = "") -> None:
        """Ignored."""

    def frames(self, num_frames: int, worker: str = "") -> None:
        """Ignored."""

    def waiting(self, stage: str, num_items: int) -> None:
        """Ignored."""

    def event(self, name: str, **values: Value) -> None:
        """Ignored."""


class MultiProgress:
    """Forwards progress to several receivers, in order."""

    def __init__(self, *told: Progress) -> None:
        self._told = told

    def begin(self, title: str, num_frames: int, task_id: str = "", worker: str = "") -> None:
        """Forwards to all receivers."""
        for one in self._told:
            one.begin(title, num_frames, task_id, worker)

    def frames(self, num_frames: int, worker: str = "") -> None:
        """Forwards to all receivers."""
        for one in self._told:
            one.frames(num_frames, worker)

    def waiting(self, stage: str, num_items: int) -> None:
        """Forwards to all receivers."""
        for one in self._told:
            one.waiting(stage, num_items)

    def event(self, name: str, **values: Value) -> None:
        """Forwards to all receivers."""
        for one in self._told:
            one.event(name, **values)


def emit_stage_time(
    progress: Progress, task_id: str, title: str, stage: str, busy_seconds: float, wall_seconds: float
) -> None:
    """Reports how long a step worked on a task, and how long ago it began."""
    progress.event(
        "stage_done",
        task=title,
        task_id=task_id,
        stage=stage,
        busy_seconds=round(busy_seconds, 3),
        wall_seconds=round(wall_seconds, 3),
    )


def without_title(title: str, reason: str) -> str:
    """Returns the reason without the task's name at its start, to print after the title.

    >>> without_title("day 1/clip.mp4", "clip.mp4: the file is empty")
    'the file is empty'
    >>> without_title("day 1/clip.mp4", "/data/day 1/clip.mp4: is gone")
    'is gone'
    >>> without_title("clip.mp4", "RuntimeError: out of luck")
    'RuntimeError: out of luck'
    """
    for name in (title, PurePosixPath(title).name):
        before, named, rest = reason.partition(f"{name}: ")
        if named and (not before or (before[0] == before[-1] == "/")):
            return rest
    return reason


@dataclass
class _CurrentTask:
    """The task that a worker infers: how many of its frames are done, and since when."""

    title: str
    task_id: str
    num_frames: int
    seen: int = 0
    began: float = field(default_factory=time.monotonic)
    told: float = field(default_factory=time.monotonic)

    @property
    def rate(self) -> float:
        """Frames per second so far."""
        return self.seen / max(time.monotonic() - self.began, 1e-9)


class JsonLines:
    """Writes JSON lines: every event, and every few seconds the progress of each current task."""

    def __init__(self, stream: IO[str], seconds_between: float = 5.0) -> None:
        self._stream, self._seconds_between = stream, seconds_between
        self._lock = threading.RLock()  # a signal handler can write while this thread holds the lock
        self._current: dict[str, _CurrentTask] = {}  # by worker

    def begin(self, title: str, num_frames: int, task_id: str = "", worker: str = "") -> None:
        """Starts counting the task's frames."""
        self._current[worker] = _CurrentTask(title, task_id, num_frames)
        self.event("task_started", task=title, task_id=task_id, frames=num_frames, **_named(worker))

    def frames(self, num_frames: int, worker: str = "") -> None:
        """Counts frames and writes `progress` every few seconds."""
        current = self._current.get(worker)
        if current is None:
            return
        current.seen += num_frames
        now = time.monotonic()
        if now - current.told >= self._seconds_between:
            current.told = now
            self.event(
                "progress",
                task=current.title,
                task_id=current.task_id,
                frames_seen=current.seen,
                frames=current.num_frames,
                frames_per_second=round(current.rate, 1),
                seconds_left=round((current.num_frames - current.seen) / max(current.rate, 1e-9), 1),
                **_named(worker),
            )

    def waiting(self, stage: str, num_items: int) -> None:
        """Ignored: changes too often for a log."""

    def event(self, name: str, **values: Value) -> None:
        """Writes a line for every event but `stage_done`, whose seconds are in the task's last line."""
        if name == "stage_done":
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "event": name, **values}, ensure_ascii=False)
        with self._lock:
            self._stream.write(line + "\n")
            self._stream.flush()


def _named(worker: str) -> dict[str, str]:
    """Returns the worker's name as a field of an event; nothing if this process is the only worker."""
    return {"worker": worker} if worker else {}


class Bars:
    """Shows a bar for tasks, and for each worker one for the frames of its task, with frames/s and time left."""

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
        self._frames: dict[str, tuple[TaskID, float]] = {}  # by worker: its bar, and when its task began

    def __enter__(self) -> Bars:
        self._bars.start()
        self._tasks = self._bars.add_task("tasks", total=None, rate="")
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def begin(self, title: str, num_frames: int, task_id: str = "", worker: str = "") -> None:
        """Restarts the worker's bar of frames."""
        if self._tasks is None:
            return
        described = escape(f"{worker}: {title}" if worker else title)
        if worker in self._frames:
            bar, _ = self._frames[worker]
            self._bars.reset(bar, description=described, total=num_frames, rate="")
        else:
            bar = self._bars.add_task(described, total=num_frames, rate="")
        self._frames[worker] = bar, time.monotonic()

    def frames(self, num_frames: int, worker: str = "") -> None:
        """Advances the worker's bar of frames."""
        if worker not in self._frames:
            return
        bar, began = self._frames[worker]
        self._bars.advance(bar, num_frames)
        rate = self._bars.tasks[self._bars.task_ids.index(bar)].completed / max(time.monotonic() - began, 1e-9)
        self._bars.update(bar, rate=f"{rate:.1f} frames/s in this task")

    def waiting(self, stage: str, num_items: int) -> None:
        """Ignored."""

    def event(self, name: str, **values: Value) -> None:
        """Advances the bar of tasks, and prints failures and warnings."""
        if self._tasks is not None and name == "run_started":
            num_tasks = values.get("tasks")
            self._bars.update(self._tasks, total=num_tasks if isinstance(num_tasks, int) else None)
        elif name == "drawing":
            for bar, _ in self._frames.values():
                self._bars.remove_task(bar)
            bar = self._bars.add_task(f"drawing {escape(str(values['task']))}", total=None, rate="")
            self._frames = {"": (bar, time.monotonic())}
        if name in ("task_done", "task_failed", "task_skipped") and self._tasks is not None:
            self._bars.advance(self._tasks)
        if name == "task_failed":
            title = str(values["task"])
            told = escape(f"{title}: {without_title(title, str(values['reason']))}")
            self.console.print(f"[red]failed[/] {told}", highlight=False)
        elif name == "stopping":
            self.console.print(f"[yellow]{escape(str(values['message']))}[/]", highlight=False)
        elif name == "warning":
            self.console.print(f"[yellow]warning[/] {escape(str(values['message']))}", highlight=False)


@contextmanager
def show_progress() -> Iterator[Progress]:
    """Yields bars if standard output is a terminal, else JSON lines; other output then goes to standard error."""
    if sys.stdout.isatty():
        with Bars(Console()) as bars:
            yield bars
    else:
        lines = JsonLines(sys.stdout)
        with stdout_to_stderr():
            yield lines


def stdout_to_stderr() -> AbstractContextManager[object]:
    """Returns a context that sends a plug-in's prints to standard error, away from the JSON lines."""
    return nullcontext() if sys.stdout.isatty() else redirect_stdout(sys.stderr)
