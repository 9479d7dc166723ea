"""Label rows that earlier runs wrote, where nobody has begun to work on them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from prelabel.encord.client import ROWS_A_REQUEST, EncordProject, EncordRow
from prelabel.errors import AccountError
from prelabel.plugins.protocols import LeftAlone, Task
from prelabel.store.stored_tasks import StoredTask

if TYPE_CHECKING:
    from encord.objects import LabelRowV2


class EncordRowSource:
    """Rows at the agent stage, or at an annotation stage that a pathway of it leads to, that nobody is assigned to.

    Farther on, what stands on a row untouched has been seen and accepted. Tasks are not moved.

    Attributes:
        left_alone: tasks whose rows are elsewhere, gone, or somebody's.
        warnings: what else somebody should know of what is kept.
    """

    def __init__(
        self,
        project: EncordProject,
        stage: str,
        kept: Sequence[StoredTask],
        left_alone: Sequence[LeftAlone],
        warnings: Sequence[str],
    ) -> None:
        """Finds the stage, and where its pathways lead.

        Args:
            project: whose rows.
            stage: title or uuid of the agent stage at which they were written.
            kept: tasks of the project of which boxes are kept.
            left_alone: tasks that are left alone for other reasons.
            warnings: what is to be said.

        Raises:
            AccountError: there is no such agent stage; those that exist are named.
        """
        self._project, self._kept = project, kept
        self._near = project.untouched_stages(project.agent_stage(stage))
        self.left_alone = list(left_alone)
        self.warnings = tuple(warnings)

    def tasks(self) -> Iterator[Task]:
        """Yields a task for each row that may be written.

        Raises:
            AccountError: if the platform does not list the rows.
        """
        by_branch: dict[str, list[StoredTask]] = defaultdict(list)
        for task in self._kept:
            by_branch[task.key.split("/", 2)[2]].append(task)
        for branch, tasks in by_branch.items():
            for start in range(0, len(tasks), ROWS_A_REQUEST):
                yield from self._with_rows(tasks[start : start + ROWS_A_REQUEST], branch)

    def proceed(self, task: Task, pathway: str | None) -> None:
        """Does nothing: a task stays where it is."""

    def fail(self, task: Task, reason: str) -> None:
        """Does nothing: the report has the reason."""

    def _with_rows(self, tasks: Sequence[StoredTask], branch: str) -> Iterator[EncordRow]:
        hashes = [task.key.split("/", 2)[1] for task in tasks]
        doing = f"listing the label rows of {len(tasks)} tasks"
        rows = self._project.caller.call(doing, lambda: self._project.label_rows(hashes, branch), AccountError)
        row_of = {row.data_hash: row for row in rows}
        for task, data_hash in zip(tasks, hashes, strict=True):
            row = row_of.get(data_hash)
            reason = "no longer in the project" if row is None else self._why_not(row)
            if row is None or row.backing_item_uuid is None or reason:
                self.left_alone.append(LeftAlone(task.title, reason or "without a storage item"))
                continue
            yield EncordRow(
                key=task.key,
                title=task.title,
                identity=task.identity,
                num_frames=row.number_of_frames,
                data_hash=data_hash,
                branch=branch,
                item_uuid=row.backing_item_uuid,
                num_instances=task.num_instances,
            )

    def _why_not(self, row: LabelRowV2) -> str:
        node = row.workflow_graph_node
        if node is None or UUID(str(node.uuid)) not in self._near:
            return f"has gone on to {node.title!r}" if node is not None else "is at no stage"
        return "somebody is assigned to it" if row.assigned_user_email else ""
