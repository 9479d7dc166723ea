"""Configs that find boxes, to start from: commented, ready to run, for a folder or from what an Encord project has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prelabel.cli.init.class_guess import Proposal, known_classes, propose_map
from prelabel.cli.init.parts import (
    CHECK_IT,
    card_of,
    choose_stages,
    comment,
    commented_field,
    description,
    destinations,
    encord_section,
    entry,
    field,
    folder_section,
    frames_entry,
    joined,
    next_steps,
    one_line,
    reader_section,
    row_entries,
    weights_entry,
    yaml_text,
)
from prelabel.config.sections import DetectorSection, LabelsSection, TrackerSection
from prelabel.data.ontology import BOX_SHAPES, Ontology, OntologyObject
from prelabel.files.folder_source import FolderSection
from prelabel.models.cards import ModelCard

if TYPE_CHECKING:
    from prelabel.encord.project import EncordProject


_SETTING = "detector.conf=0.4"
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
    card = card_of(weights)
    return joined(
        comment(f"Boxes for what is in {one_line(path)}, found by {one_line(weights)}."),
        next_steps("prelabel run CONFIG", _SETTING),
        *folder_section(path),
        field(FolderSection, "preview", "none"),
        commented_field(FolderSection, "ontology", "ontology.json"),
        commented_field(FolderSection, "truth", "truth.json"),
        *reader_section(),
        *_detector_section(weights, card),
        "labels:",
        *_class_comment(card),
        comment("classes: {car: Vehicle, truck: Vehicle, bottle: null}", indent=2),
        *_label_entries("Vehicle"),
        *frames_entry(),
    )


def config_for_project(project: EncordProject, *, stage: str | None = None, weights: str | None = None) -> str:
    """Returns a config for agent stages, with a map from the model's classes to the project's objects proposed.

    Args:
        project: where the stage, its pathways and the ontology are looked up.
        stage: title or uuid of the agent stage; None: all that there are, one after the other.
        weights: a card's name, a path or an address; None: of masks for an ontology of masks, else of boxes.

    Raises:
        AccountError: there is no such stage, or no task could leave it.
        ConfigError: there is no such model, or its weights need a card that is not there.
    """
    ontology = project.ontology()
    weights = weights or _usual_weights(ontology)
    card = card_of(weights)
    stages = choose_stages(project, stage)
    first = next((each.name for each in ontology.objects if each.shape in BOX_SHAPES), "Vehicle")
    return joined(
        comment(f"Boxes for project '{one_line(project.title)}', found by {one_line(weights)}."),
        next_steps("prelabel run CONFIG --dry-run --limit 2      labels to files, nothing saved or moved", _SETTING),
        *encord_section(project, stages),
        *reader_section(),
        *_detector_section(weights, card),
        "labels:",
        *_object_comments(ontology),
        *_class_map(known_classes(card), ontology, weights),
        *_label_entries(first),
        *destinations(project, stages),
        *frames_entry(),
    )


def _usual_weights(ontology: Ontology) -> str:
    shapes = {each.shape for each in ontology.objects}
    return "yolo11n-seg" if shapes & {"polygon", "bitmask"} and "bounding_box" not in shapes else "yolo11n"


def _detector_section(weights: str, card: ModelCard | None) -> Iterable[str]:
    use = card.use if card is not None else "ultralytics"
    yield ""
    yield "detector:"
    yield field(DetectorSection, "use", use)
    yield weights_entry(weights, card)
    yield entry("conf", 0.25, "least confidence of a box that becomes a label")
    if use == "ultralytics":
        for key, value, why in _ULTRALYTICS_OPTIONS:
            yield entry(key, value, why)
    yield field(DetectorSection, "batch_size", "auto")
    yield field(DetectorSection, "replicas", "auto")
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
    if target.shape == "skeleton":
        return f"{shape}: of a model with keypoints"
    if target.shape not in BOX_SHAPES:
        return f"{shape}: a box cannot be written as one"
    return shape if target.shape == BOX_SHAPES[0] else f"{shape}: of a model with more than boxes, else a box as one"


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
    yield from row_entries()
    yield commented_field(LabelsSection, "conf", {object_name: 0.5})
    yield commented_field(LabelsSection, "size", {"min_side_px": 8})
    yield commented_field(LabelsSection, "zones", {"exclude": [[[0, 0], [1, 0], [1, 0.1], [0, 0.1]]]})
    yield commented_field(LabelsSection, "nms_iou", 0.8)
    yield commented_field(LabelsSection, "flicker", {"seen": 2, "of": 3})
    yield commented_field(LabelsSection, "max_per_frame", 50)
    yield field(LabelsSection, "instances", "per_frame")
    yield commented_field(LabelsSection, "keyframes", {"min_iou": 0.9})
    yield commented_field(LabelsSection, "polygon_tolerance_px", 2)
    yield commented_field(LabelsSection, "keypoints", {"left_knee": "Left knee"})
    yield field(LabelsSection, "max_row_mb", 50)
    yield ""
    yield "tracker:"
    yield field(TrackerSection, "use", "bytetrack")
    yield field(TrackerSection, "max_gap_seconds", 0.2)
    yield field(TrackerSection, "min_length", 3)
