"""Where the tasks of a project come from and go, as a config says it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from prelabel.config import Config, EncordSection
from prelabel.encord_api.connection import DEFAULT_DOMAIN
from prelabel.errors import AccountError
from prelabel.scaffold.commented_yaml import comment, description, entry, field, idle_field, one_line, quoted
from prelabel.scaffold.parts import CHECK_IT

if TYPE_CHECKING:
    from encord.workflow import AgentStage
    from encord.workflow.stages.agent import AgentPathway

    from prelabel.encord_api.client import EncordProject


def choose_stages(project: EncordProject, name: str | None) -> Sequence[AgentStage]:
    """Returns the agent stage of this title or uuid, or all that the project has.

    Raises:
        AccountError: there is none, or one from which no task could go on.
    """
    stages = _agent_stages(project) if name is None else [project.agent_stage(name)]
    if not stages:
        raise AccountError(f"project {project.title!r} has no agent stage: add one to its workflow, before annotation")
    for stage in stages:
        if not stage.pathways:
            raise AccountError(
                f"stage {stage.title!r} has no pathway, so no task can leave it: draw one in the workflow"
            )
    return stages


def encord_section(project: EncordProject, stages: Sequence[AgentStage]) -> Iterable[str]:
    """Yields where tasks come from; with the stage, if it is one."""
    yield "source:"
    yield entry("use", "encord", "or: folder, videos on this machine; prelabel init --folder FOLDER writes that")
    yield field(EncordSection, "project_hash", project.project_hash)
    if len(stages) == 1:
        known = [stage.title for stage in _agent_stages(project)]
        yield comment(f"agent stages of this project: {quoted(known)}", indent=2)
        yield field(EncordSection, "stage", _name_of(stages[0], known))
    if project.caller.domain != DEFAULT_DOMAIN:
        yield field(EncordSection, "domain", project.caller.domain)
    yield field(EncordSection, "output", "out")
    yield field(EncordSection, "cache_gb", 20)
    yield field(EncordSection, "fetch_workers", 4)
    yield idle_field(EncordSection, "order", "shuffled")
    yield field(EncordSection, "record", True)


def destinations(project: EncordProject, stages: Sequence[AgentStage]) -> Iterable[str]:
    """Yields where tasks go: a pathway, or, of several stages, a list of these with a pathway each."""
    yield ""
    if len(stages) == 1:
        yield from pathway_entry(project, stages[0])
        return
    titles = [stage.title for stage in stages]
    yield comment(
        "one after the other; a stage may have sections of its own, such as detector, classifier, agent, labels or "
        "routing, which stand for those above"
    )
    yield "stages:"
    for stage in stages:
        yield f"  - {entry('stage', _name_of(stage, titles), '', indent=0)}"
        yield from pathway_entry(project, stage, indent=4)


def pathway_entry(project: EncordProject, stage: AgentStage, *, indent: int = 0) -> Iterable[str]:
    """Yields a stage's pathways, and the one that leads to annotators as the one to take."""
    names = [pathway.name for pathway in stage.pathways]
    yield from pathway_comments(project, stage, indent=indent)
    chosen = pathway_name(stage, first_to_people(project, stage.pathways))
    yield entry("pathway", chosen, CHECK_IT if len(names) > 1 else description(Config, "pathway"), indent=indent)


def pathway_comments(project: EncordProject, stage: AgentStage, *, indent: int = 0) -> Iterable[str]:
    """Yields a stage's pathways and where they lead, as comments."""
    titles = {found.uuid: found.title for found in project.sdk.workflow.stages}
    yield comment(f"pathways of stage '{one_line(stage.title)}':", indent=indent)
    for pathway in stage.pathways:
        goal = titles.get(pathway.destination_uuid)
        to_goal = f", to stage '{one_line(goal)}'" if goal is not None else ""
        yield comment(f"  '{one_line(pathway.name)}'{to_goal}", indent=indent)


def first_to_people(project: EncordProject, pathways: Sequence[AgentPathway]) -> AgentPathway:
    """Returns the first pathway that leads to annotators, else the first of all."""
    stages = {found.uuid: found for found in project.sdk.workflow.stages}
    to_people = [pathway for pathway in pathways if _leads_to_annotation(pathway, stages)]
    return (to_people or pathways)[0]


def pathway_name(stage: AgentStage, pathway: AgentPathway) -> str:
    """Returns what a config calls a pathway: its name, or its uuid if several of the stage bear that."""
    is_clear = [other.name for other in stage.pathways].count(pathway.name) == 1
    return pathway.name if is_clear else str(pathway.uuid)


def _agent_stages(project: EncordProject) -> list[AgentStage]:
    from encord.workflow import AgentStage

    return [stage for stage in project.sdk.workflow.stages if isinstance(stage, AgentStage)]


def _name_of(stage: AgentStage, titles: Sequence[str]) -> str:
    return stage.title if titles.count(stage.title) == 1 else str(stage.uuid)


def _leads_to_annotation(pathway: AgentPathway, stages: Mapping[UUID, object]) -> bool:
    from encord.workflow import AnnotationStage

    return isinstance(stages.get(pathway.destination_uuid), AnnotationStage)
