"""A project on Encord: what is looked up in it, its errors turned into ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from prelabel.encord_api.calls import Caller
from prelabel.encord_api.tasks import EncordTask
from prelabel.errors import AccountError, FetchError, PrelabelError, TakenError, did_you_mean
from prelabel.ontology import Ontology

if TYPE_CHECKING:
    from encord import EncordUserClient, Project
    from encord.objects import LabelRowV2
    from encord.storage import StorageItem
    from encord.workflow import AgentStage
    from encord.workflow.stages.agent import AgentPathway
    from encord.workflow.workflow import WorkflowStage

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

    def where_nobody_has_looked(self, stage: AgentStage) -> set[UUID]:
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
