"""Tasks that wait at an Encord agent stage: listed, fetched, moved on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from prelabel.config.base import OnFailureSection
from prelabel.data.frames import Media
from prelabel.encord.client import EncordProject, EncordTask, as_encord_task, labels_as_sent
from prelabel.encord.listing import StageListing, Wanted
from prelabel.encord.media import MediaFetcher
from prelabel.errors import AccountError, FetchError, PrelabelError, SaveError
from prelabel.labels.row.own import LabelRow
from prelabel.labels.row.write import refuse_begun
from prelabel.plugins.protocols import LeftAlone, Task
from prelabel.runtime.disk_cache import DiskCache
from prelabel.runtime.download import DownloadLimits

if TYPE_CHECKING:
    from encord.workflow.stages.agent import AgentPathway, AgentTask


@dataclass(frozen=True, slots=True)
class Fetching:
    """How media are brought here.

    Attributes:
        cache: folder for downloads in use; several processes may share it.
        max_cache_bytes: that downloads in use may take there.
        num_workers: tasks that may be fetched at the same time.
        refuses_begun: whether a task is refused where labels of anybody else stand on its row.
        refuses_moved: whether a task is refused that another has moved on since it was listed.
        limits: how long a download may take its time.
    """

    cache: Path
    max_cache_bytes: int
    num_workers: int = 1
    refuses_begun: bool = False
    refuses_moved: bool = False
    limits: DownloadLimits = field(default_factory=DownloadLimits)


class TaskFetcher:
    """Fetches what is not another's: the sink looks again, but a video looked at for nothing is dear."""

    def __init__(self, project: EncordProject, fetching: Fetching) -> None:
        """Deletes what processes that are gone have left in the cache."""
        self._project, self._fetching = project, fetching
        self._cache = DiskCache(fetching.cache, fetching.max_cache_bytes)
        self._cache.sweep()
        self._media = MediaFetcher(project, self._cache, fetching.limits)

    def fetch(self, task: EncordTask) -> AbstractContextManager[Media]:
        """Brings a task's media here for as long as the context is open. May be called from several threads.

        Raises:
            FetchError: they cannot be had whole.
            TakenError: the task is another's.
        """
        if self._fetching.refuses_moved:
            self._project.refuse_if_moved(task, FetchError)
        if self._fetching.refuses_begun:
            self._refuse_if_begun(task)
        return self._media.fetch(task)

    def close(self) -> None:
        """Ends all waiting for room on disk, and deletes what is fetched. Tasks may be fetched again afterwards."""
        self._cache.close()

    def _refuse_if_begun(self, task: EncordTask) -> None:
        doing = f"{task.title}: looking whether somebody has begun its labels"
        row = self._project.caller.call(doing, lambda: self._standing_row(task), FetchError)
        if row is not None:
            refuse_begun(task.title, row)

    def _standing_row(self, task: EncordTask) -> LabelRow | None:
        rows = self._project.label_rows([task.data_hash], task.branch)
        return labels_as_sent(rows[0]) if rows and rows[0].label_hash else None


_LOG = logging.getLogger(__name__)

_COUNTED_AT_MOST = 200


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
        fetching: Fetching,
        wanted: Wanted | None = None,
        on_failure: OnFailureSection | None = None,
    ) -> None:
        """Finds the stage.

        Args:
            project: where the stage is.
            stage: its title or uuid.
            fetching: how media are brought here.
            wanted: which tasks, and in which order; default: all that have frames to look at, as they are listed.
            on_failure: what becomes of tasks that are set aside; default: they stay where they are.

        Raises:
            AccountError: there is no such agent stage; those that exist are named.
        """
        self._project, self._stage = project, project.agent_stage(stage)
        self._fetcher = TaskFetcher(project, fetching)
        self._listing = StageListing(project, self._stage, wanted or Wanted(), self._fetcher.fetch)
        self._on_failure = on_failure or OnFailureSection()
        self._issues: set[tuple[str, str]] = set()
        self.fetch_workers = fetching.num_workers
        self.warnings: list[str] = []

    @property
    def left_alone(self) -> list[LeftAlone]:
        """Tasks that are not for this tool."""
        return self._listing.left_alone

    def check_pathway(self, pathway: str | None) -> str:
        """Returns what this pathway of the stage is called, and to which stage it leads.

        Raises:
            AccountError: it has none of this name or uuid; those that exist are named.
        """
        found = self._project.pathway(self._stage, pathway)
        goal = next((one.title for one in self._project.sdk.workflow.stages if one.uuid == found.destination_uuid), "")
        return f"{found.name!r}, to stage {goal!r}" if goal else f"{found.name!r}"

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
        self._fetcher.close()

    def tasks(self) -> Iterator[Task]:
        """Yields each task that waits, once, then those that came meanwhile, until nothing new is there.

        Raises:
            AccountError: if the platform does not list the stage, or the rows of its tasks.
        """
        yield from self._listing.tasks()

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
