"""What a part may have besides what it must: each is looked for by `isinstance`, and none is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, Self, runtime_checkable

from prelabel.data.detections import Detections
from prelabel.data.frames import FrameBatch
from prelabel.data.geometry import BOXES_ONLY, GEOMETRY_KINDS, GeometryKind, OutputSpec
from prelabel.plugins.protocols import Detector, ModelRecord


@runtime_checkable
class Warns(Protocol):
    """A part that says what somebody should know of a run, though it failed no task."""

    @property
    def warnings(self) -> Sequence[str]:
        """In sentences; may grow while the run goes on."""


def warnings_of(*parts: object) -> list[str]:
    """Returns what those of the parts that warn have to say."""
    return [warning for part in parts if isinstance(part, Warns) for warning in part.warnings]


# Of a detector or a classifier.


@runtime_checkable
class HasModel(Protocol):
    """One that knows which model it is."""

    @property
    def model(self) -> ModelRecord:
        """Goes on record beside the labels."""


def model_of(part: object) -> ModelRecord | None:
    """Returns which model a part is; None of one that does not say, or means something else by `model`."""
    model: object = part.model if isinstance(part, HasModel) else None
    return model if isinstance(model, ModelRecord) else None


@runtime_checkable
class PrefersBatchSize(Protocol):
    """One that knows how much it takes at a time."""

    @property
    def default_batch_size(self) -> int:
        """Frames or pictures a batch, where a config leaves it open."""


def preferred_batch_size(part: object, otherwise: int) -> int:
    """Returns the batch size that a part prefers, `otherwise` of one that does not say."""
    return part.default_batch_size if isinstance(part, PrefersBatchSize) else otherwise


@runtime_checkable
class CountsUsage(Protocol):
    """A classifier behind a service, or an agent that runs one."""

    @property
    def usage(self) -> Mapping[str, float]:
        """What was counted so far: requests, tokens, cost."""


@runtime_checkable
class WarnsOfUsage(Protocol):
    """One that counts usage, and knows what of it somebody should know."""

    def usage_warnings(self, usage: Mapping[str, float]) -> Sequence[str]:
        """Returns it in sentences, from what was counted in one run: the model may be that of others, too."""


def usage_warnings(part: object, usage: Mapping[str, float]) -> list[str]:
    """Returns what a part has to say of what it counted in a run; nothing of one that does not warn."""
    return list(part.usage_warnings(usage)) if isinstance(part, WarnsOfUsage) else []


# Of a detector.


@runtime_checkable
class Replicable(Protocol):
    """A detector that can stand several times on the same weights, so that a CPU computes parts of a batch at once."""

    def replicate(self) -> Self | None:
        """Returns one that gives the same, and may be called from a thread of its own; None: not on this device."""


@runtime_checkable
class RawThreshold(Protocol):
    """A detector that gives boxes which are not meant for labels, so that the threshold can be lowered later."""

    @property
    def conf(self) -> float:
        """Confidence from which boxes become labels."""

    @property
    def lowest_conf(self) -> float:
        """Confidence down to which it gives boxes."""


@runtime_checkable
class HasDevice(Protocol):
    """A detector that wants its frames on a device."""

    @property
    def device(self) -> object:
        """Such as `cuda:0`, as text or as torch has it."""


@runtime_checkable
class StartsBatches(Protocol):
    """A detector that can begin with a batch while the one before is awaited."""

    def start(self, batch: FrameBatch) -> Callable[[], list[Detections]]:
        """Begins with a batch and returns what waits for what `detect` would have returned."""


def start_batch(detector: Detector, batch: FrameBatch) -> Callable[[], list[Detections]]:
    """Begins with a batch, where the detector can, and returns what waits for its detections."""
    if isinstance(detector, StartsBatches):
        return detector.start(batch)
    found = detector.detect(batch)
    return lambda: found


@runtime_checkable
class FitsBatches(Protocol):
    """A detector that knows how many frames of a size use its device well."""

    def fit_batch(self, height: int, width: int) -> int:
        """Returns the frames a batch."""


@runtime_checkable
class GivesGeometry(Protocol):
    """A detector that can tell more of a thing than its box."""

    @property
    def geometry(self) -> GeometryKind | None:
        """The kind of all the geometry that it gives; None: it gives boxes alone."""


@runtime_checkable
class NamesKeypoints(Protocol):
    """A detector that gives keypoints."""

    @property
    def keypoint_names(self) -> Sequence[str]:
        """Of the points of each `Keypoints`, in their order."""


@runtime_checkable
class GivesGeometryOnRequest(Protocol):
    """A detector that gives boxes alone until it is asked for more, since more takes time."""

    def with_geometry(self, class_ids: frozenset[int]) -> Detector:
        """Returns a detector of the same model that gives geometry of these classes; this one stays as it is."""


def output_spec(detector: Detector) -> OutputSpec:
    """Returns what a detector can tell beyond boxes; nothing of one that means something else by `geometry`."""
    kind: object = detector.geometry if isinstance(detector, GivesGeometry) else None
    named = next((known for known in GEOMETRY_KINDS if known == kind), None)
    if named is None:
        return BOXES_ONLY
    return OutputSpec(named, tuple(detector.keypoint_names) if isinstance(detector, NamesKeypoints) else ())


# Of a class that is built: asked for before it is.


@runtime_checkable
class TakesClasses(Protocol):
    """A classifier's class that is told which classes to tell apart, by its option `classes`."""

    @property
    def takes_classes(self) -> bool:
        """Whether it has to be told: it knows none of its own."""


@runtime_checkable
class ChecksAvailability(Protocol):
    """A reader's class that knows what it needs of a machine."""

    @staticmethod
    def unavailable_reason(device: str) -> str | None:
        """Returns why it cannot work on this machine with such a device; None if it can."""
