"""A project on Encord: what is looked up in it, its errors turned into ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from prelabel.data.frames import Media, VideoInfo
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
    """A task that waits at an agent stage.

    Attributes:
        key: project, data unit and branch: the same in every run.
        title: of the data unit.
        num_frames: frames that may be labelled.
        uuid: of the task in the workflow.
        data_hash: of the data unit.
        branch: on which its labels are.
        kind: what the data unit is: `video`, `image`, `img_group`, `audio`, `pdf`, …
        item_uuid: of the storage item that holds the media.
        stage: at which it waits.
        waiting: the SDK's own task, by which it moves.
        fetch: brings the media here.
        row: the label row's metadata, as they were listed.
    """

    key: str
    title: str
    num_frames: int
    uuid: UUID
    data_hash: str
    branch: str
    kind: str
    item_uuid: UUID
    stage: AgentStage = field(repr=False, compare=False)
    waiting: AgentTask = field(repr=False, compare=False)
    fetch: Callable[[EncordTask], AbstractContextManager[Media]] = field(repr=False, compare=False)
    row: LabelRowV2 = field(repr=False, compare=False)

    @property
    def identity(self) -> str:
        """Changes when the media behind the key does."""
        return str(self.item_uuid)

    @property
    def listed_info(self) -> VideoInfo | None:
        """What the platform says of the media, without a look at them; None where it says nothing, as of sound."""
        row = self.row
        if not row.width or not row.height:
            return None
        fps, seconds = row.fps or 0.0, row.duration or 0.0
        return VideoInfo(row.width, row.height, self.num_frames, average_fps=fps, duration_seconds=seconds)

    @property
    def metadata(self) -> Mapping[str, object]:
        """The client metadata of the data unit; empty where the source was not asked for them."""
        return self.row.client_metadata or {}

    def open(self) -> AbstractContextManager[Media]:
        """Brings the media here for as long as the context is open.

        Raises:
            FetchError: if they cannot be had whole.
        """
        return self.fetch(self)


@dataclass(frozen=True)
class EncordRow:
    """A label row that an earlier run wrote, wherever its task stands now; its media are not needed.

    Attributes:
        key: as of the `EncordTask` that it was written for.
        title: of the data unit.
        identity: of the media at that time.
        num_frames: frames that may be labelled.
        data_hash: of the data unit.
        branch: on which its labels are.
        item_uuid: of the storage item that holds the media.
        num_instances: that prelabel wrote last.
    """

    key: str
    title: str
    identity: str
    num_frames: int
    data_hash: str
    branch: str
    item_uuid: UUID
    num_instances: int

    def open(self) -> AbstractContextManager[Media]:
        """Raises a FetchError: media are not looked at again."""
        raise FetchError(f"{self.title}: what was found in it cannot be read: `prelabel run CONFIG` finds it again")


def as_encord_task(task: Task) -> EncordTask:
    """Returns the task as what it is.

    Raises:
        TypeError: if another source made it.
    """
    if not isinstance(task, EncordTask):
        raise TypeError(f"task {task.title!r}: got a {type(task).__name__}, expected one of EncordSource")
    return task


def labels_as_sent(row: LabelRowV2) -> LabelRow:
    """Returns the row's labels as the platform sends them, not as the SDK writes them after parsing.

    A row that has no labels yet is made on the platform: ask for its `label_hash` first where nothing may change.
    """
    documents: list[LabelRow] = []
    # The SDK (encord 0.1.211) hands what it got to this method, which would parse it.
    row.from_labels_dict = documents.append  # type: ignore[method-assign,assignment]
    try:
        row.initialise_labels(include_archived=True)  # else a save would delete the labels of archived features
    finally:
        del row.from_labels_dict  # the class's own again; else the row would hold its labels for as long as it lives
    return dict(documents[0])


ROWS_A_REQUEST = 100
"""Label rows asked for at once; Encord's own agents found errors above that."""


@dataclass(frozen=True)
class EncordProject:
    """A project, reached with a key that may enter it.

    Attributes:
        sdk: the SDK's project.
        client: the SDK's client.
        caller: makes its calls.
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
        """What people call the project."""
        return self.sdk.title

    def ontology(self) -> Ontology:
        """Returns what may be labelled in the project, archived objects left out.

        Raises:
            AccountError: if the platform does not give it.
            OntologyError: if it is of a form that cannot be read.
        """
        hash_ = self.sdk.ontology_hash
        doing = f"project {self.title!r}: reading its ontology"
        found = self.caller.call(doing, lambda: self.client.get_ontology(hash_), AccountError)
        return Ontology.from_structure(found.structure.to_dict(), found.title)

    def agent_stage(self, name: str) -> AgentStage:
        """Returns the agent stage of this title or uuid.

        Raises:
            AccountError: there is none, or several, or it is a stage of another kind; those that exist are named.
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
            AccountError: there is none, or several; those that exist are named.
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
        """Returns the stages at which a task of the agent stage may stand before anybody has worked on it."""
        kinds = {other.uuid: other.stage_type.value for other in self.sdk.workflow.stages}
        ahead = {pathway.destination_uuid for pathway in stage.pathways}
        return {stage.uuid, *(uuid for uuid in ahead if kinds.get(uuid) == "ANNOTATION")}

    def is_waiting(self, task: EncordTask, failure: type[PrelabelError]) -> bool:
        """Tells whether the task is still at its stage, by asking the platform."""
        waiting = self.caller.call(
            f"{task.title}: looking whether it still waits at stage {task.stage.title!r}",
            lambda: list(task.stage.get_tasks(data_hash=task.data_hash)),
            failure,
        )
        return any(found.uuid == task.uuid for found in waiting)

    def refuse_if_moved(self, task: EncordTask, failure: type[PrelabelError]) -> None:
        """Returns if the task is still at its stage.

        Raises:
            TakenError: it is not.
        """
        if not self.is_waiting(task, failure):
            raise TakenError(
                f"{task.title}: no longer waits at stage {task.stage.title!r}: somebody moved it meanwhile, and "
                "may be at work on its labels; nothing was saved"
            )

    def label_rows(
        self, data_hashes: Sequence[str], branch: str, *, with_pictures: bool = False, with_metadata: bool = False
    ) -> list[LabelRowV2]:
        """Returns the rows of data units on a branch, their labels not read. Makes one request; tries it once."""
        return self.sdk.list_label_rows_v2(
            data_hashes=list(data_hashes),
            branch_name=branch,
            include_images_data=with_pictures,
            include_client_metadata=with_metadata,
        )

    def storage_item(self, item_uuid: UUID, title: str, *, with_link: bool) -> StorageItem:
        """Returns a storage item, with a fresh signed link if asked for.

        Raises:
            FetchError: if the platform does not give it.
        """
        doing = f"{title}: asking for its {'link' if with_link else 'storage item'}"
        return self.caller.call(doing, lambda: self.client.get_storage_item(item_uuid, sign_url=with_link), FetchError)


def _is_called(title: str, uuid: UUID, name: str) -> bool:
    return title == name or str(uuid) == name.lower()


def _kind_of(stage: WorkflowStage) -> str:
    return str(stage.stage_type.value).lower().replace("_", " ")


def _listed(stages: Sequence[AgentStage]) -> str:
    return ", ".join(repr(stage.title) for stage in stages) or "there are none"
