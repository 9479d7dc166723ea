"""Tasks of which nothing is left to do, as the ledger and the files of earlier runs tell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic

from prelabel.plugins.protocols import Task
from prelabel.run.agents.agent import Found, TaskAgent
from prelabel.run.records import TaskRecords
from prelabel.store.report import TaskReport

_LABELLED_OTHERWISE = (
    "of the files are labelled as an earlier config had it, or have changed since: what is written about all leaves "
    "them out until a run has labelled them anew"
)
Stamp = tuple[int, int]
"""Size and time of change of a file."""


@dataclass(frozen=True, slots=True)
class KnownReport:
    """How a finished task stands, for as long as nothing of it changes.

    Attributes:
        report: what is to be told of it.
        fingerprint: under which it was done.
        stamps: of the files that the report names.
    """

    report: TaskReport
    fingerprint: str
    stamps: tuple[Stamp | None, ...]


@dataclass(frozen=True, slots=True)
class WholeReports:
    """How all tasks stand, also those to which a run did not come.

    Attributes:
        reports: a task each.
        notes: what is missing all the same.
    """

    reports: tuple[TaskReport, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FinishedTasks(Generic[Found]):
    """Tells how tasks stand that are done. May be used from several threads.

    Attributes:
        agent: what is done with tasks.
        records: what is known of them.
        known: by task key; a run that looks again and again keeps it, and reads and shapes nothing twice.
    """

    agent: TaskAgent[Found]
    records: TaskRecords
    known: dict[str, KnownReport] = field(default_factory=dict)

    def report(self, task: Task) -> TaskReport | None:
        """Returns how a task stands that is done under the config of today, its labels still there; None of others."""
        entry = self.records.entry_of_today(task)
        if entry is None or entry.step != "done" or not self.agent.holds(task):
            return None
        known = self.known.get(task.key)
        if known is None or known.fingerprint != entry.fingerprint or known.stamps != _stamps(known.report):
            found = self.agent.recall(task, entry.step)
            if found is None:
                return None
            known = self.known[task.key] = self._look(task, found, entry.fingerprint)
        return known.report

    def beside(self, reports: Sequence[TaskReport], tasks: Iterable[Task]) -> WholeReports:
        """Returns the reports of a run with those of finished tasks to which it did not come.

        It was stopped, had a limit, or shares the work: files about all tasks are to hold theirs all the same.

        Args:
            reports: of the run.
            tasks: all that there are.
        """
        ended = {report.key for report in reports if report.status != "skipped"}
        finished: dict[str, TaskReport] = {}
        num_old = 0
        for task in tasks:
            if task.key in ended:
                continue
            report = self.report(task)
            if report is not None:
                finished[task.key] = report
            else:
                num_old += self._was_done_otherwise(task)
        notes = (f"{num_old} {_LABELLED_OTHERWISE}",) if num_old else ()
        return WholeReports((*(report for report in reports if report.key not in finished), *finished.values()), notes)

    def _was_done_otherwise(self, task: Task) -> bool:
        entry = self.records.entry(task)
        return entry is not None and entry.step == "done" and entry.fingerprint != self.agent.fingerprint(task)

    def _look(self, task: Task, found: Found, fingerprint: str) -> KnownReport:
        decision = self.agent.decide(task, found)
        pathway, priority = decision.pathway, decision.priority
        report = replace(decision.report, status="already done", pathway=pathway, priority=priority)
        return KnownReport(report, fingerprint, _stamps(report))


def _stamps(report: TaskReport) -> tuple[Stamp | None, ...]:
    return tuple(_stamp(Path(output)) for output in report.outputs)


def _stamp(path: Path) -> Stamp | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
