"""All that can be known before frame 0, looked at one by one for a person."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from prelabel.assembly.assemble import Assembly
from prelabel.data.geometry import GeometryKind
from prelabel.data.label_map import NAMES_IN_SHORT, LabelMap
from prelabel.errors import SetupError
from prelabel.labels.filter import class_thresholds
from prelabel.plugins.protocols import ModelRecord
from prelabel.plugins.traits import warnings_of
from prelabel.run.checks import (
    check_answers,
    check_function,
    check_keyframes,
    check_output,
    check_pathways,
    check_reader,
    check_routing,
    check_tracker,
)

_IN_WORDS: dict[GeometryKind, str] = {
    "mask": "masks",
    "polygons": "polygons",
    "rotated_box": "turned boxes",
    "keypoints": "keypoints",
}
_OF_BOXES = {"polygon": "their four corners", "bitmask": "filled", "rotatable_bounding_box": "without a turn"}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at before a run.

    Attributes:
        name: what was looked at.
        passed: whether it is as a run needs it.
        detail: what is there, or what is wrong and what to do.
    """

    name: str
    passed: bool
    detail: str


def run_checks(assembly: Assembly) -> list[Check]:
    """Returns every check, passed or not, in the order in which a run needs them."""
    parts = _parts_of_function(assembly) if assembly.config.agent is not None else _parts_of_model(assembly)
    if assembly.config.source.has_workflow:
        parts = {**parts, "pathway": check_pathways}
    if assembly.config.routing or assembly.router.priority is not None:
        parts = {**parts, "routing": check_routing}
    checks: list[Check] = []
    for name, describe in parts.items():
        check = _look(name, describe, assembly)
        first = next((earlier for earlier in checks if earlier.detail == check.detail and not earlier.passed), None)
        checks.append(check if first is None else Check(name, False, f"waits for {first.name}, above"))
    return checks


def _parts_of_model(assembly: Assembly) -> dict[str, Callable[[Assembly], str]]:
    classifies = assembly.config.classifier is not None
    parts: dict[str, Callable[[Assembly], str]] = {
        "tasks": _describe_source,
        "weights": _describe_classifier if classifies else _describe_detector,
        "reader": check_reader,
        "classes": check_answers if classifies else _describe_label_map,
        "labels": _describe_sink,
    }
    return parts if assembly.detection.linking is None else {**parts, "tracks": check_tracker}


def _parts_of_function(assembly: Assembly) -> dict[str, Callable[[Assembly], str]]:
    return {"tasks": _describe_source, "agent": check_function, "reader": check_reader}


def _describe_source(assembly: Assembly) -> str:
    return assembly.source.describe()


def _describe_detector(assembly: Assembly) -> str:
    parts = assembly.detection
    described = _describe_model(parts.finder.model, len(parts.finder.detector.class_names), parts.batch_size)
    streams = f" in {parts.num_streams} streams" if parts.num_streams > 1 else ""
    return "; ".join([described + streams, *warnings_of(parts.finder.detector)])


def _describe_model(model: ModelRecord, num_classes: int, batch_size: int) -> str:
    digest = f", sha256 {model.weights_sha256[:12]}…" if model.weights_sha256 else ""
    licence = f", licence {model.licence}" if model.licence else ""
    engine = f", in {model.engine}" if model.engine else ""
    return f"{model.name}{digest}{licence}, {num_classes} classes{engine}, batches of {batch_size}"


def _describe_classifier(assembly: Assembly) -> str:
    parts = assembly.classification
    num = parts.section.frames_per_video
    frames = "all frames that reader leaves" if num is None else f"{num} frames"
    described = _describe_model(parts.model, len(parts.classifier.class_names), parts.batch_size)
    return f"{described}; of a video it sees {frames}"


def _describe_label_map(assembly: Assembly) -> str:
    labels, ontology = assembly.detection.label_map, assembly.detection.ontology
    class_thresholds(assembly.config.labels.conf, labels)
    check_keyframes(assembly)
    return "; ".join([f"{len(labels.categories)} objects of '{ontology.title}'", *_made_of(labels), *labels.notes])


def _made_of(labels: LabelMap) -> list[str]:
    """Returns what objects that are no bounding boxes are made of, in words; of many alike the first are named."""
    names: dict[str, list[str]] = {}
    for category in labels.categories:
        shape, kind = category.shape.replace("_", " "), labels.offer.kind
        if kind is not None and category.shape in labels.offer.shapes:
            names.setdefault(f"{shape} from {_IN_WORDS[kind]}", []).append(category.name)
        elif category.shape in _OF_BOXES:
            names.setdefault(f"{shape} from boxes, {_OF_BOXES[category.shape]}", []).append(category.name)
    return [
        f"{made_of}: {', '.join(of[:NAMES_IN_SHORT])}"
        + (f" and {len(of) - NAMES_IN_SHORT} more" if len(of) > NAMES_IN_SHORT else "")
        for made_of, of in names.items()
    ]


def _describe_sink(assembly: Assembly) -> str:
    check_output(assembly.output)
    own, _ = assembly.config.sink, assembly.sink
    if own is None or assembly.dry_run:
        return assembly.rows.describe()
    return f"to {own.use}; reports into {assembly.output}"


def _look(name: str, describe: Callable[[Assembly], str], assembly: Assembly) -> Check:
    try:
        return Check(name, True, describe(assembly))
    except SetupError as error:
        return Check(name, False, str(error))
