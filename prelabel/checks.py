"""All that can be known before frame 0: looked at one by one for a person, or made at once for a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from prelabel.assemble import Assembly
from prelabel.capabilities import ChecksPathways, Describes, TellsWhyNot, warnings_of
from prelabel.config import EncordSection
from prelabel.errors import ConfigError, MachineError, SetupError, did_you_mean
from prelabel.frames import VideoInfo
from prelabel.geometry import GeometryKind
from prelabel.ontology import NAMES_IN_SHORT, LabelMap
from prelabel.plugins import load_plugin
from prelabel.protocols import ModelRecord
from prelabel.shaping import class_thresholds

CLASSES_SHOWN = 3
OPTIONS_SHOWN = 20

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


def look_through(assembly: Assembly) -> list[Check]:
    """Returns every check, passed or not, in the order in which a run needs them."""
    parts = _parts_of_function(assembly) if assembly.config.agent is not None else _parts_of_model(assembly)
    if isinstance(assembly.config.source, EncordSection):
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


def check_function(assembly: Assembly) -> str:
    """Returns which function is called, and with what, in words.

    Raises:
        SetupError: it is not there, does not take its options, or asks for what there is not.
    """
    from prelabel.agents.function import load_function

    function = load_function(assembly)
    asks = sorted(function.signature.all_asks())
    if "label_row" in asks:
        _ = assembly.ontology
    return f"{function.use}, called with {', '.join([*asks, *function.options]) or 'nothing'}"


def check_reader(assembly: Assembly) -> str:
    """Returns which reader will be used, in words.

    Raises:
        SetupError: it is not there, does not take its options, or this machine lacks what it needs.
    """
    section = assembly.config.reader
    if section.use == "auto":
        if section.options:
            key = next(iter(section.options))
            hint = did_you_mean(key, section.own_keys)
            raise ConfigError(f"reader.{key}: is no key of the section: {hint}; a reader's own options need reader.use")
        from prelabel.readers.select import check_device

        check_device(section.device)
        return f"chosen by file; device {section.device}"
    plugin = load_plugin("reader", section.use, assembly.folder, section.own_keys)
    plugin.check_options(section.options, num_positional=1)
    factory: object = plugin.factory
    reason = factory.why_not(section.device) if isinstance(factory, TellsWhyNot) else None
    if reason:
        raise MachineError(f"reader.use: {section.use}, device {section.device}: {reason}")
    return f"{section.use}, device {section.device}"


def check_tracker(assembly: Assembly) -> str:
    """Returns how boxes become tracks, in words.

    Raises:
        SetupError: the tracker is not there, does not take its options, or does not start.
    """
    parts = assembly.detection
    linking = parts.linking
    if linking is None:
        return "none: each box is an instance of its own"
    linking.new_tracker(VideoInfo(width=64, height=64, num_frames=1, average_fps=25.0, duration_seconds=0.04))
    return (
        f"{parts.tracker_plugin.use}, of {linking.min_length} boxes or more, "
        f"gaps of up to {linking.max_gap_seconds:g} s filled in"
    )


def check_output(folder: Path) -> None:
    """Makes sure that a run can write into a folder, which need not be there yet.

    Raises:
        ConfigError: it cannot.
    """
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise ConfigError(f"source.output: {folder}: {there} is a file, expected a folder: name another")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"source.output: {folder}: {there} may not be written by this user: name another folder")


def check_pathways(assembly: Assembly) -> str:
    """Returns the pathways that tasks may take, and where they lead, in words.

    Raises:
        AccountError: the stage has no such pathway.
    """
    source, failed = assembly.source, assembly.config.on_failure.pathway
    if not isinstance(source, ChecksPathways):
        return "none: tasks stay where they are"
    said = [source.check_pathway(pathway) for pathway in assembly.router.pathways]
    if not said:
        said = ["the one that the function returns"]
    if failed is not None:
        said.append(f"tasks that are set aside: {source.check_pathway(failed)}")
    return "; ".join(said)


def check_routing(assembly: Assembly) -> str:
    """Returns the rules by which tasks go, in their order.

    Raises:
        OntologyError: a rule names a class that cannot be found.
    """
    router = assembly.router
    if assembly.config.agent is not None:
        known = []
    elif assembly.config.classifier is not None:
        known = [choice.name for choice in assembly.classification.answer_map.choices]
    else:
        known = [category.name for category in assembly.detection.label_map.categories]
    router.check_classes(known)
    said = [f"{place}. {rule}" for place, rule in enumerate(router.rules, start=1)]
    return "; ".join(said if router.priority is None else [*said, f"priority: {router.priority.text}"])


def check_answers(assembly: Assembly) -> str:
    """Returns which option each class becomes, in words.

    Raises:
        SetupError: the classification, an option or a class is not there.
    """
    parts = assembly.classification
    _ = parts.thresholds
    answers = parts.answer_map
    said = []
    for place, choice in enumerate(answers.choices[:OPTIONS_SHOWN]):
        members = [answers.class_names[class_id] for class_id, becomes in answers.links.tolist() if becomes == place]
        more = f" and {len(members) - CLASSES_SHOWN} more" if len(members) > CLASSES_SHOWN else ""
        alike = members == [choice.path]
        said.append(choice.path if alike else f"{choice.path} from {', '.join(members[:CLASSES_SHOWN])}{more}")
    if len(answers.choices) > OPTIONS_SHOWN:
        said.append(f"and {len(answers.choices) - OPTIONS_SHOWN} options more")
    return "; ".join(
        [f"'{answers.classification.name}' of '{parts.ontology.title}': {said[0]}", *said[1:], *answers.notes]
    )


def prepare(assembly: Assembly) -> None:
    """Makes every part of a run, cheap ones first.

    Raises:
        SetupError: the first that is wrong.
    """
    check_output(assembly.output)
    check_reader(assembly)
    check_pathways(assembly)
    check_routing(assembly)
    if assembly.config.agent is not None:
        check_function(assembly)
    elif assembly.config.classifier is not None:
        check_answers(assembly)
        _ = assembly.sink
    else:
        check_labels(assembly)


def prepare_stages(assemblies: Sequence[Assembly]) -> None:
    """Makes every part of each stage's run.

    Raises:
        SetupError: the first that is wrong; where there are several stages, it names its own.
    """
    for assembly in assemblies:
        try:
            prepare(assembly)
        except SetupError as error:
            if len(assemblies) == 1:
                raise
            raise type(error)(f"stage {assembly.stage!r}: {error}") from error


def check_labels(assembly: Assembly) -> None:
    """Makes every part that makes labels of boxes.

    Raises:
        SetupError: the first that is wrong.
    """
    check_tracker(assembly)
    check_keyframes(assembly)
    class_thresholds(assembly.config.labels.conf, assembly.detection.label_map)
    _ = assembly.sink


def check_keyframes(assembly: Assembly) -> None:
    """Checks that the frames between keyframes can be filled in.

    Raises:
        ConfigError: more than boxes would have to stand there.
    """
    labels = assembly.detection.label_map
    if assembly.config.labels.keyframes is None or not labels.wants_geometry:
        return
    class_id = min(labels.wants_geometry)
    found = labels.objects[class_id]
    assert found is not None
    raise ConfigError(
        f"labels.keyframes: puts boxes on lines between those that it keeps, and labels.classes makes "
        f"{labels.class_names[class_id]!r} the {found.shape} {found.name!r}, of which another frame's does not fit: "
        "leave keyframes out, or map the class to a bounding box"
    )


def _describe_source(assembly: Assembly) -> str:
    source = assembly.source
    return source.describe() if isinstance(source, Describes) else type(source).__name__


def _describe_detector(assembly: Assembly) -> str:
    parts = assembly.detection
    described = _describe_model(parts.finder.model, len(parts.finder.detector.class_names), parts.batch_size)
    return "; ".join([described, *warnings_of(parts.finder.detector)])


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
    sink = assembly.sink
    if isinstance(sink, Describes):
        return sink.describe()
    own = assembly.config.sink
    return f"to {type(sink).__name__ if own is None else own.use}; reports into {assembly.output}"


def _look(name: str, describe: Callable[[Assembly], str], assembly: Assembly) -> Check:
    try:
        return Check(name, True, describe(assembly))
    except SetupError as error:
        return Check(name, False, str(error))
