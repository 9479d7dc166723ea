"""Optional facts and methods of detectors and classifiers, with their defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeGuard

from prelabel.data.detections import Detections
from prelabel.data.frames import FrameBatch
from prelabel.data.geometry import BOXES_ONLY, OutputSpec
from prelabel.errors import PluginError
from prelabel.plugins.protocols import Classifier, ClassifierExtras, Detector, DetectorExtras, ModelRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTraits:
    """The facts that a detector or classifier states in its attribute `traits`. Each is optional.

    Attributes:
        model: the model, recorded with the labels.
        batch_size: frames or images per batch, if the config sets none.
        device: device on which a detector expects frames, such as `cuda:0`; frames are copied there before `detect`.
        conf: least confidence of a box that becomes a label, for a detector that also outputs boxes below it.
        raw_conf: least confidence of the boxes that such a detector outputs. They are stored, so that `conf` can be
            lowered later without another run of the model.
        output: what a detector can output in addition to boxes.
        word_passes: the words of each pass of an open-vocabulary detector; empty if it has none yet, or only
            `class_names` of its own; None: its classes are fixed.
    """

    model: ModelRecord | None = None
    batch_size: int | None = None
    device: str | None = None
    conf: float | None = None
    raw_conf: float | None = None
    output: OutputSpec = BOXES_ONLY
    word_passes: tuple[tuple[str, ...], ...] | None = None

    def __post_init__(self) -> None:
        if (self.conf is None) != (self.raw_conf is None):
            raise ValueError(f"traits: got conf {self.conf} and raw_conf {self.raw_conf}, expected both or neither")


def traits_of(model: object) -> ModelTraits:
    """Returns the traits of a detector or classifier, or defaults if it has none.

    Raises:
        PluginError: its attribute `traits` is something else.
    """
    traits = getattr(model, "traits", None)
    if traits is None:
        return ModelTraits()
    if not isinstance(traits, ModelTraits):
        name = type(model).__name__
        raise PluginError(f"{name}.traits: got {type(traits).__name__}, expected prelabel.ModelTraits")
    return traits


def has_method(
    detector: Detector, name: Literal["start", "fit_batch", "replicate", "with_geometry", "with_words"]
) -> TypeGuard[DetectorExtras]:
    """Returns whether a detector has this optional method. It may still lack the others that the type guard names."""
    return callable(getattr(detector, name, None))


def start_batch(detector: Detector, batch: FrameBatch) -> Callable[[], list[Detections]]:
    """Starts detection on a batch and returns a function that waits for the result.

    A detector without `start` has finished when this returns.
    """
    if has_method(detector, "start"):
        return detector.start(batch)
    detections = detector.detect(batch)
    return lambda: detections


def has_preparation(classifier: Classifier) -> TypeGuard[ClassifierExtras]:
    """Returns whether a classifier prepares images by itself: it has both methods for that."""
    return all(callable(getattr(classifier, name, None)) for name in ("prepare", "classify_prepared"))


def warnings_of(*parts: object) -> list[str]:
    """Returns the warnings of all given components that have an attribute `warnings`."""
    return [warning for part in parts for warning in getattr(part, "warnings", ())]


def usage_of(classifier: object) -> dict[str, float]:
    """Returns a classifier's usage counters so far, such as requests, tokens and cost; empty if it has none."""
    return dict(getattr(classifier, "usage", {}))


def usage_warnings(classifier: object, usage: Mapping[str, float]) -> Sequence[str]:
    """Returns a classifier's warnings about the usage of one run. Other runs may share the classifier."""
    warn: Callable[[Mapping[str, float]], Sequence[str]] | None = getattr(classifier, "usage_warnings", None)
    return [] if warn is None else warn(usage)


def unavailable_reason(reader: object, device: str) -> str | None:
    """Returns why a reader cannot use a device on this machine; None if it can, or does not state it."""
    explain: Callable[[str], str | None] | None = getattr(reader, "unavailable_reason", None)
    return None if explain is None else explain(device)
