"""Tables for people: on standard output where that is a terminal, else on standard error beside the JSON lines."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from prelabel.cli.console import WIDTH_OF_LOGS, person
from prelabel.evaluate.result import Evaluation, edit_tables, remarks, threshold_table
from prelabel.run.checks import Check
from prelabel.runtime.progress import reason_beside
from prelabel.store.ledger import Entry
from prelabel.store.report import RunReport, Status

if TYPE_CHECKING:
    from prelabel.cli.doctor import Finding


TITLES_SHOWN = 3
SHOWN_TASK_OUTPUTS = 10
_MARKS = {"ok": "[green]ok[/]", "warn": "[yellow]note[/]", "missing": "[red]missing[/]"}
_STEPS = {"inferred": "[yellow]inferred[/]", "labelled": "[yellow]labelled[/]", "done": "[green]done[/]"}


def show_checks(checks: Sequence[Check]) -> None:
    """Prints what was looked at before a run."""
    table = _table("", "check", "what is there")
    for check in checks:
        table.add_row("[green]ok[/]" if check.passed else "[red]wrong[/]", check.name, escape(check.detail))
    _console().print(table)


def show_idle_keys(keys: Sequence[str]) -> None:
    """Prints which keys have changed nothing of what earlier runs found."""
    if keys:
        then = "not as in the run whose detections these are, and without effect here"
        person().print(f"[yellow]note[/] {escape(', '.join(keys))}: {then}: `prelabel run` looks at the media anew")


def show_stage(title: str) -> None:
    """Prints whose checks or report follow."""
    person().print(f"\n[bold]{escape(title)}[/]")


def show_findings(findings: Sequence[Finding]) -> None:
    """Prints what a machine has, and how to mend what it lacks."""
    table = _table("", "part", "what is there")
    for finding in findings:
        mend = f"\n[dim]{escape(finding.mend)}[/]" if finding.mend else ""
        table.add_row(_MARKS[finding.status], finding.name, escape(finding.detail) + mend)
    _console().print(table)
    _console().print(_verdict(findings))


def _verdict(findings: Sequence[Finding]) -> str:
    missing = [finding.name for finding in findings if finding.status == "missing"]
    if missing:
        return f"[red]not ready[/]: nothing runs here before this is mended: {escape(', '.join(missing))}"
    notes = sum(finding.status == "warn" for finding in findings)
    kept_out = f"; {notes} noted above would not, or not yet" if notes else ""
    return f"[green]ready[/]: prelabel run configs/demo.yaml works here{kept_out}"


def show_entries(output: Path, entries: Sequence[Entry]) -> None:
    """Prints where every task of a ledger stands."""
    if not entries:
        person().print(escape(f"{output}: a run began here, and no task has got anywhere yet"))
        return
    table = Table(
        "step", "task", "instances", "when (UTC)", "reason", title=escape(str(output)), title_justify="left", box=None
    )
    for entry in entries:
        step = _STEPS.get(entry.step, "[red]failed[/]")
        when = entry.updated_at[:19].replace("T", " ")
        reason = reason_beside(entry.title, entry.reason)
        if entry.num_failures > 1:
            reason += f" (failed {entry.num_failures} times)"
        table.add_row(step, escape(entry.title), str(entry.num_instances), when, escape(reason))
    _console().print(table)


def show_report(report: RunReport) -> None:
    """Prints how a run ended: instances by class, the score, the pace, failures, and where everything is."""
    console = person()
    if report.instances or report.score is not None:
        console.print(_class_table(report))
    if len(report.pathways) > 1:
        console.print(_pathway_table(report))
    if summary := _summary(report):
        console.print(escape(summary))
    for task in report.failed:
        console.print(f"[red]failed[/] {escape(task.title)}: {escape(task.reason_beside_title)}")
    for task in report.tasks:
        if task.status == "skipped":
            console.print(f"[yellow]skipped[/] {escape(task.title)}: {escape(task.reason_beside_title)}")
    for skipped in report.skipped:
        console.print(f"[yellow]skipped[/] {escape(skipped.title)}: {escape(skipped.reason)}")
    for warning in report.warnings:
        console.print(f"[yellow]note[/] {escape(warning)}")
    if report.aborted:
        console.print(f"[red]ended early[/] {escape(report.aborted)}")
    if report.unwritten:
        console.print(f"[red]not written[/] {escape(report.unwritten)}")
    if report.dry_run:
        console.print("dry run: nothing was saved or moved on the platform")
    for output in (*_task_outputs(report), *_run_outputs(report)):
        console.print(f"  {escape(output)}")


def _task_outputs(report: RunReport) -> list[str]:
    """Returns the files of each task where these are few; of many tasks report.json names them."""
    written = [output for task in report.tasks for output in task.outputs]
    return written if len(written) <= SHOWN_TASK_OUTPUTS else []


def _run_outputs(report: RunReport) -> list[str]:
    """Returns the files of the whole run, previews among them where these are few."""
    previews = [output for output in report.outputs if ".preview." in output]
    if len(previews) <= SHOWN_TASK_OUTPUTS:
        return list(report.outputs)
    others = [output for output in report.outputs if output not in set(previews)]
    return [*others, f"{len(previews):,} previews, {previews[0]} the first"]


def show_evaluation(evaluation: Evaluation) -> None:
    """Prints what became of pre-labels, and which thresholds would have cost fewer corrections."""
    console = person()
    for table in edit_tables(evaluation):
        console.print(table, "", sep="\n")
    thresholds = threshold_table(evaluation)
    if thresholds is not None:
        console.print(thresholds, "", sep="\n")
    for remark in remarks(evaluation):
        console.print(escape(remark))
    for task in evaluation.skipped:
        console.print(f"[yellow]not compared[/] {escape(task.title)}: {escape(task.reason)}")
    for warning in evaluation.warnings:
        console.print(f"[yellow]note[/] {escape(warning)}")


def show_paths(paths: Sequence[Path]) -> None:
    """Prints files to look at, one a line."""
    for path in paths:
        person().print(escape(str(path)))


def _class_table(report: RunReport) -> Table:
    table = Table("class", box=None, pad_edge=False)
    table.add_column("tracks" if report.instances_are == "tracks" else "instances", justify="right")
    precision: Mapping[str, float] = {}
    if report.score is not None:
        table.add_column("AP", justify="right")
        precision = report.score.by_class
    for name in dict.fromkeys([*report.instances, *precision]):
        measured = [f"{precision[name]:.3f}"] if name in precision else []
        table.add_row(escape(name), f"{report.instances.get(name, 0):,}", *measured)
    return table


def _pathway_table(report: RunReport) -> Table:
    """Returns how many tasks took each pathway, and the titles of the first."""
    table = _table("pathway", "tasks", "the first of them")
    for pathway, num in report.pathways.items():
        titles = [task.title for task in report.tasks if task.status == "done" and task.pathway == pathway]
        more = ", …" if num > TITLES_SHOWN else ""
        table.add_row(escape(pathway), f"{num:,}", escape(", ".join(titles[:TITLES_SHOWN]) + more))
    return table


def _summary(report: RunReport) -> str:
    counts = {status: sum(task.status == status for task in report.tasks) for status in get_args(Status)}
    parts = [f"{number} {status}" for status, number in counts.items() if number]
    if report.stopped:
        parts.append("stopped before all was done: the same command goes on from here")
    elif not parts and not report.aborted:
        parts.append("no task waits")
    if num_bare := sum(
        task.status == "done" and bool(task.num_inferred) and not task.instances for task in report.tasks
    ):
        parts.append(f"{num_bare} without a label")
    if report.num_inferred and report.seconds:
        pace = f"{report.num_inferred:,} frames in {report.seconds:.1f} s: {report.frames_per_second:.1f} frames/s"
        parts.append(f"{pace}, limited by {report.limit}")
    _, many = report.noun
    if report.instances_are == "tracks":
        tracks = f"{sum(report.instances.values()):,} tracks of {report.num_boxes:,} {many}"
        parts.append(f"{tracks}, {report.num_interpolated:,} of them filled in")
    if (thinning := report.thinning) is not None:
        kept = f"{thinning.num_kept:,} of {thinning.num_found:,} {many} kept as keyframes"
        parts.append(f"{kept}, overlap with those found {thinning.mean_iou:.3f} (least {thinning.min_iou:.2f})")
    if report.dropped:
        left_out = (f"{number:,} {reason.replace('_', ' ')}" for reason, number in report.dropped.items())
        parts.append(f"detections left out: {', '.join(left_out)}")
    if report.usage:
        counted = {name.replace("_", " "): number for name, number in report.usage.items() if number}
        parts.append(
            ", ".join(f"{num:,.4f} {name}" if num % 1 else f"{num:,.0f} {name}" for name, num in counted.items())
        )
    if (score := report.score) is not None:
        parts.append(f"mAP {score.map_50_95:.3f} (AP50 {score.map_50:.3f}) against the truth")
    if len(report.pathways) == 1:
        parts.append(f"pathway: '{next(iter(report.pathways))}'")
    return "; ".join(parts)


def _table(*headings: str) -> Table:
    """Returns a table whose cells are shown whole, however long."""
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _console() -> Console:
    """Returns standard output: as wide as the terminal, and wide where it is none."""
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=WIDTH_OF_LOGS)
