"""Checks the components of a detection run before the first frame, and describes them for `prelabel check`."""

from __future__ import annotations

import numpy as np

from prelabel.assembly.assemble import Assembly
from prelabel.data.frames import FrameBatch, VideoInfo
from prelabel.data.geometry import GeometryKind
from prelabel.data.label_map import NAMES_IN_SHORT, LabelMap
from prelabel.errors import ConfigError, DetectError, PluginError
from prelabel.labels.filter import class_thresholds
from prelabel.plugins.traits import traits_of, warnings_of
from prelabel.run.agents.checks import describe_model

_MADE_FROM: dict[GeometryKind, str] = {
    "mask": "masks",
    "polygons": "polygons",
    "rotated_box": "rotated boxes",
    "keypoints": "keypoints",
}
_FROM_BOXES = {"polygon": "their four corners", "bitmask": "filled", "rotatable_bounding_box": "without a rotation"}


def check_labels(assembly: Assembly) -> None:
    """Creates and checks every component that turns boxes into labels.

    Raises:
        SetupError: a component is misconfigured.
    """
    check_tracker(assembly)
    check_keyframes(assembly)
    check_refiner(assembly)
    class_thresholds(assembly.config.labels.conf, assembly.detection.label_map)
    _ = assembly.detection.provider.threshold, assembly.sink


def check_tracker(assembly: Assembly) -> str:
    """Describes how boxes become tracks.

    Raises:
        SetupError: the tracker is missing, rejects its options, or does not start.
    """
    parts = assembly.detection
    linking = parts.linking
    if linking is None:
        return "none: each detection is an instance of its own"
    linking.new_tracker(VideoInfo(width=64, height=64, num_frames=1, average_fps=25.0, duration_seconds=0.04))
    return (
        f"{parts.tracker_plugin.use}; tracks of {linking.limits.min_length} detections or more; "
        f"gaps of up to {linking.max_gap_seconds:g} s filled in"
    )


def check_keyframes(assembly: Assembly) -> None:
    """Checks that the frames between a track's kept boxes can be filled in with boxes.

    Raises:
        ConfigError: an ontology object has another shape than a box.
    """
    labels = assembly.detection.label_map
    if assembly.config.labels.keyframes is None or not labels.wants_geometry:
        return
    class_id = min(labels.wants_geometry)
    target = labels.objects[class_id]
    assert target is not None
    raise ConfigError(
        f"labels.keyframes: fills the frames between kept boxes with boxes, and labels.classes makes "
        f"{labels.class_names[class_id]!r} the {target.shape} {target.name!r}: "
        "leave keyframes out, or map the class to a bounding box"
    )


def check_refiner(assembly: Assembly) -> str:
    """Describes how boxes become masks, after trying it on a black frame.

    Raises:
        SetupError: the refiner is missing, rejects its options, does not load, or does not return masks.
    """
    parts = assembly.detection
    refinement, model = parts.refinement, parts.refine_model
    if refinement is None or model is None:
        return "none"
    device = traits_of(refinement.refiner).device or "cpu"
    black = FrameBatch(np.zeros((1, 64, 64, 3), np.uint8), np.zeros(1, np.int64), np.zeros(1))
    try:
        refinement.masks(black, [np.array([[8, 8, 56, 56]], np.float32)])
    except DetectError as error:
        raise PluginError(str(error)) from error
    names = sorted({str(found.name) for i in parts.label_map.refined if (found := parts.label_map.objects[i])})
    shown = ", ".join(names[:NAMES_IN_SHORT]) + (", …" if len(names) > NAMES_IN_SHORT else "")
    return f"{model.name} on {device} makes masks from the boxes of {shown}"


def describe_detector(assembly: Assembly) -> str:
    """Describes the model, batch size, replicas and warnings of the detector."""
    parts = assembly.detection
    described = describe_model(parts.provider.model, len(parts.provider.detector.class_names), parts.batch_size)
    replicas = f" in {parts.num_replicas} replicas" if parts.num_replicas > 1 else ""
    return "; ".join([described + replicas, *_words_text(assembly), *warnings_of(parts.provider.detector)])


def _words_text(assembly: Assembly) -> list[str]:
    """Describes the words that an open-vocabulary detector looks for; empty for other detectors."""
    passes = traits_of(assembly.detection.provider.detector).word_passes
    if not passes:
        return []
    said = [f"looks in {len(passes)} pass{'es' if len(passes) > 1 else ''} for: {' | '.join(map(', '.join, passes))}"]
    labels = assembly.config.labels
    if labels.nms_iou is None and (len(passes) > 1 or any(len(words) > 1 for words in labels.prompts.values())):
        said.append("several words may find one thing: labels.nms_iou: 0.7 keeps the most confident box")
    return said


def describe_label_map(assembly: Assembly) -> str:
    """Describes the ontology objects and what they are made from."""
    labels, ontology = assembly.detection.label_map, assembly.detection.ontology
    class_thresholds(assembly.config.labels.conf, labels)
    check_keyframes(assembly)
    return "; ".join([f"{len(labels.categories)} objects of '{ontology.title}'", *_made_from(labels), *labels.notes])


def _made_from(labels: LabelMap) -> list[str]:
    """Describes what objects other than bounding boxes are made from. Long lists of names are shortened."""
    names: dict[str, list[str]] = {}
    for category in labels.categories:
        shape, kind = category.shape.replace("_", " "), labels.offer.kind
        if any(labels.objects[class_id] == category for class_id in labels.refined):
            names.setdefault(f"{shape} from boxes, refined to masks", []).append(category.name)
        elif kind is not None and category.shape in labels.offer.shapes:
            names.setdefault(f"{shape} from {_MADE_FROM[kind]}", []).append(category.name)
        elif category.shape in _FROM_BOXES:
            names.setdefault(f"{shape} from boxes, {_FROM_BOXES[category.shape]}", []).append(category.name)
    return [
        f"{made_from}: {', '.join(of[:NAMES_IN_SHORT])}"
        + (f" and {len(of) - NAMES_IN_SHORT} more" if len(of) > NAMES_IN_SHORT else "")
        for made_from, of in names.items()
    ]
