"""A project on Encord: its tasks, stages, pathways, label rows and storage items."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypedDict
from uuid import UUID

from prelabel.data.frames import Media, MediaLocation, VideoInfo
from prelabel.data.ontology import Ontology
from prelabel.encord.calls import Caller
from prelabel.errors import AccountError, FetchError, PrelabelError, TakenError, did_you_mean
from prelabel.labels.row.own import LabelRow
from prelabel.plugins.protocols import Task

if TYPE_CHECKING:
    from encord import EncordUserClient, Project
    from encord.objects import LabelRowV2
    from encord.storage import StorageItem
    from encord.workflow import AgentStage
    from encord.workflow.stages.agent import AgentPathway, AgentTask
    from encord.workflow.workflow import WorkflowStage


@dataclass(frozen=True)
class EncordTask:
    """A label row of a project with its media, at any stage.

    Attributes:
        key: project, data unit and branch; the same in every run.
        title: of the data unit.
        num_frames: number of frames that may be labelled.
        data_hash: of the data unit.
        branch: of its labels.
        kind: of the data unit: `video`, `image`, `img_group`, `audio`, `pdf`, …
        item_uuid: of the storage item that holds the media.
        row: the label row's metadata, as the platform listed them.
        fetch: downloads the media.
        find: returns the links of the media.
    """

    key: str
    title: str
    num_frames: int
    data_hash: str
    branch: str
    kind: str
    item_uuid: UUID
    row: LabelRowV2 = field(repr=False, compare=False)
    fetch: Callable[[EncordTask], AbstractContextManager[Media]] = field(repr=False, compare=False)
    find: Callable[[EncordTask], MediaLocation] = field(repr=False, compare=False)

    @property
    def identity(self) -> str:
        """The uuid of the storage item, which changes when the media change."""
        return str(self.item_uuid)

    @property
    def listed_info(self) -> VideoInfo | None:
        """The video info that the platform lists before a download; None without a frame size, as for audio."""
        row = self.row
        if not row.width or not row.height:
            return None
        fps, seconds = row.fps or 0.0, row.duration or 0.0
        return VideoInfo(row.width, row.height, self.num_frames, average_fps=fps, duration_seconds=seconds)

    @property
    def metadata(self) -> Mapping[str, object]:
        """The client metadata of the data unit; empty if the row was listed without them."""
        return self.row.client_metadata or {}

    def open(self) -> AbstractContextManager[Media]:
        """Downloads the media, and deletes them when the context ends.

        Raises:
            FetchError: not all files could be downloaded.
        """
        return self.fetch(self)

    def locate(self) -> MediaLocation:
        """Returns the signed links of the media, for a worker on another machine.

        Raises:
            FetchError: the platform does not give all links.
        """
        return self.find(self)


@dataclass(frozen=True)
class WaitingTask(EncordTask):
    """A task that waits at an agent stage.

    Attributes:
        stage: the stage at which it waits.
        waiting: the SDK's own task object, which can move it.
    """

    stage: AgentStage = field(repr=False, compare=False)
    waiting: AgentTask = field(repr=False, compare=False)

    @property
    def uuid(self) -> UUID:
        """The uuid of the task in the workflow."""
        return self.waiting.uuid


@dataclass(frozen=True)
class StoredRow(EncordTask):
    """A label row that an earlier run wrote; its media are not needed again.

    Attributes:
        stored_identity: identity of the media when the run processed them.
        num_instances: number of object instances that prelabel wrote last.
    """

    stored_identity: str
    num_instances: int

    @property
    def identity(self) -> str:
        """The identity of the media when the run processed them."""
        return self.stored_identity


def as_encord_task(task: Task) -> EncordTask:
    """Returns the task, checked to be an `EncordTask`.

    Raises:
        TypeError: the task is from another source.
    """
    if not isinstance(task, EncordTask):
        raise TypeError(f"task {task.title!r}: got a {type(task).__name__}, expected a task of Encord")
    return task


def as_waiting_task(task: Task) -> WaitingTask:
    """Returns the task, checked to be a `WaitingTask`.

    Raises:
        TypeError: the task does not wait at an agent stage.
    """
    if not isinstance(task, WaitingTask):
        raise TypeError(f"task {task.title!r}: got a {type(task).__name__}, expected one that waits at an agent stage")
    return task


def split_key(key: str) -> tuple[str, str, str]:
    """Returns project hash, data hash and branch of a task's key."""
    project_hash, data_hash, branch = key.split("/", 2)
    return project_hash, data_hash, branch


class TaskFields(TypedDict):
    """The fields of an `EncordTask` that come from its label row."""

    key: str
    title: str
    num_frames: int
    data_hash: str
    branch: str
    kind: str
    item_uuid: UUID
    row: LabelRowV2


def task_fields(key: str, row: LabelRowV2) -> TaskFields:
    """Returns the fields of an `EncordTask` from its label row; the row must have a storage item."""
    assert row.backing_item_uuid is not None
    return TaskFields(
        key=key,
        title=row.data_title,
        num_frames=row.number_of_frames,
        data_hash=row.data_hash,
        branch=split_key(key)[2],
        kind=row.data_type.value,
        item_uuid=row.backing_item_uuid,
        row=row,
    )


def labels_as_sent(row: LabelRowV2) -> LabelRow:
    """Returns the row's labels as the platform sends them, not as the SDK writes them after parsing.

    If the row has no labels yet, the platform creates them. A caller that must not change anything checks `label_hash`
    first.
    """
    documents: list[LabelRow] = []
    # encord 0.1.211 passes the platform's answer to this method, which would parse it and lose unknown keys. This can
    # go once the SDK returns the answer itself.
    row.from_labels_dict = documents.append  # type: ignore[method-assign,assignment]
    try:
        row.initialise_labels(include_archived=True)  # without it, a save deletes the labels of archived features
    finally:
        del row.from_labels_dict  # restores the method; otherwise the row would keep its labels in memory
    return dict(documents[0])


ROWS_PER_REQUEST = 100
"""The largest number of label rows in a request; Encord's own agents saw errors above it."""


@dataclass(frozen=True)
class EncordProject:
    """A project on the platform, with a connection.

    Attributes:
        sdk: the SDK's project.
        client: the SDK's client.
        caller: makes the calls of the SDK.
    """

    sdk: Project = field(repr=False)
    client: EncordUserClient = field(repr=False)
    caller: Caller

    @property
    def project_hash(self) -> str:
        """The project's uuid, as text."""
        return self.sdk.project_hash

    @property
    def title(self) -> str:
        """The project's name, to show to people."""
        return self.sdk.title

    def ontology(self) -> Ontology:
        """Returns the project's ontology, without archived objects.

        Raises:
            AccountError: the platform does not return the ontology.
            OntologyError: the ontology cannot be read.
        """
        hash_ = self.sdk.ontology_hash
        doing = f"project {self.title!r}: reading its ontology"
        found = self.caller.call(doing, lambda: self.client.get_ontology(hash_), AccountError)
        return Ontology.from_structure(found.structure.to_dict(), found.title)

    def agent_stage(self, name: str) -> AgentStage:
        """Returns the agent stage of this title or uuid.

        Raises:
            AccountError: there is no such stage, there are several, or it is a stage of another kind. The message names
                those that exist.
        """
        from encord.workflow import AgentStage

        found = [stage for stage in self.sdk.workflow.stages if _is_called(stage.title, stage.uuid, name)]
        agents = [stage for stage in self.sdk.workflow.stages if isinstance(stage, AgentStage)]
        if not found:
            raise AccountError(
                f"source.stage: project {self.title!r} has no stage {name!r}: "
                f"{did_you_mean(name, [stage.title for stage in agents])} (agent stages: {_listed(agents)})"
            )
        if len(found) > 1:
            raise AccountError(
                f"source.stage: project {self.title!r} has {len(found)} stages {name!r}: name one by its uuid: "
                + ", ".join(f"{stage.uuid} ({_kind_of(stage)})" for stage in found)
            )
        stage = found[0]
        if not isinstance(stage, AgentStage):
            raise AccountError(
                f"source.stage: {name!r} is a stage of kind {_kind_of(stage)}, which only people work at: "
                f"name an agent stage, or add one to the workflow (agent stages: {_listed(agents)})"
            )
        return stage

    def pathway(self, stage: AgentStage, name: str | None) -> AgentPathway:
        """Returns the stage's pathway of this name or uuid.

        Raises:
            AccountError: there is no such pathway, or there are several. The message names those that exist.
        """
        names = ", ".join(repr(pathway.name) for pathway in stage.pathways) or "none"
        if name is None:
            raise AccountError(f"pathway: is missing: stage {stage.title!r} has these: {names}")
        found = [pathway for pathway in stage.pathways if _is_called(pathway.name, pathway.uuid, name)]
        if not found:
            raise AccountError(f"pathway: stage {stage.title!r} has no pathway {name!r}: it has these: {names}")
        if len(found) > 1:
            uuids = ", ".join(str(pathway.uuid) for pathway in found)
            raise AccountError(
                f"pathway: stage {stage.title!r} has {len(found)} {name!r}: name one by its uuid: {uuids}"
            )
        return found[0]

    def untouched_stages(self, stage: AgentStage) -> set[UUID]:
        """Returns the stages at which nobody has worked on a task yet.

        These are the agent stage and the annotation stages right after it.
        """
        kinds = {other.uuid: other.stage_type.value for other in self.sdk.workflow.stages}
        ahead = {pathway.destination_uuid for pathway in stage.pathways}
        return {stage.uuid, *(uuid for uuid in ahead if kinds.get(uuid) == "ANNOTATION")}

    def is_waiting(self, task: WaitingTask, failure: type[PrelabelError]) -> bool:
        """Returns whether the task is still at its stage, according to the platform."""
        waiting = self.caller.call(
            f"{task.title}: looking whether it still waits at stage {task.stage.title!r}",
            lambda: list(task.stage.get_tasks(data_hash=task.data_hash)),
            failure,
        )
        return any(found.uuid == task.uuid for found in waiting)

    def refuse_if_moved(self, task: WaitingTask, failure: type[PrelabelError]) -> None:
        """Raises a `TakenError` if the task is no longer at its stage."""
        if not self.is_waiting(task, failure):
            raise TakenError(
                f"{task.title}: no longer waits at stage {task.stage.title!r}: somebody moved it meanwhile, and "
                "may be working on its labels; nothing was saved"
            )

    def label_rows(
        self, data_hashes: Sequence[str], branch: str, *, with_images: bool = False, with_metadata: bool = False
    ) -> list[LabelRowV2]:
        """Returns the rows of data units on a branch, without their labels.

        It makes one request and does not repeat it, so call it through `caller`.
        """
        return self.sdk.list_label_rows_v2(
            data_hashes=list(data_hashes),
            branch_name=branch,
            include_images_data=with_images,
            include_client_metadata=with_metadata,
        )

    def find_rows(
        self, keys: Iterable[str], doing: str, failure: type[PrelabelError], *, with_metadata: bool = False
    ) -> dict[str, LabelRowV2]:
        """Returns the label rows of tasks by task key, in few requests; rows that are gone are left out.

        Args:
            keys: of tasks of this project.
            doing: the start of an error message, as in `Caller.call`.
            failure: the error to raise.
            with_metadata: whether rows come with the client metadata of their data.
        """
        hashes: dict[str, list[str]] = defaultdict(list)
        for key in keys:
            _, data_hash, branch = split_key(key)
            hashes[branch].append(data_hash)
        found: dict[str, LabelRowV2] = {}
        for branch, all_of in hashes.items():
            for start in range(0, len(all_of), ROWS_PER_REQUEST):
                some = all_of[start : start + ROWS_PER_REQUEST]
                list_rows = partial(self.label_rows, some, branch, with_metadata=with_metadata)
                for row in self.caller.call(doing, list_rows, failure):
                    found[f"{self.project_hash}/{row.data_hash}/{branch}"] = row
        return found

    def storage_item(self, item_uuid: UUID, title: str, *, with_link: bool) -> StorageItem:
        """Returns a storage item.

        Args:
            item_uuid: of the item.
            title: of its task, for messages.
            with_link: whether the item comes with a new signed link.

        Raises:
            FetchError: the platform does not return the item.
        """
        doing = f"{title}: asking for its {'link' if with_link else 'storage item'}"
        return self.caller.call(doing, lambda: self.client.get_storage_item(item_uuid, sign_url=with_link), FetchError)


def _is_called(title: str, uuid: UUID, name: str) -> bool:
    return title == name or str(uuid) == name.lower()


def _kind_of(stage: WorkflowStage) -> str:
    return str(stage.stage_type.value).lower().replace("_", " ")


def _listed(stages: Sequence[AgentStage]) -> str:
    return ", ".join(repr(stage.title) for stage in stages) or "there are none"
