"""The source of tasks that wait at an Encord agent stage: it lists, fetches and moves them."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal
from uuid import UUID

from pydantic import Field, model_validator

from prelabel.config.base import Name, OnFailureSection, make_router
from prelabel.config.sections import Config
from prelabel.config.source import CLOSED, OutputFolder, SourceSection
from prelabel.data.frames import Media, MediaLocation
from prelabel.data.label_map import LabelMap
from prelabel.data.ontology import Ontology
from prelabel.encord.connection import connect, project_uuid
from prelabel.encord.media import MediaFetcher
from prelabel.encord.project import (
    ROWS_PER_REQUEST,
    EncordProject,
    EncordTask,
    WaitingTask,
    as_waiting_task,
    labels_as_sent,
    task_fields,
)
from prelabel.encord.sink import EncordSink
from prelabel.encord.stored_source import StoredRowSource
from prelabel.errors import AccountError, FetchError, PrelabelError, SaveError
from prelabel.labels.row.own import KINDS_WITH_FRAMES, LabelRow
from prelabel.labels.row.write import refuse_begun
from prelabel.plugins.affects import Affects
from prelabel.plugins.protocols import SkippedTask, Task
from prelabel.runtime.disk_cache import DiskCache
from prelabel.runtime.download import DownloadLimits
from prelabel.runtime.shared import Shared
from prelabel.store.source import SAVE_WORKERS, RowOptions, Source, StoredTask

if TYPE_CHECKING:
    from encord.workflow import AgentStage
    from encord.workflow.stages.agent import AgentPathway, AgentTask

_LOG = logging.getLogger(__name__)

_COUNTED_AT_MOST = 200


class EncordSection(SourceSection):
    """An agent stage of an Encord workflow."""

    model_config = CLOSED
    has_workflow: ClassVar[bool] = True

    use: Annotated[Literal["encord"], Affects.PLACE] = "encord"
    project_hash: Annotated[Name, Affects.PLACE] = Field(
        "", description="uuid of the project; default: ENCORD_PROJECT_HASH"
    )
    stage: Annotated[Name, Affects.PLACE] = Field(description="title or uuid of the agent stage")
    domain: Annotated[str, Affects.PLACE] = Field(
        "", description="address of the API; default: ENCORD_DOMAIN, else the EU platform"
    )
    output: Annotated[OutputFolder, Affects.PLACE] = Field(
        Path("out"), description="folder for raw detections, the ledger and report.json"
    )
    cache_gb: Annotated[float, Affects.NOTHING] = Field(
        20.0, gt=0, description="disk space for downloads, in 10^9 bytes"
    )
    fetch_workers: Annotated[int, Affects.NOTHING] = Field(
        4, ge=1, le=64, description="tasks whose media are downloaded at the same time"
    )
    record: Annotated[bool, Affects.NOTHING] = Field(
        True, description="write model and version into the data's client metadata, key 'prelabel'"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_environment(cls, values: Any) -> Any:
        if isinstance(values, dict):
            known = {"project_hash": "ENCORD_PROJECT_HASH", "domain": "ENCORD_DOMAIN"}
            found = {key: os.environ[name] for key, name in known.items() if os.environ.get(name)}
            return {**found, **{key: value for key, value in values.items() if value not in ("", None)}}
        return values

    @model_validator(mode="after")
    def _has_project(self) -> EncordSection:
        if not self.project_hash:
            raise ValueError("has no project_hash: set it, or ENCORD_PROJECT_HASH in the environment")
        return self

    @property
    def stage_name(self) -> str:
        """The value of the key `stage`."""
        return self.stage


class EncordSource(Source):
    """The source of the tasks that wait at an agent stage of a project's workflow."""

    Section = EncordSection
    keeps_rows = True
    save_workers = SAVE_WORKERS  # the SDK opens a connection for each request, so threads do not share one

    def __init__(
        self,
        section: EncordSection,
        *,
        reach: Callable[[], EncordProject] | None = None,
        kinds: Collection[str] | None = KINDS_WITH_FRAMES,
        with_metadata: bool = False,
        skips_begun: bool = False,
        on_failure: OnFailureSection | None = None,
        limits: DownloadLimits | None = None,
    ) -> None:
        """Calls the platform only later, when the project is needed.

        Args:
            section: of the config.
            reach: returns the project; by default, connects to it.
            kinds: of data; tasks of other kinds are skipped. None accepts all kinds.
            with_metadata: whether tasks have the client metadata of their data.
            skips_begun: whether to skip a task if somebody has begun to work on its row.
            on_failure: what to do with failed tasks; by default, they stay at the stage.
            limits: of each download.
        """
        self._section, self._kinds, self._with_metadata = section, kinds, with_metadata
        self._skips_begun, self._limits = skips_begun, limits or DownloadLimits()
        self._on_failure = on_failure or OnFailureSection()
        self._reach = reach or (lambda: connect(section.project_hash, section.domain or None))
        self._cache = DiskCache(section.run_folder / ".prelabel" / "cache", int(section.cache_gb * 1e9))
        self._unsuitable: dict[UUID, SkippedTask] = {}
        self._issues: set[tuple[str, str]] = set()
        self.fetch_workers = section.fetch_workers
        self.warnings: list[str] = []

    @classmethod
    def from_config(cls, config: Config, shared: Shared) -> EncordSource:
        """Returns the source that a config describes.

        Args:
            config: with a section of this source.
            shared: holds the connection, which all stages of a config share.
        """
        section = config.source
        assert isinstance(section, EncordSection)
        reads_metadata = make_router(config.routing, None, config.priority).uses_metadata
        is_function = config.agent_kind == "function"
        return cls(
            section,
            reach=lambda: shared.once(
                ("project", section.project_hash, section.domain),
                lambda: connect(section.project_hash, section.domain or None),
            ),
            kinds=None if is_function else KINDS_WITH_FRAMES,
            with_metadata=reads_metadata or is_function,
            skips_begun=config.labels.skips_begun,
            on_failure=config.on_failure,
        )

    @cached_property
    def project(self) -> EncordProject:
        """The project on the platform."""
        return self._reach()

    @cached_property
    def _stage(self) -> AgentStage:
        return self.project.agent_stage(self._section.stage)

    # Before a run

    def prepare(self) -> None:
        """Checks that the project and the stage exist.

        Raises:
            AccountError: one of them does not exist; the message names the stages that exist.
        """
        _ = self._stage

    def check_pathway(self, pathway: str | None) -> str:
        """Returns the name of a pathway and the stage to which it leads, in words.

        Args:
            pathway: name or uuid.

        Raises:
            AccountError: there is no such pathway; the message names those that exist.
        """
        found = self.project.pathway(self._stage, pathway)
        goal = next(
            (stage.title for stage in self.project.sdk.workflow.stages if stage.uuid == found.destination_uuid), ""
        )
        return f"{found.name!r}, to stage {goal!r}" if goal else f"{found.name!r}"

    def describe(self) -> str:
        """Returns the project, the stage and the number of tasks that wait there, in words.

        Raises:
            AccountError: the platform does not list the tasks.
        """
        doing = f"stage {self._stage.title!r}: counting its tasks"
        waiting = self.project.caller.call(
            doing, lambda: sum(1 for _ in islice(self._stage.get_tasks(), _COUNTED_AT_MOST + 1)), AccountError
        )
        count = f"more than {_COUNTED_AT_MOST}" if waiting > _COUNTED_AT_MOST else str(waiting)
        return f"project {self.project.title!r}, stage {self._stage.title!r}: {count} tasks wait"

    def ontology(self) -> Ontology:
        """Returns the project's ontology."""
        return self.project.ontology()

    def row_sink(self, label_map: LabelMap, options: RowOptions) -> EncordSink:
        """Returns a sink for the project's label rows; it notes the model if the config says so."""
        return EncordSink(
            self.project, label_map, options if self._section.record else replace(options, model_record=None)
        )

    def owns(self, key: str, title: str) -> bool:
        """Returns whether a stored task is of this project, without a call."""
        return key.startswith(f"{project_uuid(self._section.project_hash)}/")

    def stored(self, tasks: Sequence[StoredTask], skipped: Sequence[SkippedTask], warnings: Sequence[str]) -> Source:
        """Returns a source of the stored tasks whose rows nobody has worked on yet."""
        return StoredRowSource(self.project, self._section.stage, tasks, skipped, warnings)

    # Tasks

    @property
    def skipped(self) -> list[SkippedTask]:  # type: ignore[override]  # a plain attribute of the base class
        """The tasks of other kinds (audio, PDF, DICOM, …), each once."""
        return list(self._unsuitable.values())

    def tasks(self) -> Iterator[WaitingTask]:
        """Yields each waiting task once; lists the stage again until it has no new task.

        Raises:
            AccountError: the platform does not list the stage, or the label rows of its tasks.
        """
        # This lists the whole stage before it yields the first task, because tasks leave the stage during the run.
        # Encord does not document whether its page tokens allow that. With offsets, every second page would be skipped.
        self._cache.sweep()
        seen: set[UUID] = set()
        while new := self._list_new(seen):
            for start in range(0, len(new), ROWS_PER_REQUEST):
                yield from self._with_rows(new[start : start + ROWS_PER_REQUEST])

    def _list_new(self, seen: set[UUID]) -> list[AgentTask]:
        """Returns the waiting tasks that are not in `seen`, and adds them to `seen`."""
        found: dict[UUID, AgentTask] = {}

        def collect() -> None:
            for task in self._stage.get_tasks():
                if task.uuid not in seen:
                    found.setdefault(task.uuid, task)

        try:
            self.project.caller.call(f"stage {self._stage.title!r}: listing its tasks", collect, AccountError)
        except AccountError as error:
            # A list of many pages may fail at each try. The run works on the tasks listed so far, then lists again.
            if not found:
                raise
            _LOG.info("%s; going on with the %d tasks listed so far", error, len(found))
        seen.update(found)
        return list(found.values())

    def _with_rows(self, waiting: Sequence[AgentTask]) -> Iterator[WaitingTask]:
        keys = [f"{self.project.project_hash}/{task.data_hash}/{task.label_branch_name}" for task in waiting]
        doing = f"stage {self._stage.title!r}: listing the label rows of {len(waiting)} tasks"
        rows = self.project.find_rows(keys, doing, AccountError, with_metadata=self._with_metadata)
        for key, task in zip(keys, waiting, strict=True):
            row = rows.get(key)
            if row is None:
                self._unsuitable.setdefault(task.uuid, SkippedTask(task.data_title, "data without a label row"))
            elif self._kinds is not None and row.data_type.value not in self._kinds:
                kind = row.data_type.value.strip("_").lower()
                self._unsuitable.setdefault(task.uuid, SkippedTask(row.data_title, kind))
            elif row.backing_item_uuid is None:
                kind = f"{row.data_type.value} without a storage item"
                self._unsuitable.setdefault(task.uuid, SkippedTask(row.data_title, kind))
            else:
                yield WaitingTask(
                    **task_fields(key, row), fetch=self._fetch, find=self._locate, stage=self._stage, waiting=task
                )

    def find_tasks(self, keys: Collection[str]) -> dict[str, Task]:
        """Returns the tasks with these keys, by key, at any stage of the workflow."""
        doing = f"listing the label rows of {len(keys)} tasks"
        rows = self.project.find_rows([key for key in keys if self.owns(key, "")], doing, FetchError)
        return {
            key: EncordTask(**task_fields(key, row), fetch=self._media.fetch, find=self._media.locate)
            for key, row in rows.items()
            if row.backing_item_uuid is not None
        }

    # Media

    @property
    def _media(self) -> MediaFetcher:
        return MediaFetcher(self.project, self._cache, self._limits)

    def _fetch(self, task: EncordTask) -> AbstractContextManager[Media]:
        """Downloads a task's media, unless its labels are to be left alone. Several threads may call it."""
        self._refuse_if_begun(task)
        return self._media.fetch(task)

    def _locate(self, task: EncordTask) -> MediaLocation:
        self._refuse_if_begun(task)
        return self._media.locate(task)

    def _refuse_if_begun(self, task: EncordTask) -> None:
        """Raises a TakenError if somebody has begun the labels of a task and the config says to leave such tasks.

        The sink checks again before it saves. The check here avoids inference on tasks that cannot be saved.
        """
        if not self._skips_begun:
            return
        doing = f"{task.title}: looking whether somebody has begun its labels"
        row = self.project.caller.call(doing, lambda: self._current_labels(task), FetchError)
        if row is not None:
            refuse_begun(task.title, row)

    def _current_labels(self, task: EncordTask) -> LabelRow | None:
        rows = self.project.label_rows([task.data_hash], task.branch)
        return labels_as_sent(rows[0]) if rows and rows[0].label_hash else None

    def close(self) -> None:
        """Ends all waiting for disk space, and deletes the fetched media. Tasks may be opened again afterwards.

        Call it before you join a thread that fetches, because that thread may be waiting for disk space.
        """
        self._cache.close()

    # Moves, priorities and failures

    def proceed(self, task: Task, pathway: str | None) -> None:
        """Moves a task whose labels are saved.

        Args:
            task: a task that `tasks` yielded.
            pathway: name or uuid.

        Raises:
            SaveError: the task was not moved.
            AccountError: the stage has no such pathway.
        """
        moving, chosen = as_waiting_task(task), self.project.pathway(self._stage, pathway)
        doing = f"{moving.title}: moving it on by pathway {chosen.name!r}"
        refusal = self.project.caller.call(doing, lambda: _move(moving.waiting, chosen.uuid), SaveError)
        if not refusal:
            return
        # The platform also refuses if it has moved the task, but its answer was lost and the SDK repeated the call. So
        # this checks where the task is before it raises an error.
        if self.project.is_waiting(moving, SaveError):
            self.project.caller.was_away(doing)  # raises if the project is closed, since no other task can move then
            raise SaveError(f"{doing}: the platform refused, and the task still waits: {refusal}")
        self._warn_if_moved_elsewhere(moving, chosen)

    def _warn_if_moved_elsewhere(self, task: EncordTask, chosen: AgentPathway) -> None:
        doing = f"{task.title}: looking where it is after the move"
        rows = self.project.caller.call(
            doing, lambda: self.project.label_rows([task.data_hash], task.branch), SaveError
        )
        node = rows[0].workflow_graph_node if rows else None
        if node is not None and UUID(str(node.uuid)) != chosen.destination_uuid:
            self.warnings.append(
                f"{task.title}: somebody else moved it meanwhile: it is at {node.title!r}, "
                f"where pathway {chosen.name!r} does not lead"
            )

    def prioritise(self, task: Task, priority: float) -> None:
        """Sets the priority of a task, 0 to 1; the task keeps it when it moves.

        Raises:
            SaveError: the platform did not accept the priority.
        """
        moving = as_waiting_task(task)
        doing = f"{moving.title}: setting its priority to {priority:.3f}"
        self.project.caller.call(doing, lambda: moving.row.set_priority(priority), SaveError)

    def fail(self, task: Task, reason: str) -> None:
        """Opens an issue on a failed task, and sends it down a pathway, if the config says so.

        Any error but an `AccountError` becomes a warning.

        Raises:
            AccountError: the platform accepts no more calls of this run.
        """
        _LOG.info("%s: failed at stage %r: %s", task.title, self._stage.title, reason)
        try:
            if self._on_failure.issue and (task.key, reason) not in self._issues:
                self._open_issue(as_waiting_task(task), reason)
            if self._on_failure.pathway is not None:
                self.proceed(task, self._on_failure.pathway)
        except AccountError:
            raise
        except PrelabelError as error:
            self.warnings.append(str(error))

    def _open_issue(self, task: WaitingTask, reason: str) -> None:
        comment = f"prelabel could not label this: {reason}"
        doing = f"{task.title}: opening an issue on it"
        self.project.caller.call(doing, lambda: task.waiting.issues.add_file_issue(comment, []), SaveError)
        self._issues.add((task.key, reason))


def _move(waiting: AgentTask, pathway_uuid: UUID) -> str:
    """Moves a task; returns why the platform refused, or empty text if it did not."""
    from encord.exceptions import InvalidArgumentsError

    try:
        waiting.proceed(pathway_uuid=str(pathway_uuid))
    except InvalidArgumentsError as error:
        return error.message
    return ""
