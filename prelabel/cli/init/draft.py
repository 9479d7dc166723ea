"""Drafts configs for videos and images on this machine, or for an Encord project."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prelabel.cli.init.class_guess import classes_of_options, known_classes, propose_map
from prelabel.cli.init.template import one_line, quoted, render_config, yaml_text
from prelabel.config.base import OnFailureSection, ReportSection, RetriesSection
from prelabel.config.sections import (
    ClassifierSection,
    DetectorSection,
    LabelsSection,
    ReaderSection,
    SinkSection,
    TrackerSection,
)
from prelabel.data.classification import Classification, classifications_of
from prelabel.data.ontology import BOX_SHAPES, Ontology, OntologyObject
from prelabel.data.words import words_to_find
from prelabel.encord.connection import DEFAULT_DOMAIN
from prelabel.encord.source import EncordSection
from prelabel.errors import AccountError, ConfigError, OntologyError, did_you_mean
from prelabel.files.folder_source import FolderSection
from prelabel.models.weights import ModelCard, card_names, find_card
from prelabel.runtime.buckets import as_written

if TYPE_CHECKING:
    from encord.workflow import AgentStage
    from encord.workflow.stages.agent import AgentPathway

    from prelabel.encord.project import EncordProject

Values = Mapping[str, Any]
"""Values from the user, by section and key."""

CHECK_IT = "a guess: check"
OPTIONS_SHOWN = 30
OPENAI_NOTE = (
    "or, with any OpenAI-compatible service, OPENAI_API_KEY and OPENAI_BASE_URL: {use: openai, model: gpt-4o-mini}; "
    "it chooses among the ontology's own options, so remove labels.classes"
)
_SECTIONS = {
    "reader": ReaderSection,
    "detector": DetectorSection,
    "classifier": ClassifierSection,
    "labels": LabelsSection,
    "tracker": TrackerSection,
    "sink": SinkSection,
    "retries": RetriesSection,
    "on_failure": OnFailureSection,
    "report": ReportSection,
}
_LABELS_OF = {
    "classifier": {"classification", "classes", "answers", "unmapped", "if_begun", "conf", "max_row_mb"},
    "detector": set(LabelsSection.model_fields) - {"classification", "answers"},
}


class MappedClass(NamedTuple):
    """A line of `labels.classes`. A class without a target becomes a comment."""

    key: str
    target: str | None
    note: str = ""


class StagePathway(NamedTuple):
    """The pathway of a stage's finished tasks, and comments about it."""

    name: str
    pathway: str
    note: str
    notes: Sequence[str]


def config_for_media(paths: Sequence[Path], values: Values, path: Path, *, classify: bool = False) -> str:
    """Returns a config for videos and images on this machine.

    Args:
        paths: files, folders, globs or addresses.
        values: values from the user, by section.
        path: where the config will be written.
        classify: use a classifier instead of a detector.

    Raises:
        ConfigError: there is no such model, or its weights need a card that does not exist.
    """
    agent = "classifier" if classify else "detector"
    card, model = _model_values(agent, values, "mobilenet_v2" if classify else "yolo11n")
    names = [] if classify else known_classes(card)
    notes = [f"the model's classes: {', '.join(map(one_line, names))}"] if names else []
    shown = [as_written(each) for each in paths]
    source = {"use": "folder", "path": shown[0] if len(shown) == 1 else shown, "output": "out"}
    what = "An answer for each video and image" if classify else "Boxes for the videos and images"
    return _render(
        f"{what} in {one_line(', '.join(shown[:3]))}{', …' if len(shown) > 3 else ''}, by {_model_text(model, card)}.",
        path,
        agent,
        {**values, "source": {**source, **values.get("source", {})}, agent: model},
        label_notes=notes,
    )


def config_for_project(
    project: EncordProject,
    values: Values,
    path: Path,
    *,
    stage: str | None = None,
    classify: bool = False,
    by_words: bool = False,
) -> str:
    """Returns a config for agent stages, with a proposed mapping from the model's classes to the ontology.

    Args:
        project: project with the stages, their pathways and the ontology.
        values: values from the user, by section.
        path: where the config will be written.
        stage: title or uuid of the agent stage; None: all stages of the project, one after the other.
        classify: answer a classification. This is the default if the ontology has a classification and no shapes that
            boxes fit.
        by_words: use an open-vocabulary model; unless `values` has words, they are the names of the ontology's objects.

    Raises:
        AccountError: there is no such stage, or it has no pathway.
        ConfigError: there is no such model, or its weights need a card that does not exist.
        OntologyError: `classify` is set and the ontology has no classification.
    """
    ontology, stages = project.ontology(), choose_stages(project, stage)
    takes_boxes = any(each.shape in BOX_SHAPES for each in ontology.objects)
    titles = [each.title for each in agent_stages(project)]
    source: dict[str, Any] = {"use": "encord", "project_hash": project.project_hash}
    if len(stages) == 1:
        source["stage"] = _stage_name(stages[0], titles)
    if project.caller.domain != DEFAULT_DOMAIN:
        source["domain"] = project.caller.domain
    pathways = [_stage_pathway(project, each, titles) for each in stages]
    common: dict[str, Any] = {
        "source_notes": [f"agent stages of this project: {quoted(titles)}"],
        "pathway_notes": pathways[0].notes if len(stages) == 1 else [],
        "pathway": pathways[0],
        "stages": pathways if len(stages) > 1 else [],
    }
    given: dict[str, Any] = {**values, "source": {**source, "output": "out", **values.get("source", {})}}
    if by_words:
        return _find_words_in_project(project, ontology, given, path, common)
    if classify or (not takes_boxes and classifications_of(ontology)):
        return _classify_project(project, ontology, stages, given, path, common)
    return _detect_in_project(project, ontology, given, path, common)


def _detect_in_project(
    project: EncordProject, ontology: Ontology, values: Values, path: Path, common: dict[str, Any]
) -> str:
    shapes = {each.shape for each in ontology.objects}
    wants_masks = shapes & {"polygon", "bitmask"} and "bounding_box" not in shapes
    card, model = _model_values("detector", values, "yolo11n-seg" if wants_masks else "yolo11n")
    names = known_classes(card)
    notes = _object_notes(ontology)
    if not names:
        notes.append(f"which classes {one_line(model.get('weights', model['use']))} has: prelabel check {path}")
    proposals = sorted(propose_map(names, ontology).items(), key=lambda each: each[1] is None)
    classes = [
        MappedClass(yaml_text(name), found.target if found else None, CHECK_IT if found and found.is_guess else "")
        for name, found in proposals
    ]
    return _render(
        f"Boxes for project '{one_line(project.title)}', by {_model_text(model, card)}.",
        path,
        "detector",
        {**values, "detector": model},
        label_notes=notes,
        classes=classes,
        **common,
    )


def _find_words_in_project(
    project: EncordProject, ontology: Ontology, values: Values, path: Path, common: dict[str, Any]
) -> str:
    _, model = _model_values("detector", values, "")
    names = () if "words" in model else words_to_find({}, ontology)
    return _render(
        f"Boxes for project '{one_line(project.title)}' by words, by {_model_text(model, None)}.",
        path,
        "detector",
        {**values, "detector": model},
        label_notes=_object_notes(ontology),
        prompts=[(yaml_text(name), [name]) for name in names],
        **common,
    )


def _classify_project(
    project: EncordProject,
    ontology: Ontology,
    stages: Sequence[AgentStage],
    values: Values,
    path: Path,
    common: dict[str, Any],
) -> str:
    known = classifications_of(ontology)
    if not known:
        raise OntologyError(
            f"ontology {ontology.title!r}: has no classification: add one there, or leave --classify out"
        )
    asked, options = known[0], [choice.name for choice in known[0].choices]
    card, model = _model_values("classifier", values, "mobilenet_v2")
    classes = [
        MappedClass(yaml_text(name), option, CHECK_IT if is_guess else "")
        for name, (option, is_guess) in classes_of_options(card, options).items()
    ]
    routing = _routing(project, stages[0], options) if len(stages) == 1 else {}
    is_clear = [each.name for each in known].count(asked.name) == 1
    labels = {"classification": asked.name if is_clear else asked.feature_hash, **values.get("labels", {})}
    return _render(
        f"Answers to '{one_line(asked.name)}' for project '{one_line(project.title)}', by {_model_text(model, card)}.",
        path,
        "classifier",
        {**values, "classifier": model, "labels": labels},
        label_notes=[_classification_text(each) for each in known],
        classes=classes,
        routing=routing,
        **common,
    )


def _render(title: str, path: Path, agent: str, values: Values, **parts: object) -> str:
    """Returns the text of a config. `parts` are variables of the template; missing ones are empty."""
    is_encord = values["source"]["use"] == "encord"
    labels = {
        **({"answers": "range"} if agent == "classifier" else {"instances": "per_frame"}),
        **values.get("labels", {}),
    }
    top_values = {key: value for key, value in values.items() if not isinstance(value, Mapping)}
    if "classes" in labels:
        parts["classes"] = ()
    if "prompts" in labels:
        parts["prompts"] = ()
    if top_values.keys() & {"pathway", "routing"}:
        parts |= {"pathway": None, "routing": {}}
    unused_labels = set(LabelsSection.model_fields) - _LABELS_OF[agent]
    if parts.get("classes") or "classes" in labels:
        unused_labels.add("classes")
    others = ["reader", *(["tracker"] if agent == "detector" else []), "sink", "retries", "report"]
    if parts.get("prompts") or "prompts" in labels:
        unused_labels.add("prompts")
    lists = ("source_notes", "label_notes", "pathway_notes", "classes", "prompts", "stages")
    return render_config(
        **{**dict.fromkeys(lists, ()), "routing": {}, "pathway": None, **parts},
        title=title,
        path=path,
        agent=agent,
        project=is_encord,
        models={**_SECTIONS, "source": EncordSection if is_encord else FolderSection},
        values={**{name: {} for name in _SECTIONS}, **values, "labels": labels},
        top_values=top_values,
        unused_labels=unused_labels,
        others=[*others, "on_failure"] if is_encord else others,
        openai_note=OPENAI_NOTE,
        check_it=CHECK_IT,
    )


# The model


def card_of(weights: str) -> ModelCard | None:
    """Returns the card of a model; None if its weights need no card.

    Raises:
        ConfigError: there is no such model, or its weights need a card that does not exist.
    """
    card = find_card(weights)
    if card is not None:
        return card
    if Path(weights).suffix == ".pth":
        raise ConfigError(
            f"weights '{weights}': torchvision's need a card that says which network they are for: "
            f"models/{Path(weights).stem}.yaml with file, licence, use: torchvision, builder and classes"
        )
    if not Path(weights).suffix and not Path(weights).exists():
        raise ConfigError(f"weights '{weights}': no model of this name; {did_you_mean(weights, card_names())}")
    return None


def _model_values(agent: str, values: Values, usual_weights: str) -> tuple[ModelCard | None, dict[str, Any]]:
    """Returns the card and the section values of the user's model, or else of the default model."""
    given = dict(values.get(agent, {}))
    if "use" in given and "weights" not in given:  # a user's own detector may need no weights
        return None, given
    weights = str(given.pop("weights", usual_weights))
    card = None if given.get("use") == "transformers" else card_of(weights)  # a hub id or a folder needs no card
    use = given.pop("use", card.use if card is not None else "ultralytics")
    conf = 0.5 if agent == "classifier" else 0.25
    return card, {"use": use, "weights": weights, "conf": conf, **given}


def _model_text(model: Values, card: ModelCard | None) -> str:
    licence = f" (licence: {card.licence})" if card is not None else ""
    return f"{one_line(model.get('weights', model['use']))}{licence}"


# The ontology


def _object_notes(ontology: Ontology) -> list[str]:
    return [
        f"objects of ontology '{one_line(ontology.title)}':",
        *(f"  {one_line(each.name)} ({_shape_text(each)})" for each in ontology.objects),
    ]


def _shape_text(target: OntologyObject) -> str:
    shape = target.shape.replace("_", " ")
    if target.shape == "skeleton":
        return f"{shape}: needs a model with keypoints"
    if target.shape not in BOX_SHAPES:
        return f"{shape}: a box cannot be written as one"
    return shape if target.shape == BOX_SHAPES[0] else f"{shape}: from a model with masks, else the box as one"


def _classification_text(classification: Classification) -> str:
    options = [one_line(choice.name) for choice in classification.choices[:OPTIONS_SHOWN]]
    more = ", …" if len(classification.choices) > OPTIONS_SHOWN else ""
    answers = f"{', '.join(options)}{more}" if options else "any text"
    return f"'{one_line(classification.name)}' ({classification.kind}): {answers}"


# The workflow


def agent_stages(project: EncordProject) -> list[AgentStage]:
    """Returns the agent stages of a project."""
    from encord.workflow import AgentStage

    return [stage for stage in project.sdk.workflow.stages if isinstance(stage, AgentStage)]


def choose_stages(project: EncordProject, name: str | None) -> Sequence[AgentStage]:
    """Returns the agent stage with this title or uuid; without a name, all agent stages of the project.

    Raises:
        AccountError: there is no such stage, or a stage has no pathway.
    """
    stages = agent_stages(project) if name is None else [project.agent_stage(name)]
    if not stages:
        raise AccountError(f"project {project.title!r} has no agent stage: add one to its workflow, before annotation")
    for stage in stages:
        if not stage.pathways:
            raise AccountError(
                f"stage {stage.title!r} has no pathway, so no task can leave it: draw one in the workflow"
            )
    return stages


def _stage_name(stage: AgentStage, titles: Sequence[str]) -> str:
    """Returns the stage's title, or its uuid if several stages have that title."""
    return stage.title if titles.count(stage.title) == 1 else str(stage.uuid)


def _stage_pathway(project: EncordProject, stage: AgentStage, titles: Sequence[str]) -> StagePathway:
    goals = {found.uuid: found.title for found in project.sdk.workflow.stages}
    notes = [f"pathways of stage '{one_line(stage.title)}':"]
    for pathway in stage.pathways:
        goal = goals.get(pathway.destination_uuid)
        notes.append(f"  '{one_line(pathway.name)}'" + (f", to stage '{one_line(goal)}'" if goal is not None else ""))
    note = CHECK_IT if len(stage.pathways) > 1 else ""
    chosen = _pathway_name(stage, _first_to_people(project, stage.pathways))
    return StagePathway(_stage_name(stage, titles), chosen, note, notes)


def _first_to_people(project: EncordProject, pathways: Sequence[AgentPathway]) -> AgentPathway:
    """Returns the first pathway to an annotation stage, or else the first pathway."""
    from encord.workflow import AnnotationStage

    people = {stage.uuid for stage in project.sdk.workflow.stages if isinstance(stage, AnnotationStage)}
    return next((pathway for pathway in pathways if pathway.destination_uuid in people), pathways[0])


def _pathway_name(stage: AgentStage, pathway: AgentPathway) -> str:
    """Returns the pathway's name, or its uuid if several pathways of the stage have that name."""
    is_clear = [other.name for other in stage.pathways].count(pathway.name) == 1
    return pathway.name if is_clear else str(pathway.uuid)


def _routing(project: EncordProject, stage: AgentStage, options: Iterable[str]) -> dict[str, str]:
    """Returns routing rules: for each option, the pathway whose name contains it, and a pathway for other tasks.

    The result is empty if no pathway's name contains an option.
    """
    found: dict[str, str] = {}
    for option in options:
        wanted = f" {_singular(option)} "
        pathway = next((each for each in stage.pathways if wanted in f" {_singular(each.name)} "), None)
        if pathway is not None:
            found[yaml_text(option)] = _pathway_name(stage, pathway)
    if not found:
        return {}
    left = [pathway for pathway in stage.pathways if _pathway_name(stage, pathway) not in found.values()]
    return {**found, "otherwise": _pathway_name(stage, _first_to_people(project, left or stage.pathways))}


def _singular(text: str) -> str:
    return " ".join(word.removesuffix("s") for word in text.casefold().split())
