"""Passes over the stages of a config: one, or again and again until somebody asks to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from prelabel.assembly.assemble import Assembly
from prelabel.run.choose import TaskFilter
from prelabel.run.finished import KnownReport
from prelabel.run.outputs import complete, write_stages_report
from prelabel.run.runner import run_tasks
from prelabel.runtime.files import DRY_RUN
from prelabel.runtime.interrupts import StopSignal, stop_on_signals
from prelabel.runtime.progress import MultiProgress, Progress, Value, show_progress
from prelabel.store.report import RunReport

Standing = tuple[str, Value]
"""How a task that was not worked on stands: the event that says so, and the reason."""


class WatchProgress:
    """Tells one pass after the other of a run.

    That a task was skipped is told once; that a later pass began, when something else is.
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
        if name != "task_skipped":
            return True
        standing = (name, values.get("reason"))
        if self._standing.get(task) == standing:
            self._old.add(task)
            return False
        self._standing[task] = standing
        return True


@dataclass(frozen=True, slots=True)
class _Stage:
    """What the passes over a stage have in common.

    Attributes:
        assembly: the parts.
        news: what was told.
        known: of finished tasks, by task key.
    """

    assembly: Assembly
    news: WatchProgress = field(default_factory=WatchProgress)
    known: dict[str, KnownReport] = field(default_factory=dict)


def run_passes(
    assemblies: Sequence[Assembly],
    stop: StopSignal,
    choose: TaskFilter,
    also: Sequence[Progress],
    *,
    limit: int | None = None,
    rest: Callable[[], bool] | None = None,
    page: bool = False,
) -> Iterator[tuple[Assembly, RunReport]]:
    """Yields a report a stage for the first pass, and for each later one in which something happened there.

    Args:
        assemblies: the parts of each stage.
        stop: asked between tasks and batches.
        choose: which of the waiting tasks to work on.
        also: told of all that happens, besides the terminal.
        limit: tasks to work on at most.
        rest: waits between two passes, and returns whether another is due; None: one pass.
        page: whether to write the report as a page too.
    """
    first, left = True, limit
    latest: dict[str, tuple[Assembly, RunReport]] = {}
    with ExitStack() as stack:
        for assembly in assemblies:
            stack.enter_context(assembly.store.hold())
        stages = [_Stage(assembly) for assembly in assemblies]
        while True:
            over, is_news = True, False
            for stage in stages:
                report = _pass(stage, stop, choose=choose, also=also, limit=left, tell=first, page=page)
                left = None if left is None else left - report.num_worked_on
                over = over and bool(report.aborted) and not report.is_outage
                if first or _has_happened(report):
                    latest[stage.assembly.stage], is_news = (stage.assembly, report), True
                    yield stage.assembly, report
                if stop.is_set or left == 0:
                    break
            if len(assemblies) > 1 and is_news:
                write_stages_report(_folder_of_stages(assemblies[0]), list(latest.values()))
            if rest is None or stop.is_set or left == 0 or over or not rest():
                return
            first = False


def _pass(
    stage: _Stage,
    stop: StopSignal,
    *,
    choose: TaskFilter,
    also: Sequence[Progress],
    limit: int | None,
    tell: bool,
    page: bool,
) -> RunReport:
    """Returns how one pass over one stage ended; its outputs are written if something happened, or `tell` says so."""
    with show_progress() as shown, stop_on_signals(stop, lambda text: shown.event("stopping", message=text)):
        progress = stage.news.of_pass(MultiProgress(shown, *also))
        report = run_tasks(stage.assembly, progress, stop, limit, choose=choose, known=stage.known)
        return complete(stage.assembly, report, progress, page=page) if tell or _has_happened(report) else report


def _folder_of_stages(assembly: Assembly) -> Path:
    common = assembly.config.source.output.parent
    return common / DRY_RUN if assembly.dry_run else common


def _has_happened(report: RunReport) -> bool:
    return report.num_worked_on > 0 or bool(report.aborted)
