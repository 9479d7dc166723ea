"""What progress is told of a task once a try at it has ended."""

from __future__ import annotations

from prelabel.progress import Progress
from prelabel.report import TaskReport


def tell_retry(progress: Progress, report: TaskReport) -> None:
    """Tells that a task has failed and will be tried again."""
    progress.event("task_to_retry", task=report.title, task_id=report.key, reason=report.reason)


def tell_end(progress: Progress, report: TaskReport, *, dry_run: bool) -> None:
    """Tells how a task ended."""
    if report.status in ("failed", "left to others"):
        name = "task_failed" if report.status == "failed" else "task_left"
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
