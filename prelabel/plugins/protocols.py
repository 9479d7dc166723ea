"""The protocols of the plug-ins that a config can name with `use:`. Each requires at most three members.

`prelabel.plugins.traits` has the optional facts and methods of detectors and classifiers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from prelabel.data.detections import Detections, VideoDetections
from prelabel.data.frames import FrameBatch, Frames, Media, VideoInfo
from prelabel.data.geometry import Mask

if TYPE_CHECKING:
    import torch


@runtime_checkable
class VideoReader(Protocol):
    """Decodes the frames of one task's media, once and in order.

    It is built as `Reader(media, **options)` for each task, used in a `with` block, and called from one thread. `info`
    is known inside the block. Batches stay valid after the block, since the detector may still process the last ones
    while the next reader opens.

    A reader's class may have a static method `unavailable_reason(device)`. It returns why the reader cannot use that
    device on this machine, or None if it can.
    """

    @property
    def info(self) -> VideoInfo:
        """Size, length and frame rate of the video, as displayed; `num_frames` comes from the index."""

    def batches(self, frame_indices: NDArray[np.int64], batch_size: int) -> Iterator[FrameBatch]:
        """Yields the requested frames in order, `batch_size` at a time. The last batch may be smaller.

        Args:
            frame_indices: int64 (M,), increasing, each within 0 .. num_frames - 1.
            batch_size: frames per batch, 1 or more.

        Raises:
            ReadError: a frame cannot be read. The iterator never ends early without an error.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@runtime_checkable
class Detector(Protocol):
    """Detects boxes on frames.

    It is called from one thread. It may keep state between calls, but no frames.

    A detector may also have:

    - `traits`, a `prelabel.ModelTraits`: facts such as the model's name, the batch size and the device;
    - `warnings`, a list of sentences for the user, shown in the report;
    - any of the methods of `DetectorExtras`.

    If a batch does not fit into memory, `detect` raises `torch.OutOfMemoryError` or `DeviceMemoryError`. The run then
    retries it in halves.
    """

    @property
    def class_names(self) -> Sequence[str]:
        """Names in the order of `class_id`."""

    def detect(self, batch: FrameBatch) -> list[Detections]:
        """Returns one `Detections` per frame, in the batch's order, with boxes in pixels of the displayed frame."""


class DetectorExtras(Detector, Protocol):
    """Optional methods of a detector. Each is looked up by its name."""

    def start(self, batch: FrameBatch) -> Callable[[], list[Detections]]:
        """Starts detection on a batch and returns a function that waits for the result of `detect`.

        The next batch is started before that function is called, so that a GPU always has work.
        """

    def fit_batch(self, height: int, width: int) -> int:
        """Returns an efficient batch size for frames of this size, in pixels."""

    def replicate(self) -> Detector | None:
        """Returns a detector with the same weights for another thread; None if that is not possible on this device.

        On a CPU, several replicas work on parts of a batch at the same time.
        """

    def with_geometry(self, class_ids: frozenset[int]) -> Detector:
        """Returns a detector with the same model that also outputs `traits.output` for these classes.

        It is for detectors whose masks, keypoints or rotated boxes take time. Without this call they output boxes only.
        The original detector does not change.
        """

    def with_words(self, words: Sequence[str]) -> Detector:
        """Returns a detector with the same model that looks for these words; its `class_names` are the words.

        It is called if the detector has `traits.word_passes` without words, and either no `class_names` or the config
        has `labels.prompts`. The words come from `labels.prompts`, or else they are the names of the ontology's
        objects. The original detector does not change.
        """


@runtime_checkable
class Refiner(Protocol):
    """Makes masks from boxes.

    Several threads may call it, but one at a time. It may have `traits`: `model` goes on record, and frames are brought
    to `device`.
    """

    def refine(self, batch: FrameBatch, boxes: Sequence[NDArray[np.float32]]) -> Sequence[Sequence[Mask | None]]:
        """Returns a mask for each box of each frame, in the same order; None keeps the box alone.

        Args:
            batch: frames of one video. It must not be changed.
            boxes: float32 (n, 4) for each frame, corners in pixels of the displayed frame.
        """


@runtime_checkable
class Classifier(Protocol):
    """Classifies images.

    It is called from one thread. It may keep state between calls, but no images.

    A classifier may also have:

    - `traits`, a `prelabel.ModelTraits`, and `warnings`, like a detector;
    - `usage`, a mapping of counters such as requests, tokens and cost, which go into the report;
    - `usage_warnings(usage)`, which returns warnings about the usage of one run;
    - the methods of `ClassifierExtras`.

    If its option `classes` is required and the config does not set it, it gets the ontology's options.
    """

    @property
    def class_names(self) -> Sequence[str]:
        """Names in the order of the class ids."""

    def classify(self, images: Sequence[torch.Tensor]) -> NDArray[np.float32]:
        """Returns the probability of each class, float32 (N, C), 0..1: one row per image, in their order.

        Args:
            images: uint8 tensors (H, W, 3), RGB, displayed orientation, on the host or on a device. They may differ in
                size, since they come from several tasks. They must not be written to.
        """


class ClassifierExtras(Classifier, Protocol):
    """Optional methods of a classifier, both or neither. They are called instead of `classify`."""

    def prepare(self, image: Frames) -> Frames:
        """Returns an image in the size that the network needs. It is called from the thread that reads.

        So images that wait for the classifier take less memory, and need no tensors.

        Args:
            image: uint8 (H, W, 3), RGB, displayed orientation: an array, or a tensor on any device. The reader reuses
                its memory, so the result must not share it.
        """

    def classify_prepared(self, images: Sequence[Frames]) -> NDArray[np.float32]:
        """Returns what `classify` returns, for images that `prepare` returned."""


@runtime_checkable
class Tracker(Protocol):
    """Links the boxes of one shot into tracks.

    It is built as `Tracker(info, **options)` for each shot of each video, where `info` is the video's `VideoInfo`. So
    it needs no method to reset. It is called from one thread. Several trackers may be used at the same time.
    """

    def update(self, detections: Detections, frame_index: int) -> NDArray[np.int64]:
        """Returns the track id of each box of a frame, int64 (N,), in the order of the boxes; -1 for a box without one.

        It is called for every frame that the detector has processed, in increasing order, including frames without
        boxes. With a stride or frame ranges, the indices have gaps. Two boxes of a frame must not share a track. The
        same calls must give the same result. The detections must not be written to.
        """


@runtime_checkable
class ShotTracker(Protocol):
    """Links the boxes of one shot into tracks. It gets all boxes of the shot at once.

    It is built as a `Tracker` is, and has `link` instead of `update`.
    """

    def link(self, detections: VideoDetections) -> NDArray[np.int64]:
        """Returns the track id of each box of a shot, int64 (N,), in the order of the boxes; -1 for a box without one.

        `detections.inferred_frames` are all frames of the shot that the detector has processed. Two boxes of a frame
        must not share a track. The same call must give the same result. The detections must not be written to.
        """


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """The model that made a label, for the record. A detector or classifier states it in `traits.model`.

    Attributes:
        name: name of the model, for people.
        weights_sha256: sha256 of its weights.
        licence: licence of its weights.
        engine: the runtime and its precision, such as `torch 2.11, float16`.
    """

    name: str
    weights_sha256: str | None = None
    licence: str | None = None
    engine: str | None = None


class TaskFacts(Protocol):
    """Facts about a task that are known without reading its media."""

    @property
    def key(self) -> str:
        """The task's key: unique in its source, and the same in every run."""

    @property
    def title(self) -> str:
        """The task's title, for people."""

    @property
    def identity(self) -> str:
        """A text that changes when the task's media change; empty if they cannot change."""

    @property
    def num_frames(self) -> int | None:
        """The number of frames according to the platform; None if it states none."""


class Task(TaskFacts, Protocol):
    """A unit of work: the media to label.

    A task may also have:

    - `metadata`, a mapping that users have set, such as Encord's client metadata;
    - `listed_info`, a `VideoInfo` of its media according to the platform, or None.
    """

    def open(self) -> AbstractContextManager[Media]:
        """Returns a context in which the media are on this machine.

        Raises:
            FetchError: the media cannot be fetched completely.
        """


@dataclass(frozen=True, slots=True)
class SkippedTask:
    """A task that prelabel cannot label and leaves unchanged.

    Attributes:
        title: title of the data unit.
        reason: its kind of data, or what it lacks.
    """

    title: str
    reason: str


@runtime_checkable
class TaskSource(Protocol):
    """Lists tasks, moves finished ones, and reports failures.

    `prelabel.store.source.Source` has the optional methods.
    """

    def tasks(self) -> Iterator[Task]:
        """Yields each waiting task once."""

    def proceed(self, task: Task, pathway: str | None) -> None:
        """Moves a task along a pathway. It is called only after the task's labels are saved.

        Raises:
            SaveError: the task did not move.
        """

    def fail(self, task: Task, reason: str) -> None:
        """Leaves a failed task where it is, and reports the reason."""


@runtime_checkable
class LabelSink(Protocol):
    """Writes labels."""

    def write(self, task: Task, info: VideoInfo, detections: VideoDetections) -> int | None:
        """Writes a task's labels, all or nothing. A repeated call has the same effect as one.

        Returns:
            The number of bytes written, for the report; None if it is not known.

        Raises:
            LabelError: the labels cannot be written as they are.
            SaveError: the labels were refused.
            TakenError: somebody else has taken the task.
        """


def metadata_of(task: Task) -> Mapping[str, object]:
    """Returns the metadata that users have set for a task; empty if the source has none."""
    metadata: Mapping[str, object] = getattr(task, "metadata", {})
    return metadata
