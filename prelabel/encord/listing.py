"""The tasks that wait at an agent stage, with what is listed of their label rows."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING
from uuid import UUID

from prelabel.data.frames import Media
from prelabel.encord.client import ROWS_A_REQUEST, EncordProject, EncordTask
from prelabel.errors import AccountError
from prelabel.labels.row.own import KINDS_WITH_FRAMES
from prelabel.plugins.protocols import LeftAlone

if TYPE_CHECKING:
    from encord.objects import LabelRowV2
    from encord.workflow import AgentStage
    from encord.workflow.stages.agent import AgentTask


_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which tasks of a stage are taken up, in which order, and what is to be known of them.

    Attributes:
        kinds: of data; tasks of others are left alone. None: all.
        with_metadata: whether tasks carry the client metadata of their data.
        is_shuffled: whether tasks come in an order of this listing's own, so that several workers begin at different
            ones.
    """

    kinds: Collection[str] | None = KINDS_WITH_FRAMES
    with_metadata: bool = False
    is_shuffled: bool = False


class StageListing:
    """Lists a stage's tasks until nothing new is there."""

    def __init__(
        self,
        project: EncordProject,
        stage: AgentStage,
        wanted: Wanted,
        fetch: Callable[[EncordTask], AbstractContextManager[Media]],
    ) -> None:
        """Lists nothing yet.

        Args:
            project: where the stage is.
            stage: whose tasks.
            wanted: which of them, and how.
            fetch: brings a task's media here.
        """
        self._project, self._stage, self._wanted, self._fetch = project, stage, wanted, fetch
        self._order = Random() if wanted.is_shuffled else None  # seeded by the system: another in each process
        self._left_alone: dict[UUID, LeftAlone] = {}

    @property
    def left_alone(self) -> list[LeftAlone]:
        """Tasks that are not for this tool, each once."""
        return list(self._left_alone.values())

    def tasks(self) -> Iterator[EncordTask]:
        """Yields each task that waits, once, then lists the stage again until nothing new is there.

        The stage is listed whole before its first task is yielded: whether the platform's page tokens stand tasks
        that leave the stage meanwhile is not documented, and with offsets every second page would be skipped.

        Raises:
            AccountError: if the platform does not list the stage, or the rows of its tasks.
        """
        seen: set[UUID] = set()
        while new := self._list_new(seen):
            for start in range(0, len(new), ROWS_A_REQUEST):
                yield from self._with_rows(new[start : start + ROWS_A_REQUEST])

    def _list_new(self, seen: set[UUID]) -> list[AgentTask]:
        """Returns the tasks that wait and are not in `seen`, in the platform's order or shuffled; adds them there."""
        found: dict[UUID, AgentTask] = {}

        def collect() -> None:
            for task in self._stage.get_tasks():
                if task.uuid not in seen:
                    found.setdefault(task.uuid, task)

        try:
            self._project.caller.call(f"stage {self._stage.title!r}: listing its tasks", collect, AccountError)
        except AccountError as error:
            # A list of many pages may break off at each try; what was listed is worked on before the next.
            if not found:
                raise
            _LOG.info("%s; going on with the %d tasks listed so far", error, len(found))
        seen.update(found)
        listed = list(found.values())
        if self._order is not None:
            self._order.shuffle(listed)
        return listed

    def _with_rows(self, waiting: Sequence[AgentTask]) -> Iterator[EncordTask]:
        branches: dict[str, list[str]] = defaultdict(list)
        for task in waiting:
            branches[task.label_branch_name].append(str(task.data_hash))
        rows = {
            (row.data_hash, branch): row for branch, hashes in branches.items() for row in self._rows(hashes, branch)
        }
        for task in waiting:
            made = self._make_task(task, rows.get((str(task.data_hash), task.label_branch_name)))
            if isinstance(made, EncordTask):
                yield made
            else:
                self._left_alone.setdefault(task.uuid, made)

    def _rows(self, data_hashes: Sequence[str], branch: str) -> list[LabelRowV2]:
        doing = f"stage {self._stage.title!r}: listing the label rows of {len(data_hashes)} tasks"
        return self._project.caller.call(
            doing,
            lambda: self._project.label_rows(data_hashes, branch, with_metadata=self._wanted.with_metadata),
            AccountError,
        )

    def _make_task(self, waiting: AgentTask, row: LabelRowV2 | None) -> EncordTask | LeftAlone:
        if row is None:
            return LeftAlone(waiting.data_title, "data without a label row")
        if self._wanted.kinds is not None and row.data_type.value not in self._wanted.kinds:
            return LeftAlone(row.data_title, row.data_type.value.strip("_").lower())
        if row.backing_item_uuid is None:
            return LeftAlone(row.data_title, f"{row.data_type.value} without a storage item")
        return EncordTask(
            key=f"{self._project.project_hash}/{row.data_hash}/{waiting.label_branch_name}",
            title=row.data_title,
            num_frames=row.number_of_frames,
            uuid=waiting.uuid,
            data_hash=row.data_hash,
            branch=waiting.label_branch_name,
            kind=row.data_type.value,
            item_uuid=row.backing_item_uuid,
            stage=self._stage,
            waiting=waiting,
            fetch=self._fetch,
            row=row,
        )
