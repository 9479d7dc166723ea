"""The protocols of everything that a config can name with `use:`. Each needs three members at most.

Optional facts and methods of detectors and classifiers are in `prelabel.plugins.traits`.
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
from prelabel.data.frames import FrameBatch, Media, VideoInfo

if TYPE_CHECKING:
    import torch


@runtime_checkable
class VideoReader(Protocol):
    """Reads the frames of one task's media, once, from front to back.

    Built as `Reader(media, **options)` for each task, used in a `with` block, and called from one thread. `info` is
    known inside the block. Batches stay valid after the block: the detector works on the last of them while the next
    reader opens.

    A reader's class may have a static method `unavailable_reason(device)`, which returns why it cannot work on this
    machine with such a device, or None.
    """

    @property
    def info(self) -> VideoInfo:
        """The video as it is displayed; `num_frames` comes from the index."""

    def batches(self, frame_indices: NDArray[np.int64], batch_size: int) -> Iterator[FrameBatch]:
        """Yields the requested frames in order, `batch_size` at a time; the last batch may be smaller.

        Args:
            frame_indices: int64 (M,), rising, each within 0 .. num_frames - 1.
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
    """Finds boxes on frames. Called from one thread; it may keep state between calls, but no frames.

    A detector may also have:

    - `traits`, a `prelabel.ModelTraits`: facts such as the model's name, the batch size, the device;
    - `warnings`, a list of sentences for the user, shown in the report;
    - any of the methods of `DetectorExtras`.

    A batch that does not fit into memory raises `torch.OutOfMemoryError` or `DeviceMemoryError`. It is tried again in
    halves.
    """

    @property
    def class_names(self) -> Sequence[str]:
        """Names by `class_id`."""

    def detect(self, batch: FrameBatch) -> list[Detections]:
        """Returns one `Detections` per frame, in the batch's order, boxes in pixels of the displayed frame."""


class DetectorExtras(Detector, Protocol):
    """Methods that a detector may have besides `detect`. Each is looked up by its name, and none is needed."""

    def start(self, batch: FrameBatch) -> Callable[[], list[Detections]]:
        """Starts detection on a batch and returns a function that waits for what `detect` would have returned.

        The next batch is started before that function is called, so that a GPU always has work.
        """

    def fit_batch(self, height: int, width: int) -> int:
        """Returns the batch size that uses the device well for frames of this size, in pixels."""

    def replicate(self) -> Detector | None:
        """Returns a detector with the same weights that another thread may call; None if this device allows none.

        On a CPU, several replicas work on parts of a batch at the same time.
        """

    def with_geometry(self, class_ids: frozenset[int]) -> Detector:
        """Returns a detector of the same model that also gives `traits.output` for these classes.

        For detectors whose masks, keypoints or rotated boxes cost time: they give boxes alone until they are asked.
        This detector itself does not change.
        """


@runtime_checkable
class Classifier(Protocol):
    """Tells what images show. Called from one thread; it may keep state between calls, but no images.

    A classifier may also have:

    - `traits`, a `prelabel.ModelTraits`, and `warnings`, as a detector may;
    - `usage`, a mapping of numbers that it counts up: requests, tokens, cost. They go into the report;
    - `usage_warnings(usage)`, which returns sentences about what one run has used.

    If its option `classes` is required and the config does not set it, it gets the ontology's options.
    """

    @property
    def class_names(self) -> Sequence[str]:
        """Names by class id."""

    def classify(self, images: Sequence[torch.Tensor]) -> NDArray[np.float32]:
        """Returns the probability of each class, float32 (N, C), 0..1: one row per image, in their order.

        Args:
            images: uint8 tensors (H, W, 3), RGB, displayed orientation, on the host or on a device. They may differ in
                size, since they come from several tasks. They may be read, but not written.
        """


@runtime_checkable
class Tracker(Protocol):
    """Links the boxes of one shot into tracks.

    Built as `Tracker(info, **options)` for each shot of each video, where `info` is the video's `VideoInfo`. So it
    needs no method to reset. Called from one thread; several trackers may be used at the same time.
    """

    def update(self, detections: Detections, frame_index: int) -> NDArray[np.int64]:
        """Returns the track of each box of a frame, int64 (N,), in their order; -1: the box belongs to no track.

        Called for every frame that the detector has seen, in rising order, frames without boxes included. With a
        stride or frame ranges the indices have gaps. Two boxes of a frame never share a track. The same calls give the
        same result. The detections must not be written to.
        """


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """Which model made a label, for the record. A detector or classifier names it in `traits.model`.

    Attributes:
        name: what people call the model.
        weights_sha256: of its weights.
        licence: of its weights.
        engine: the runtime and its precision, such as `torch 2.11, float16`.
    """

    name: str
    weights_sha256: str | None = None
    licence: str | None = None
    engine: str | None = None


class Task(Protocol):
    """One thing to label."""

    @property
    def key(self) -> str:
        """Names the task for good: the same in every run, unique in its source."""

    @property
    def title(self) -> str:
        """What people call it."""

    @property
    def identity(self) -> str:
        """Changes when the media behind the key does; empty where they cannot change."""

    @property
    def num_frames(self) -> int | None:
        """Frames that the platform says it has; None where nothing promises a number."""

    def open(self) -> AbstractContextManager[Media]:
        """Brings the media here for as long as the context is open.

        Raises:
            FetchError: if they cannot be had whole.
        """


@dataclass(frozen=True, slots=True)
class SkippedTask:
    """A task that is not for this tool and stays where it is.

    Attributes:
        title: of the data unit.
        reason: its kind of data, or what it lacks.
    """

    title: str
    reason: str


@runtime_checkable
class TaskSource(Protocol):
    """Where tasks come from, and how they end. `prelabel.store.source.Source` says what a source may do besides."""

    def tasks(self) -> Iterator[Task]:
        """Yields the tasks that wait now, each once."""

    def proceed(self, task: Task, pathway: str | None) -> None:
        """Moves a task on whose labels are known to be saved.

        Raises:
            SaveError: if it did not move.
        """

    def fail(self, task: Task, reason: str) -> None:
        """Leaves the task where it is and makes the reason known."""


@runtime_checkable
class LabelSink(Protocol):
    """Where labels go."""

    def write(self, task: Task, info: VideoInfo, detections: VideoDetections) -> int | None:
        """Writes a task's labels: all or nothing, and the same when repeated.

        Returns:
            Bytes of what was written, for the report; or nothing.

        Raises:
            LabelError: if they cannot be written as they are.
            SaveError: if they were not taken.
            TakenError: if the task is another's by now.
        """


@runtime_checkable
class ListedTask(Protocol):
    """A task of which its source knows more than a `Task` must say, before the media are here."""

    @property
    def metadata(self) -> Mapping[str, object]:
        """What users have noted of the data, such as Encord's client metadata."""

    @property
    def listed_info(self) -> VideoInfo | None:
        """What the platform says about the media; None where it says nothing."""


def metadata_of(task: Task) -> Mapping[str, object]:
    """Returns what users have noted of a task's data; empty where the source has none."""
    return task.metadata if isinstance(task, ListedTask) else {}
