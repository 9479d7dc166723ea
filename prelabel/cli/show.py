"""Prints tables and lines for people.

`for_people` writes to standard output if it is a terminal, and otherwise to standard error, next to the JSON lines. The
tables of `check`, `doctor` and `status` always go to standard output.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from prelabel.evaluate.result import Evaluation, edit_tables, remarks, threshold_table
from prelabel.reports.render import counted
from prelabel.run.checks import Check
from prelabel.runtime.progress import without_title
from prelabel.store.ledger import Entry
from prelabel.store.report import RunReport, Status

if TYPE_CHECKING:
    from prelabel.cli.doctor import Finding


WIDTH_OF_LOGS = 160


def for_people() -> Console:
    """Returns the console for people: standard output if it is a terminal, or else standard error."""
    stream = sys.stdout if sys.stdout.isatty() else sys.stderr
    return Console(file=stream, highlight=False, soft_wrap=True, width=None if stream.isatty() else WIDTH_OF_LOGS)


def spinner(text: str) -> AbstractContextManager[object]:
    """Returns a context in which a terminal shows what the program is waiting for.

    Without a terminal nothing is shown, so that an error is the only line, even on a slow machine.
    """
    console = for_people()
    # Not `console.is_terminal`: FORCE_COLOR, which Jupyter and CI set, makes that true of files and pipes.
    return console.status(text) if console.file.isatty() else nullcontext()


TITLES_SHOWN = 3
SHOWN_TASK_OUTPUTS = 10
_MARKS = {"ok": "[green]ok[/]", "warn": "[yellow]note[/]", "missing": "[red]missing[/]"}
_STEPS = {"inferred": "[yellow]inferred[/]", "labelled": "[yellow]labelled[/]", "done": "[green]done[/]"}


def show_checks(checks: Sequence[Check]) -> None:
    """Prints the results of the checks before a run."""
    table = _table("", "check", "what is there")
    for check in checks:
        table.add_row("[green]ok[/]" if check.passed else "[red]wrong[/]", check.name, escape(check.detail))
    _tables_console().print(table)


def show_ignored_keys(keys: Sequence[str]) -> None:
    """Prints the changed config keys that have no effect on stored detections."""
    if keys:
        text = "changed since these detections were made, without effect here: `prelabel run` detects again"
        for_people().print(f"[yellow]note[/] {escape(', '.join(keys))}: {text}")


def show_stage(title: str) -> None:
    """Prints the stage whose checks or report follow."""
    for_people().print(f"\n[bold]{escape(title)}[/]")


def show_findings(findings: Sequence[Finding]) -> None:
    """Prints what the machine has, and how to get what it lacks."""
    table = _table("", "part", "what is there")
    for finding in findings:
        mend = f"\n[dim]{escape(finding.mend)}[/]" if finding.mend else ""
        table.add_row(_MARKS[finding.status], finding.name, escape(finding.detail) + mend)
    _tables_console().print(table)
    _tables_console().print(_verdict(findings))


def _verdict(findings: Sequence[Finding]) -> str:
    missing = [finding.name for finding in findings if finding.status == "missing"]
    if missing:
        return f"[red]not ready[/]: nothing runs here without: {escape(', '.join(missing))}"
    notes = sum(finding.status == "warn" for finding in findings)
    kept_out = "; see the notes above for what does not" if notes else ""
    return f"[green]ready[/]: prelabel run --demo works here{kept_out}"


def show_entries(output: Path, entries: Sequence[Entry]) -> None:
    """Prints the step that each task has reached."""
    if not entries:
        for_people().print(escape(f"{output}: a run began here; no task has reached a step yet"))
        return
    table = Table(
        "step", "task", "instances", "when (UTC)", "reason", title=escape(str(output)), title_justify="left", box=None
    )
    for entry in entries:
        step = _STEPS.get(entry.step, "[red]failed[/]")
        when = entry.updated_at[:19].replace("T", " ")
        reason = without_title(entry.title, entry.reason)
        if entry.num_failures > 1:
            reason += f" (failed {entry.num_failures} times)"
        table.add_row(step, escape(entry.title), str(entry.num_instances), when, escape(reason))
    _tables_console().print(table)


def show_report(report: RunReport) -> None:
    """Prints the result of a run: instances by class, score, speed, failures and output files."""
    console = for_people()
    if report.instances or report.score is not None:
        console.print(_class_table(report))
    if len(report.pathways) > 1:
        console.print(_pathway_table(report))
    if summary := "; ".join(_summary(report)):
        console.print(escape(summary))
    for worker in report.workers:
        place = ", ".join(filter(None, (worker.host, worker.device)))
        did = f"{counted(worker.tasks, 'task')}, {counted(worker.frames, 'frame')}"
        console.print(escape(f"{worker.name} ({place}): {did}, busy {worker.busy:.0%} of the time"))
    for task in report.failed:
        console.print(f"[red]failed[/] {escape(task.title)}: {escape(task.short_reason)}")
    skipped = [(task.title, task.short_reason) for task in report.tasks if task.status == "skipped"]
    for title, reason in [*skipped, *((each.title, each.reason) for each in report.skipped)]:
        console.print(f"[yellow]skipped[/] {escape(title)}: {escape(reason)}")
    for warning in report.warnings:
        console.print(f"[yellow]note[/] {escape(warning)}")
    if report.aborted:
        console.print(f"[red]ended early[/] {escape(report.aborted)}")
    if report.unwritten:
        console.print(f"[red]not written[/] {escape(report.unwritten)}")
    if report.dry_run:
        console.print("dry run: nothing was saved or moved on the platform")
    for output in _outputs(report):
        console.print(f"  {escape(output)}")


def _outputs(report: RunReport) -> list[str]:
    """Returns the files of the tasks and of the run.

    It leaves out those of many tasks, since report.json lists them all. Of many previews, it returns only their number
    and the first one.
    """
    written = [output for task in report.tasks for output in task.outputs]
    if len(written) > SHOWN_TASK_OUTPUTS:
        written = []
    previews = [output for output in report.outputs if ".preview." in output]
    if len(previews) <= SHOWN_TASK_OUTPUTS:
        return [*written, *report.outputs]
    others = [output for output in report.outputs if output not in set(previews)]
    return [*written, *others, f"{len(previews):,} previews, the first is {previews[0]}"]


def show_evaluation(evaluation: Evaluation) -> None:
    """Prints how people corrected pre-labels, and which thresholds would have needed fewer corrections."""
    console = for_people()
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
    """Prints paths, one per line."""
    for path in paths:
        for_people().print(escape(str(path)))


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
    """Returns a table of the pathways, with the number of tasks and the first titles of each."""
    table = _table("pathway", "tasks", "first tasks")
    for pathway, num in report.pathways.items():
        titles = [task.title for task in report.tasks if task.status == "done" and task.pathway == pathway]
        more = ", …" if num > TITLES_SHOWN else ""
        table.add_row(escape(pathway), f"{num:,}", escape(", ".join(titles[:TITLES_SHOWN]) + more))
    return table


def _summary(report: RunReport) -> Iterator[str]:
    yield from _task_counts(report)
    if report.num_inferred and report.seconds:
        pace = f"{counted(report.num_inferred, 'frame')} in {report.seconds:.1f} s"
        yield f"{pace}, loading and saving included: {report.frames_per_second:.1f} frames/s; slowest: {report.limit}"
    yield from _label_counts(report)
    used = {name.replace("_", " "): number for name, number in report.usage.items() if number}
    if used:
        yield ", ".join(f"{num:,.4f} {name}" if num % 1 else f"{num:,.0f} {name}" for name, num in used.items())
    if (price := report.price) is not None:
        spent = f"{report.device_hours:.3f} {report.device_noun} at {price.per_hour:,.2f}"
        yield f"cost {report.cost:,.2f} {price.currency}: {spent}"
    if (score := report.score) is not None:
        yield f"mAP {score.map_50_95:.3f} (AP50 {score.map_50:.3f}) against the truth"
    if len(report.pathways) == 1:
        yield f"pathway: '{next(iter(report.pathways))}'"


def _task_counts(report: RunReport) -> Iterator[str]:
    counts = {status: sum(task.status == status for task in report.tasks) for status in get_args(Status)}
    yield from (f"{number} {status}" for status, number in counts.items() if number)
    if report.stopped:
        yield "stopped early: the same command continues"
    elif not report.tasks and not report.aborted:
        yield "no task waits"
    if num_bare := sum(task.status == "done" and task.is_bare for task in report.tasks):
        yield f"{num_bare} without a label"


def _label_counts(report: RunReport) -> Iterator[str]:
    one, many = report.noun
    if report.instances_are == "tracks":
        num_tracks = sum(report.instances.values())
        tracks = f"{counted(num_tracks, 'track')} of {counted(report.num_boxes, one, many)}"
        yield f"{tracks}, {report.num_interpolated:,} of them filled in"
    if (thinning := report.thinning) is not None:
        kept = f"{thinning.num_kept:,} of {counted(thinning.num_found, one, many)} kept"
        yield f"{kept}; mean overlap with the detected boxes {thinning.mean_iou:.3f}, least {thinning.min_iou:.2f}"
    if report.dropped:
        dropped = (f"{number:,} {reason.replace('_', ' ')}" for reason, number in report.dropped.items())
        yield f"detections dropped: {', '.join(dropped)}"


def _table(*headings: str) -> Table:
    """Returns an empty table that wraps long cells."""
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _tables_console() -> Console:
    """Returns a console on standard output, as wide as the terminal, or `WIDTH_OF_LOGS` without one."""
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=WIDTH_OF_LOGS)
