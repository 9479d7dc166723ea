"""Passes over the stages of a config: one, or again and again until somebody asks to stop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from prelabel.assembly import Assembly
from prelabel.files import DRY_RUN
from prelabel.interrupts import StopSignal, stop_on_signals
from prelabel.ledger import LEDGER, Ledger
from prelabel.outputs import complete, write_stages_report
from prelabel.progress import Progress, Several, show_progress
from prelabel.report import RunReport
from prelabel.run.choice import Choice
from prelabel.run.finished import KnownReport
from prelabel.run.news import News
from prelabel.run.run import run_tasks


@dataclass(frozen=True, slots=True)
class _Stage:
    """What the passes over a stage have in common.

    Attributes:
        assembly: the parts.
        ledger: what is done; None in a dry run.
        news: what was told.
        known: of finished tasks, by task key.
    """

    assembly: Assembly
    ledger: Ledger | None
    news: News = field(default_factory=News)
    known: dict[str, KnownReport] = field(default_factory=dict)


def run_passes(
    assemblies: Sequence[Assembly],
    stop: StopSignal,
    choose: Choice,
    also: Sequence[Progress],
    *,
    limit: int | None = None,
    watch_seconds: float | None = None,
    page: bool = False,
) -> Iterator[tuple[Assembly, RunReport]]:
    """Yields a report a stage for the first pass, and for each later one in which something happened there."""
    first, left = True, limit
    latest: dict[str, tuple[Assembly, RunReport]] = {}
    with ExitStack() as stack:
        stages = [_Stage(assembly, stack.enter_context(_ledger(assembly))) for assembly in assemblies]
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
            if watch_seconds is None or stop.is_set or left == 0 or over:
                return
            first = False
            stop.wait(watch_seconds)


def _pass(
    stage: _Stage,
    stop: StopSignal,
    *,
    choose: Choice,
    also: Sequence[Progress],
    limit: int | None,
    tell: bool,
    page: bool,
) -> RunReport:
    """Returns how one pass over one stage ended; its outputs are written if something happened, or `tell` says so."""
    with show_progress() as shown, stop_on_signals(stop, lambda text: shown.event("stopping", message=text)):
        progress = stage.news.of_pass(Several(shown, *also))
        report = run_tasks(stage.assembly, stage.ledger, progress, stop, limit, choose=choose, known=stage.known)
        return complete(stage.assembly, report, progress, page=page) if tell or _has_happened(report) else report


def _folder_of_stages(assembly: Assembly) -> Path:
    common = assembly.config.source.output.parent
    return common / DRY_RUN if assembly.dry_run else common


def _has_happened(report: RunReport) -> bool:
    return report.num_worked_on > 0 or bool(report.aborted)


def _ledger(assembly: Assembly) -> AbstractContextManager[Ledger | None]:
    return nullcontext() if assembly.dry_run else Ledger(assembly.output / LEDGER)
