"""Tasks that wait at an Encord agent stage: listed, fetched, moved on."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING
from uuid import UUID

from prelabel.config import OnFailureSection
from prelabel.encord_api.client import EncordProject
from prelabel.encord_api.labels import labels_as_sent
from prelabel.encord_api.media import MediaFetcher
from prelabel.encord_api.tasks import EncordTask, as_encord_task
from prelabel.errors import AccountError, FetchError, PrelabelError, SaveError
from prelabel.frames import Media
from prelabel.label_row import LabelRow, refuse_begun
from prelabel.protocols import LeftAlone, Task
from prelabel.transfer.disk_cache import DiskCache
from prelabel.transfer.download import Patience

if TYPE_CHECKING:
    from encord.objects import LabelRowV2
    from encord.workflow.stages.agent import AgentPathway, AgentTask

_LOG = logging.getLogger(__name__)

ROWS_A_REQUEST = 100
"""Label rows asked for at once; Encord's own agents found errors above that."""

_COUNTED_AT_MOST = 200
LABELLED_KINDS: tuple[str, ...] = ("video", "image", "img_group")
"""Kinds of data that have frames to look at."""


class EncordSource:
    """An agent stage of a project's workflow.

    Attributes:
        left_alone: tasks of other kinds (audio, PDF, DICOM, …), each once.
        fetch_workers: tasks that may be opened at the same time.
        warnings: what somebody should know of moves that failed no task.
    """

    def __init__(
        self,
        project: EncordProject,
        stage: str,
        cache: Path,
        max_cache_bytes: int,
        patience: Patience | None = None,
        *,
        fetch_workers: int = 1,
        on_failure: OnFailureSection | None = None,
        with_metadata: bool = False,
        kinds: Collection[str] | None = LABELLED_KINDS,
        skips_begun: bool = False,
        is_shuffled: bool = False,
    ) -> None:
        """Finds the stage.

        Args:
            project: where the stage is.
            stage: its title or uuid.
            cache: folder for downloads in use; several processes may share it.
            max_cache_bytes: that downloads in use may take there.
            patience: how long a download may take its time.
            fetch_workers: tasks that may be opened at the same time.
            on_failure: what becomes of tasks that are set aside; default: they stay where they are.
            with_metadata: whether tasks carry the client metadata of their data.
            kinds: of data; tasks of others are left alone. None: all.
            skips_begun: whether opening a task refuses where labels of anybody else stand on its row.
            is_shuffled: whether tasks come in an order of this source's own, so that several workers begin at
                different ones; opening a task refuses, then, where another has moved it on since it was listed.

        Raises:
            AccountError: there is no such agent stage; those that exist are named.
        """
        self._project, self._with_metadata, self._kinds = project, with_metadata, kinds
        self._stage = project.agent_stage(stage)
        self._cache = DiskCache(cache, max_cache_bytes)
        self._cache.sweep()
        self._fetcher = MediaFetcher(project, self._cache, patience or Patience())
        self._skips_begun = skips_begun
        self._order = Random() if is_shuffled else None  # seeded by the system: another in each process
        self._left_alone: dict[UUID, LeftAlone] = {}
        self.fetch_workers = fetch_workers
        self._on_failure = on_failure or OnFailureSection()
        self._issues: set[tuple[str, str]] = set()
        self.warnings: list[str] = []

    @property
    def left_alone(self) -> list[LeftAlone]:
        """Tasks that are not for this tool."""
        return list(self._left_alone.values())

    def check_pathway(self, pathway: str | None) -> None:
        """Returns if the stage has this pathway.

        Raises:
            AccountError: it has none of this name or uuid; those that exist are named.
        """
        self._project.pathway(self._stage, pathway)

    def describe(self) -> str:
        """Returns the project, the stage and how many tasks wait there, in words.

        Raises:
            AccountError: if the platform does not list them.
        """
        doing = f"stage {self._stage.title!r}: counting its tasks"
        waiting = self._project.caller.call(
            doing, lambda: sum(1 for _ in islice(self._stage.get_tasks(), _COUNTED_AT_MOST + 1)), AccountError
        )
        count = f"more than {_COUNTED_AT_MOST}" if waiting > _COUNTED_AT_MOST else str(waiting)
        return f"project {self._project.title!r}, stage {self._stage.title!r}: {count} tasks wait"

    def close(self) -> None:
        """Ends all waiting for room on disk, and deletes what is fetched. Tasks may be opened again afterwards.

        To be called before a thread that fetches is waited for.
        """
        self._cache.close()

    def tasks(self) -> Iterator[Task]:
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

    def proceed(self, task: Task, pathway: str | None) -> None:
        """Moves a task on whose labels are known to be saved.

        A refused move is looked at again before it is judged: the platform refuses, too, when the answer to a move
        that it did carry out was lost, and the SDK asked again.

        Args:
            task: one that `tasks` yielded.
            pathway: name or uuid.

        Raises:
            SaveError: if it did not move.
            AccountError: if the stage has no such pathway.
        """
        moving, chosen = as_encord_task(task), self._project.pathway(self._stage, pathway)
        doing = f"{moving.title}: moving it on by pathway {chosen.name!r}"
        refusal = self._project.caller.call(doing, lambda: _move(moving.waiting, chosen.uuid), SaveError)
        if not refusal:
            return
        if self._project.is_waiting(moving, SaveError):
            self._project.caller.was_away(doing)  # raises if the project is closed: no other task would move
            raise SaveError(f"{doing}: the platform refused, and the task still waits: {refusal}")
        self._tell_where_it_is(moving, chosen)

    def prioritise(self, task: Task, priority: float) -> None:
        """Sets how urgent a task is, 0 to 1; it stays so when the task moves on.

        Raises:
            SaveError: if the platform did not take it.
        """
        moving = as_encord_task(task)
        doing = f"{moving.title}: setting its priority to {priority:.3f}"
        self._project.caller.call(doing, lambda: moving.row.set_priority(priority), SaveError)

    def fail(self, task: Task, reason: str) -> None:
        """Opens an issue on the task and sends it down a pathway of its own, where the config says so; else it stays.

        Raises:
            AccountError: the platform takes nothing of ours any more. What else it refuses becomes a warning.
        """
        failed, pathway = as_encord_task(task), self._on_failure.pathway
        _LOG.info("%s: set aside at stage %r: %s", task.title, self._stage.title, reason)
        try:
            if self._on_failure.issue and (task.key, reason) not in self._issues:
                self._open_issue(failed, reason)
            if pathway is not None:
                self.proceed(task, pathway)
        except AccountError:
            raise
        except PrelabelError as error:
            self.warnings.append(str(error))

    def _open_issue(self, task: EncordTask, reason: str) -> None:
        comment = f"prelabel could not label this: {reason}"
        doing = f"{task.title}: opening an issue on it"
        self._project.caller.call(doing, lambda: task.waiting.issues.add_file_issue(comment, []), SaveError)
        self._issues.add((task.key, reason))

    # Listing

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
            lambda: self._project.label_rows(data_hashes, branch, with_metadata=self._with_metadata),
            AccountError,
        )

    def _make_task(self, waiting: AgentTask, row: LabelRowV2 | None) -> EncordTask | LeftAlone:
        if row is None:
            return LeftAlone(waiting.data_title, "data without a label row")
        if self._kinds is not None and row.data_type.value not in self._kinds:
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

    # Fetching

    def _fetch(self, task: EncordTask) -> AbstractContextManager[Media]:
        """Fetches what is not another's: the sink looks again, but a video looked at for nothing is dear."""
        if self._order is not None:
            self._project.refuse_if_moved(task, FetchError)
        if self._skips_begun:
            self._refuse_if_begun(task)
        return self._fetcher.fetch(task)

    def _refuse_if_begun(self, task: EncordTask) -> None:
        doing = f"{task.title}: looking whether somebody has begun its labels"
        row = self._project.caller.call(doing, lambda: self._standing_row(task), FetchError)
        if row is not None:
            refuse_begun(task.title, row)

    def _standing_row(self, task: EncordTask) -> LabelRow | None:
        rows = self._project.label_rows([task.data_hash], task.branch)
        return labels_as_sent(rows[0]) if rows and rows[0].label_hash else None

    # Moving

    def _tell_where_it_is(self, task: EncordTask, chosen: AgentPathway) -> None:
        doing = f"{task.title}: looking where it is after the move"
        rows = self._project.caller.call(
            doing, lambda: self._project.label_rows([task.data_hash], task.branch), SaveError
        )
        node = rows[0].workflow_graph_node if rows else None
        if node is not None and UUID(str(node.uuid)) != chosen.destination_uuid:
            self.warnings.append(
                f"{task.title}: somebody else moved it on meanwhile: it is at {node.title!r}, "
                f"where pathway {chosen.name!r} does not lead"
            )


def _move(waiting: AgentTask, pathway_uuid: UUID) -> str:
    """Asks for the move; returns why the platform refused it, empty if it did not."""
    from encord.exceptions import InvalidArgumentsError

    try:
        waiting.proceed(pathway_uuid=str(pathway_uuid))
    except InvalidArgumentsError as error:
        return error.message
    return ""
