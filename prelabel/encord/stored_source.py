"""The source of label rows that earlier runs wrote and nobody has worked on since."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NoReturn
from uuid import UUID

from prelabel.encord.project import ROWS_PER_REQUEST, EncordProject, EncordTask, StoredRow, task_fields
from prelabel.errors import AccountError
from prelabel.plugins.protocols import SkippedTask
from prelabel.store.source import SAVE_WORKERS, Source, StoredTask, unreadable

if TYPE_CHECKING:
    from encord.objects import LabelRowV2


class StoredRowSource(Source):
    """The stored rows at the agent stage, or at an annotation stage right after it, without an assigned user.

    Rows at later stages are left out: there, somebody has reviewed and accepted the labels. This source moves no task.
    """

    save_workers = SAVE_WORKERS

    def __init__(
        self,
        project: EncordProject,
        stage: str,
        stored: Sequence[StoredTask],
        skipped: Sequence[SkippedTask],
        warnings: Sequence[str],
    ) -> None:
        """Calls the platform only later, in `prepare` and `tasks`.

        Args:
            project: the project of the rows.
            stage: title or uuid of the agent stage at which the rows were written.
            stored: tasks whose raw detections are stored.
            skipped: tasks that are skipped for other reasons.
            warnings: what a user should know about the stored tasks.
        """
        self._project, self._stage, self._stored = project, stage, stored
        self.skipped: list[SkippedTask] = list(skipped)
        self.warnings = tuple(warnings)

    def prepare(self) -> None:
        """Checks that the stage exists.

        Raises:
            AccountError: there is no such agent stage; the message names those that exist.
        """
        self._project.agent_stage(self._stage)

    def tasks(self) -> Iterator[StoredRow]:
        """Yields a task for each row that the run may write.

        Raises:
            AccountError: the platform does not list the rows.
        """
        untouched = self._project.untouched_stages(self._project.agent_stage(self._stage))
        for start in range(0, len(self._stored), ROWS_PER_REQUEST):
            some = self._stored[start : start + ROWS_PER_REQUEST]
            doing = f"listing the label rows of {len(some)} tasks"
            rows = self._project.find_rows([task.key for task in some], doing, AccountError)
            for task in some:
                row = rows.get(task.key)
                reason = "no longer in the project" if row is None else _why_not(row, untouched)
                if row is None or reason:
                    self.skipped.append(SkippedTask(task.title, reason))
                else:
                    yield StoredRow(
                        **(task_fields(task.key, row) | {"title": task.title}),
                        fetch=_refuse,
                        find=_refuse,
                        stored_identity=task.identity,
                        num_instances=task.num_instances,
                    )


def _why_not(row: LabelRowV2, untouched: set[UUID]) -> str:
    """Returns why the run may not write a row; empty if it may."""
    node = row.workflow_graph_node
    if node is None or UUID(str(node.uuid)) not in untouched:
        return f"has gone on to {node.title!r}" if node is not None else "is at no stage"
    if row.assigned_user_email:
        return "somebody is assigned to it"
    return "" if row.backing_item_uuid is not None else "without a storage item"


def _refuse(task: EncordTask) -> NoReturn:
    raise unreadable(task.title)
