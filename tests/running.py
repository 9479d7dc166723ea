"""A config's run in this process, as the commands have it run."""

from __future__ import annotations

from prelabel.assembly.assemble import Assembly
from prelabel.run.checks import prepare
from prelabel.run.finished import TaskFilter, every_task
from prelabel.run.outputs import complete
from prelabel.run.runner import run_tasks
from prelabel.runtime.interrupts import StopSignal
from prelabel.runtime.progress import NullProgress, Progress
from prelabel.store.report import RunReport


def run(
    assembly: Assembly,
    *,
    progress: Progress | None = None,
    stop: StopSignal | None = None,
    limit: int | None = None,
    choose: TaskFilter = every_task,
) -> RunReport:
    """Runs over the tasks."""
    return run_tasks(assembly, progress or NullProgress(), stop or StopSignal(), limit, choose=choose)


def run_whole(
    assembly: Assembly, *, stop: StopSignal | None = None, limit: int | None = None, page: bool = False
) -> RunReport:
    """Makes every part, runs, and writes what concerns the whole run."""
    prepare(assembly)
    return complete(assembly, run(assembly, stop=stop, limit=limit), NullProgress(), page=page)
