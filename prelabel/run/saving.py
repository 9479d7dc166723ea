"""Labels inferred tasks, saves their labels and moves them."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prelabel.assembly.assemble import Assembly
from prelabel.plugins.protocols import Task
from prelabel.run.agents.agent import Agent
from prelabel.run.finished import TaskRecords
from prelabel.run.work import Failure, InferredTask, LabelledTask, TaskResult
from prelabel.runtime.progress import Progress, emit_stage_time
from prelabel.store.report import TaskReport


class RunEndsError(Exception):
    """The run ends, since every other task would fail too."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class Saver:
    """Labels, saves and moves tasks. Several threads may use it, if the source and the sink allow it.

    Attributes:
        assembly: the components of the run.
        agent: labels and saves each task.
        records: the ledger.
        progress: notified of the time that each save takes.
    """

    assembly: Assembly
    agent: Agent[Any, Any]
    records: TaskRecords
    progress: Progress

    def finish(self, task: Task, item: InferredTask[Any]) -> TaskResult:
        """Returns the result of one attempt at a task.

        Raises:
            RunEndsError: every other task would fail too.
        """
        began = time.perf_counter()
        if item.failure is not None:
            return _failed(task, item.failure)
        try:
            labelled = self.agent.build_labels(task, item.found)
            row_bytes = self._save(task, labelled)
            if not self.assembly.dry_run:
                self._move(task, labelled)
        except Exception as error:
            return _failed(task, Failure.of(error))
        report = labelled.report
        self.records.record(task, "done", sum(report.instances.values()), report.partial or "")
        save_seconds = time.perf_counter() - began
        emit_stage_time(self.progress, task.key, task.title, "save", save_seconds, save_seconds)
        busy = {**item.seconds, **report.seconds, "save": save_seconds - sum(report.seconds.values())}
        seconds = {stage: round(value, 3) for stage, value in busy.items()}
        return TaskResult(task, replace(report, seconds=seconds, row_bytes=row_bytes))

    def _save(self, task: Task, labelled: LabelledTask[Any]) -> int | None:
        entry = self.records.current_entry(task)
        if entry is not None and entry.step == "labelled":  # saved by a run that was killed before the move
            return None
        row_bytes = self.agent.save(task, labelled)
        self.assembly.store.publish(map(Path, labelled.report.outputs))
        if self.assembly.source.moves_tasks:  # otherwise the next step, `done`, follows at once
            self.records.record(task, "labelled", sum(labelled.report.instances.values()))
        return row_bytes

    def _move(self, task: Task, labelled: LabelledTask[Any]) -> None:
        source, report = self.assembly.source, labelled.report
        if report.priority is not None:
            source.prioritise(task, report.priority)
        if not labelled.stays:
            source.proceed(task, report.pathway)


def _failed(task: Task, failure: Failure) -> TaskResult:
    if failure.effect in ("run_ends", "outage"):
        raise RunEndsError(failure)
    report = TaskReport(
        title=task.title,
        key=task.key,
        status="skipped" if failure.effect == "skipped" else "failed",
        reason=failure.reason,
    )
    return TaskResult(task, report, failure.retryable)


def emit_task_end(progress: Progress, report: TaskReport, *, dry_run: bool) -> None:
    """Emits the event for the end of a task, and a warning if it was labelled in part."""
    if report.status in ("failed", "skipped"):
        name = "task_failed" if report.status == "failed" else "task_skipped"
        progress.event(name, task=report.title, task_id=report.key, reason=report.reason)
        return
    progress.event(
        "task_done" if report.status == "done" else "task_skipped",
        task=report.title,
        task_id=report.key,
        frames=report.num_inferred,
        instances=dict(report.instances),
        pathway=report.pathway,
        priority=report.priority,
        dry_run=dry_run,
        seconds=dict(report.seconds),
    )
    if report.partial:
        message = f"{report.title}: labelled in part: {report.partial}"
        progress.event("warning", task=report.title, task_id=report.key, message=message)
