"""Runs passes over the stages of a config: one pass, or one after another until a stop is requested."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from prelabel.assembly.assemble import Assembly
from prelabel.run.finished import KnownReport, TaskFilter
from prelabel.run.outputs import complete, write_stages_report
from prelabel.run.runner import run_tasks
from prelabel.run.workers import RayWorkers
from prelabel.runtime.files import DRY_RUN
from prelabel.runtime.interrupts import StopSignal, stop_on_signals
from prelabel.runtime.progress import MultiProgress, NullProgress, Progress, Value, show_progress
from prelabel.store.report import RunReport


class WatchProgress:
    """Passes on only the new events of each pass in `--watch` mode.

    A task that is skipped for the same reason as before is not reported again. A pass after the first one is reported
    only from its first new event on. It is called from several threads, and by a signal handler during another call.
    """

    def __init__(self) -> None:
        self._told: Progress = NullProgress()
        self._reasons: dict[Value, Value] = {}  # why each task was skipped last, by its key
        self._known: set[Value] = set()  # tasks of this pass that are skipped for the same reason as before
        self._num_passes = 0
        self._start: Mapping[str, Value] | None = None  # the start event of this pass, if it is not passed on yet
        self._lock = threading.RLock()  # reentrant, since a signal handler may call in while the thread holds it

    def begin_pass(self, told: Progress) -> None:
        """Starts the next pass, whose events go to `told`."""
        self._told, self._start = told, None
        self._known.clear()
        self._num_passes += 1

    def begin(self, title: str, num_frames: int, task_id: str = "", worker: str = "") -> None:
        """Passes on the start of a task."""
        self._tell_start()
        self._told.begin(title, num_frames, task_id, worker)

    def frames(self, num_frames: int, worker: str = "") -> None:
        """Passes on the number of processed frames."""
        self._told.frames(num_frames, worker)

    def waiting(self, stage: str, num_items: int) -> None:
        """Passes on the length of a queue."""
        self._told.waiting(stage, num_items)

    def event(self, name: str, **values: Value) -> None:
        """Passes on an event if it is new."""
        with self._lock:
            if name == "run_started" and self._num_passes > 1:
                self._start = {**values, "tasks": None}  # most tasks were done in earlier passes
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
        task, reason = values.get("task_id"), values.get("reason")
        if name == "warning":
            return task not in self._known
        if name == "task_done":
            self._reasons[task] = None  # the next pass skips it, without a reason
        if name != "task_skipped":
            return True
        is_new = self._reasons.get(task, "") != reason
        self._reasons[task] = reason
        if not is_new:
            self._known.add(task)
        return is_new


@dataclass(frozen=True, slots=True)
class _Stage:
    """State that all passes over a stage share.

    Attributes:
        assembly: the components of the run.
        workers: infer the stage's tasks; None: this process does.
        progress: notified of each pass.
        known: reports of finished tasks by task key.
    """

    assembly: Assembly
    workers: RayWorkers | None = None
    progress: WatchProgress = field(default_factory=WatchProgress)
    known: dict[str, KnownReport] = field(default_factory=dict)


def run_passes(
    stages: Sequence[tuple[Assembly, RayWorkers | None]],
    stop: StopSignal,
    choose: TaskFilter,
    also: Sequence[Progress],
    *,
    limit: int | None = None,
    rest: Callable[[], bool] | None = None,
    page: bool = False,
) -> Iterator[tuple[Assembly, RunReport]]:
    """Yields each stage's report: of the first pass, and of each later pass that worked on a task.

    Args:
        stages: the components of each stage, and the workers that infer its tasks; None: this process does.
        stop: checked between tasks and batches.
        choose: selects the waiting tasks to work on.
        also: notified of all events, in addition to the terminal.
        limit: the most tasks to work on.
        rest: waits between two passes and returns whether another pass is due; None: one pass.
        page: whether to write the report as an HTML page too.
    """
    first, left = True, limit
    latest: dict[str, tuple[Assembly, RunReport]] = {}
    with ExitStack() as stack:
        for assembly, _ in stages:
            stack.enter_context(assembly.store.hold())
        states = [_Stage(assembly, workers) for assembly, workers in stages]
        while True:
            over, is_news = True, False
            for stage in states:
                report = _pass(stage, stop, choose=choose, also=also, limit=left, tell=first, page=page)
                left = None if left is None else left - report.num_worked_on
                over = over and bool(report.aborted) and not report.is_outage
                if first or _did_something(report):
                    latest[stage.assembly.stage], is_news = (stage.assembly, report), True
                    yield stage.assembly, report
                if stop.is_set or left == 0:
                    break
            if len(stages) > 1 and is_news:
                write_stages_report(_folder_of_stages(stages[0][0]), list(latest.values()))
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
    """Returns the report of one pass over one stage, and writes its outputs if it did something or `tell` is set."""
    with show_progress() as shown, stop_on_signals(stop, lambda text: shown.event("stopping", message=text)):
        stage.progress.begin_pass(MultiProgress(shown, *also))
        report = run_tasks(
            stage.assembly, stage.progress, stop, limit, choose=choose, known=stage.known, workers=stage.workers
        )
        if tell or _did_something(report):
            report = complete(stage.assembly, report, stage.progress, page=page)
        return report


def _folder_of_stages(assembly: Assembly) -> Path:
    common = assembly.config.source.run_folder.parent
    return common / DRY_RUN if assembly.dry_run else common


def _did_something(report: RunReport) -> bool:
    return report.num_worked_on > 0 or bool(report.aborted)
