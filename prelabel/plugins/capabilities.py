"""What a part may have besides what it must: each is looked for by `isinstance`, and none is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

from prelabel.data.detections import Detections
from prelabel.data.frames import FrameBatch, VideoInfo
from prelabel.data.geometry import BOXES_ONLY, GEOMETRY_KINDS, GeometryKind, OutputSpec
from prelabel.plugins.protocols import Detector, LeftAlone, ModelRecord, Task, TaskSource


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


# Of a source, and of its tasks.


@runtime_checkable
class Prioritises(Protocol):
    """A source whose tasks have a priority."""

    def prioritise(self, task: Task, priority: float) -> None:
        """Sets how urgent a task is, 0 to 1, before it moves on.

        Raises:
            SaveError: if it was not taken.
        """


@runtime_checkable
class ChecksPathways(Protocol):
    """A source that knows where its tasks can go."""

    def check_pathway(self, pathway: str | None) -> str:
        """Returns what the pathway of this name or uuid is called, and where it leads, in words.

        Raises:
            AccountError: there is none; those that exist are named.
        """


@runtime_checkable
class Describes(Protocol):
    """A source that can say what waits, or a sink that can say where labels go."""

    def describe(self) -> str:
        """Returns it in words."""


@runtime_checkable
class CountsTasks(Protocol):
    """A source that knows beforehand how many tasks it will yield."""

    def count(self) -> int:
        """Returns how many."""


@runtime_checkable
class LeavesAlone(Protocol):
    """A source some of whose tasks are not for this tool."""

    @property
    def left_alone(self) -> Sequence[LeftAlone]:
        """Those seen so far."""


@runtime_checkable
class FetchesAhead(Protocol):
    """A source several of whose tasks may be opened at the same time, each on a thread of its own."""

    @property
    def fetch_workers(self) -> int:
        """How many."""

    def close(self) -> None:
        """Ends all waiting within `Task.open`; called before a thread that may wait there is waited for."""


@runtime_checkable
class SaysWhetherTasksMove(Protocol):
    """A source that says whether its tasks go anywhere once they are labelled."""

    @property
    def moves_tasks(self) -> bool:
        """False of files, which stay."""


def moves_tasks(source: TaskSource) -> bool:
    """Returns whether a source's tasks move; of one that does not say, they do."""
    return source.moves_tasks if isinstance(source, SaysWhetherTasksMove) else True


@runtime_checkable
class HasMetadata(Protocol):
    """A task that carries what somebody has noted of its data."""

    @property
    def metadata(self) -> Mapping[str, object]:
        """The client metadata."""


def metadata_of(task: Task) -> Mapping[str, object]:
    """Returns a task's client metadata; empty of one that has none, such as a file's."""
    return task.metadata if isinstance(task, HasMetadata) else {}


@runtime_checkable
class ListsInfo(Protocol):
    """A task of whose media something is known without a look at them."""

    @property
    def listed_info(self) -> VideoInfo | None:
        """What the platform says; None where it says nothing."""


# Of a sink.


@runtime_checkable
class WritesFiles(Protocol):
    """A sink that writes a file for each task."""

    def path_of(self, task: Task) -> Path:
        """Returns where the task's file is, or will be."""

    def holds(self, task: Task) -> bool:
        """Tells whether it is there."""
