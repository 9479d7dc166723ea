"""Configs to start from: commented, ready to run, for a folder or from what an Encord project has."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from prelabel.cards import ModelCard, find_card, model_folders
from prelabel.config import (
    Config,
    DetectorSection,
    EncordSection,
    FolderSection,
    LabelsSection,
    ReaderSection,
    TrackerSection,
)
from prelabel.encord_api.connection import DEFAULT_DOMAIN
from prelabel.errors import AccountError, ConfigError, did_you_mean
from prelabel.ontology import BOX_SHAPES, Ontology, OntologyObject
from prelabel.scaffold.class_guess import Proposal, known_classes, propose_map
from prelabel.scaffold.commented_yaml import comment, description, entry, field, idle_field, one_line, quoted, yaml_text

if TYPE_CHECKING:
    from encord.workflow import AgentStage
    from encord.workflow.stages.agent import AgentPathway

    from prelabel.encord_api.client import EncordProject

CHECK_IT = "a guess: check"

_ULTRALYTICS_OPTIONS = (
    ("iou", 0.7, "boxes of one class that overlap more than this are one"),
    ("imgsz", 640, "longest side of the network's input, in pixels"),
    ("max_det", 300, "boxes a frame at most"),
    ("half", "auto", "float16; auto: on a GPU"),
)


def config_for_folder(path: Path, *, weights: str = "yolo11n") -> str:
    """Returns a config for the videos and pictures of a folder.

    Args:
        path: a file, a folder or a glob.
        weights: a card's name, a path or an address.

    Raises:
        ConfigError: there is no such model, or its weights need a card that is not there.
    """
    card = _card(weights)
    return _join(
        comment(f"Boxes for what is in {one_line(path)}, found by {one_line(weights)}."),
        _next_steps("prelabel run CONFIG"),
        "source:",
        entry("use", "folder", "or: encord, an agent stage of a project; prelabel init --project HASH writes that"),
        field(FolderSection, "path", str(path)),
        field(FolderSection, "output", "out"),
        field(FolderSection, "preview", "none"),
        idle_field(FolderSection, "ontology", "ontology.json"),
        idle_field(FolderSection, "truth", "truth.json"),
        *_reader_section(),
        *_detector_section(weights, card),
        "labels:",
        *_class_comment(card),
        comment("classes: {car: Vehicle, truck: Vehicle, bottle: null}", indent=2),
        *_label_entries("Vehicle"),
        *_frames_entry(),
    )


def config_for_project(project: EncordProject, *, stage: str | None = None, weights: str = "yolo11n") -> str:
    """Returns a config for an agent stage, with a map from the model's classes to the project's objects proposed.

    Args:
        project: where the stage, its pathways and the ontology are looked up.
        stage: title or uuid of the agent stage; None: the only one that there is.
        weights: a card's name, a path or an address.

    Raises:
        AccountError: there is no such stage, or several and none is named, or no task could leave it.
        ConfigError: there is no such model, or its weights need a card that is not there.
    """
    card = _card(weights)
    agent_stage = _choose_stage(project, stage)
    ontology = project.ontology()
    first = next((each.name for each in ontology.objects if each.shape in BOX_SHAPES), "Vehicle")
    return _join(
        comment(f"Boxes for project '{one_line(project.title)}', found by {one_line(weights)}."),
        _next_steps("prelabel run CONFIG --dry-run --limit 2      labels to files, nothing saved or moved"),
        *_encord_section(project, agent_stage),
        *_reader_section(),
        *_detector_section(weights, card),
        "labels:",
        *_object_comments(ontology),
        *_class_map(known_classes(card), ontology, weights),
        *_label_entries(first),
        *_pathway_entry(project, agent_stage),
        *_frames_entry(),
    )


def _card(weights: str) -> ModelCard | None:
    card = find_card(weights)
    if card is not None:
        return card
    if Path(weights).suffix == ".pth":
        raise ConfigError(
            f"weights '{weights}': torchvision's need a card that says which network they are for: "
            f"models/{Path(weights).stem}.yaml with file, licence, use: torchvision, builder and classes"
        )
    if not Path(weights).suffix and not Path(weights).exists():
        names = [path.stem for folder in model_folders() for path in folder.glob("*.yaml")]
        raise ConfigError(f"weights '{weights}': no model of this name; {did_you_mean(weights, names)}")
    return None


def _choose_stage(project: EncordProject, name: str | None) -> AgentStage:
    from encord.workflow import AgentStage

    if name is not None:
        return project.agent_stage(name)
    stages = [stage for stage in project.sdk.workflow.stages if isinstance(stage, AgentStage)]
    if not stages:
        raise AccountError(f"project {project.title!r} has no agent stage: add one to its workflow, before annotation")
    if len(stages) > 1:
        listed = ", ".join(f"--stage {stage.title!r}" for stage in stages)
        raise AccountError(f"project {project.title!r} has {len(stages)} agent stages: say which: {listed}")
    return stages[0]


def _encord_section(project: EncordProject, chosen: AgentStage) -> Iterable[str]:
    from encord.workflow import AgentStage

    stages = [stage for stage in project.sdk.workflow.stages if isinstance(stage, AgentStage)]
    titles = [stage.title for stage in stages]
    yield "source:"
    yield entry("use", "encord", "or: folder, videos on this machine; prelabel init --folder FOLDER writes that")
    yield field(EncordSection, "project_hash", project.project_hash)
    yield comment(f"agent stages of this project: {quoted(titles)}", indent=2)
    yield field(EncordSection, "stage", chosen.title if titles.count(chosen.title) == 1 else str(chosen.uuid))
    if project.caller.domain != DEFAULT_DOMAIN:
        yield field(EncordSection, "domain", project.caller.domain)
    yield field(EncordSection, "output", "out")
    yield field(EncordSection, "cache_gb", 20)
    yield field(EncordSection, "fetch_workers", 4)
    yield idle_field(EncordSection, "order", "shuffled")
    yield field(EncordSection, "record", True)


def _pathway_entry(project: EncordProject, stage: AgentStage) -> Iterable[str]:
    if not stage.pathways:
        raise AccountError(f"stage {stage.title!r} has no pathway, so no task can leave it: draw one in the workflow")
    stages = {found.uuid: found for found in project.sdk.workflow.stages}
    names = [pathway.name for pathway in stage.pathways]
    to_people = [pathway for pathway in stage.pathways if _leads_to_annotation(pathway, stages)]
    chosen = (to_people or stage.pathways)[0]
    yield ""
    yield comment(f"pathways of stage '{one_line(stage.title)}':")
    for pathway in stage.pathways:
        goal = stages.get(pathway.destination_uuid)
        goal_title = f", to stage '{one_line(goal.title)}'" if goal is not None else ""
        yield comment(f"  '{one_line(pathway.name)}'{goal_title}")
    value = chosen.name if names.count(chosen.name) == 1 else str(chosen.uuid)
    yield entry("pathway", value, CHECK_IT if len(names) > 1 else description(Config, "pathway"), indent=0)


def _leads_to_annotation(pathway: AgentPathway, stages: Mapping[UUID, object]) -> bool:
    from encord.workflow import AnnotationStage

    return isinstance(stages.get(pathway.destination_uuid), AnnotationStage)


def _reader_section() -> Iterable[str]:
    yield ""
    yield "reader:"
    yield field(ReaderSection, "use", "auto")
    yield field(ReaderSection, "device", "auto")
    yield field(ReaderSection, "stride", 1)
    yield idle_field(ReaderSection, "only_keyframes", True)
    yield idle_field(ReaderSection, "frame_ranges", [[0, 299]])
    yield idle_field(ReaderSection, "isolate", "never")
    yield idle_field(ReaderSection, "stall_seconds", 300)
    yield idle_field(ReaderSection, "max_memory_gb", 16)
    yield idle_field(ReaderSection, "sessions", 4)


def _detector_section(weights: str, card: ModelCard | None) -> Iterable[str]:
    use = card.use if card is not None else "ultralytics"
    licence = f"; licence {card.licence}" if card is not None else ""
    yield ""
    yield "detector:"
    yield field(DetectorSection, "use", use)
    yield entry("weights", weights, f"a card in models/, a path or an address{licence}")
    yield entry("conf", 0.25, "least confidence of a box that becomes a label")
    if use == "ultralytics":
        for key, value, why in _ULTRALYTICS_OPTIONS:
            yield entry(key, value, why)
    yield field(DetectorSection, "batch_size", "auto")
    yield entry("device", "auto", "auto | cpu | cuda | cuda:N")
    yield ""


def _class_comment(card: ModelCard | None) -> Iterable[str]:
    yield comment(description(LabelsSection, "classes"), indent=2)
    names = known_classes(card)
    if names:
        yield comment(f"the model's classes: {', '.join(map(one_line, names))}", indent=2)


def _object_comments(ontology: Ontology) -> Iterable[str]:
    yield comment(description(LabelsSection, "classes"), indent=2)
    yield comment(f"objects of ontology '{one_line(ontology.title)}':", indent=2)
    for each in ontology.objects:
        yield comment(f"  {one_line(each.name)} ({_shape_text(each)})", indent=2)


def _shape_text(target: OntologyObject) -> str:
    shape = target.shape.replace("_", " ")
    if target.shape not in BOX_SHAPES:
        return f"{shape}: a box cannot be written as one"
    return shape if target.shape == BOX_SHAPES[0] else f"{shape}: a box is written as one"


def _class_map(class_names: Sequence[str], ontology: Ontology, weights: str) -> Iterable[str]:
    if not class_names:
        yield comment(
            f"which classes {one_line(weights)} has is known once it is loaded: prelabel check CONFIG tells", indent=2
        )
        yield comment("classes: {car: Vehicle, truck: Vehicle, bottle: null}", indent=2)
        return
    proposals = propose_map(class_names, ontology)
    if not any(proposals.values()):
        yield comment("no class of the model is called like one of them: map those that you want", indent=2)
        yield entry("classes", {}, "")
    else:
        yield "  classes:"
    for name, proposal in proposals.items():
        if proposal is not None:
            yield _map_entry(name, proposal)
    for name, proposal in proposals.items():
        if proposal is None:
            yield comment(f"{yaml_text(name)}: null", indent=4)


def _map_entry(class_name: str, proposal: Proposal) -> str:
    return entry(yaml_text(class_name), proposal.target, CHECK_IT if proposal.is_guess else "", indent=4)


def _label_entries(object_name: str) -> Iterable[str]:
    yield field(LabelsSection, "unmapped", "ignore")
    yield field(LabelsSection, "if_begun", "merge")
    yield idle_field(LabelsSection, "conf", {object_name: 0.5})
    yield idle_field(LabelsSection, "size", {"min_side_px": 8})
    yield idle_field(LabelsSection, "zones", {"exclude": [[[0, 0], [1, 0], [1, 0.1], [0, 0.1]]]})
    yield idle_field(LabelsSection, "nms_iou", 0.8)
    yield idle_field(LabelsSection, "flicker", {"seen": 2, "of": 3})
    yield idle_field(LabelsSection, "max_per_frame", 50)
    yield field(LabelsSection, "instances", "per_frame")
    yield idle_field(LabelsSection, "keyframes", {"min_iou": 0.9})
    yield field(LabelsSection, "max_row_mb", 50)
    yield ""
    yield "tracker:"
    yield field(TrackerSection, "use", "bytetrack")
    yield field(TrackerSection, "max_gap_seconds", 0.2)
    yield field(TrackerSection, "min_length", 3)


def _frames_entry() -> Iterable[str]:
    yield ""
    yield comment(description(Config, "frames"))
    yield "frames: strict"


def _next_steps(run: str) -> str:
    steps = f"""
        Next: prelabel check CONFIG      all that can be known before frame 0
              {run}
        Any value can be given for one run: --set detector.conf=0.4
    """
    return "\n".join(comment(line) for line in textwrap.dedent(steps).strip().splitlines()) + "\n"


def _join(*lines: str) -> str:
    return "\n".join(lines) + "\n"
