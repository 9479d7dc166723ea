"""What must hold before frame 0: each check says what is there, or raises what is wrong and what to do."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from prelabel.assembly.assemble import Assembly
from prelabel.data.frames import VideoInfo
from prelabel.errors import ConfigError, MachineError, SetupError, did_you_mean
from prelabel.labels.filter import class_thresholds
from prelabel.plugins.load import load_plugin
from prelabel.plugins.traits import unavailable_reason

CLASSES_SHOWN = 3
OPTIONS_SHOWN = 20


def check_function(assembly: Assembly) -> str:
    """Returns which function is called, and with what, in words.

    Raises:
        SetupError: it is not there, does not take its options, or asks for what there is not.
    """
    from prelabel.run.agents.function import load_function

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
        from prelabel.media.choose import check_device

        check_device(section.device)
        return f"chosen by file; device {section.device}"
    plugin = load_plugin("reader", section.use, assembly.folder, section.own_keys)
    plugin.check_options(section.options, num_positional=1)
    reason = unavailable_reason(plugin.factory, section.device)
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
        return "none: each detection is an instance of its own"
    linking.new_tracker(VideoInfo(width=64, height=64, num_frames=1, average_fps=25.0, duration_seconds=0.04))
    return (
        f"{parts.tracker_plugin.use}, of {linking.min_length} detections or more, "
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
    if not source.moves_tasks:
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
    assembly.source.prepare()
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
