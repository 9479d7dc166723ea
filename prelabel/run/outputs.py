"""Writes the files about a whole run: coco.json or classifications.csv, the score, previews, report.json."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from prelabel.assembly.assemble import Assembly
from prelabel.errors import PrelabelError
from prelabel.evaluate.coco import score_coco
from prelabel.run.agents.make import make_agent
from prelabel.runtime.files import PREVIEW_SUFFIXES, write_text_atomically
from prelabel.runtime.progress import Progress
from prelabel.runtime.redact import redact
from prelabel.store.report import RunReport, TaskReport

REPORT = "report.json"
"""File name of the report. For several stages, another one is in the folder above their outputs."""


def complete(assembly: Assembly, report: RunReport, progress: Progress, *, page: bool = False) -> RunReport:
    """Writes the files about the whole run and returns the report that lists them.

    If the score or a preview fails, the report has a warning. The report is written even if other files fail. A run
    that had nothing to do keeps the report of the run before.

    Args:
        assembly: components of the run.
        report: report of the run.
        progress: notified of the end of the run.
        page: whether to write the report as an HTML page too.
    """
    outputs: list[Path] = []
    warnings, unwritten = list(report.warnings), list[str]()
    score = None
    agent = make_agent(assembly)
    summary, truth = agent.summary_path, assembly.config.source.truth_file
    if report.tasks and assembly.writes_files and summary is not None:
        with _noted(unwritten, f"{summary}: "):
            agent.write_summary(summary, report)
            outputs.append(summary)
        if not unwritten and truth is not None:
            with _noted(warnings):
                score = score_coco(summary, truth)
    with _noted(warnings):
        outputs += _previews(assembly, report, progress)
    outputs += [path := assembly.output / REPORT, *([assembly.output / "report.html"] if page else [])]
    finished = replace(
        report,
        score=score,
        warnings=tuple(warnings),
        unwritten="".join(unwritten),
        outputs=tuple(map(str, outputs)),
    )
    if _is_empty(report) and path.exists():
        finished = replace(finished, outputs=())
    else:
        finished.write(path)
        if page:
            from prelabel.reports.run_page import write_run_report

            write_run_report(assembly, finished, outputs[-1], progress)
        finished = _publish(assembly, finished, outputs)
    _emit_run_done(progress, finished)
    return finished


def _publish(assembly: Assembly, report: RunReport, outputs: Sequence[Path]) -> RunReport:
    """Uploads the files about the run, if its output is a bucket, and returns the report."""
    unwritten: list[str] = []
    with _noted(unwritten):
        assembly.store.publish(outputs)
    return replace(report, unwritten="; ".join(filter(None, [report.unwritten, *unwritten])))


@contextmanager
def _noted(notes: list[str], where: str = "") -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a user's tracker or the disk may fail; the report is written anyway
        reason = str(error) if isinstance(error, PrelabelError) else f"{type(error).__name__}: {error}"
        notes.append(redact(where + reason))


def _emit_run_done(progress: Progress, report: RunReport) -> None:
    progress.event(
        "run_done",
        done=sum(task.status == "done" for task in report.tasks),
        failed=len(report.failed),
        instances=report.instances,
        frames_per_second=round(report.frames_per_second, 2),
        limit=report.limit,
        score=None if report.score is None else report.score.map_50_95,
        outputs=list(report.outputs),
    )


def write_stages_report(folder: Path, ended: Sequence[tuple[Assembly, RunReport]]) -> Path:
    """Writes the report of a run over several stages, and returns its path. It names each stage's own report.

    Args:
        folder: the folder above the stages' outputs.
        ended: the stages and their reports.
    """
    totals = Counter(task.status for _, report in ended for task in report.tasks)
    stages = {
        assembly.stage: {
            "tasks": dict(Counter(task.status for task in report.tasks)),
            "pathways": report.pathways,
            "instances": report.instances,
            "failed": {task.title: task.reason for task in report.failed},
            "aborted": report.aborted,
            "unwritten": report.unwritten,
            "report": str(assembly.output / REPORT),
        }
        for assembly, report in ended
    }
    path = folder / REPORT
    write_text_atomically(path, json.dumps({"tasks": dict(totals), "stages": stages}, indent=2, ensure_ascii=False))
    return path


def _is_empty(report: RunReport) -> bool:
    return not (report.tasks or report.skipped or report.aborted)


def _previews(assembly: Assembly, report: RunReport, progress: Progress) -> list[Path]:
    """Draws previews for this run's tasks and for finished tasks without one; none after a stop."""
    kind = assembly.config.source.preview_kind
    if kind == "none" or report.stopped:
        return []
    from prelabel.reports.previews import preview_run

    titles = [task.title for task in report.tasks if task.status == "done" or _lacks_preview(assembly, task)]
    return preview_run(assembly, titles, kind, progress) if titles else []


def _lacks_preview(assembly: Assembly, task: TaskReport) -> bool:
    has_preview = any(assembly.store.path(task, suffix).exists() for suffix in PREVIEW_SUFFIXES)
    return task.status == "already done" and not has_preview
