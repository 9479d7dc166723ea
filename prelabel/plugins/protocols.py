"""What a reader, a detector, a classifier, a tracker, a source and a sink must be: three members at most each.

What they may have besides stands in `prelabel.plugins.capabilities`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
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
    """One file, read once, from front to back.

    Built as `Reader(media, **options)` for each task, entered, read by one thread, closed by `with` after errors too.
    `info` is known on entering. Batches stay good after it is closed: the last are looked at while the next opens.
    """

    @property
    def info(self) -> VideoInfo:
        """The video as it is shown; `num_frames` comes from the index."""

    def batches(self, frame_indices: NDArray[np.int64], batch_size: int) -> Iterator[FrameBatch]:
        """Yields the asked frames in order, `batch_size` at a time, the last batch smaller.

        Args:
            frame_indices: int64 (M,), rising, each within 0 .. num_frames - 1.
            batch_size: frames a batch, 1 or more.

        Raises:
            ReadError: as soon as a frame cannot be had. A stream never ends short quietly.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@runtime_checkable
class Detector(Protocol):
    """Finds boxes. Called from one thread; may keep state between calls, must not keep frames.

    One that works on a GPU may have, besides:

    - `device`, such as `cuda:0`: frames are brought there while it works on those before.
    - `start(batch)`, which begins with a batch and returns a function that waits for what `detect` would have returned;
      the next batch is begun before that is called.
    - `fit_batch(height, width)`, the frames a batch for frames of this size, asked where a config leaves it open.

    One that can tell more of a thing than its box has `geometry`, and for poses `keypoint_names`; one that waits to be
    asked for it, `with_geometry(class_ids)`: see `prelabel.plugins.capabilities`.

    What does not fit into memory raises `torch.OutOfMemoryError`, or `DeviceMemoryError`; it comes again in halves.
    """

    @property
    def class_names(self) -> Sequence[str]:
        """Names by `class_id`."""

    def detect(self, batch: FrameBatch) -> list[Detections]:
        """Returns one `Detections` a frame, in the batch's order, boxes in pixels of the displayed frame."""


@runtime_checkable
class Classifier(Protocol):
    """Tells what pictures show. Called from one thread; may keep state between calls, must not keep pictures."""

    @property
    def class_names(self) -> Sequence[str]:
        """Names by class id."""

    def classify(self, images: Sequence[torch.Tensor]) -> NDArray[np.float32]:
        """Returns how probable each class is, float32 (N, C), 0..1, a row a picture, in their order.

        Args:
            images: uint8 tensors (H, W, 3), RGB, displayed orientation, on the host or on a device. They come from
                several tasks and may differ in size. They may be read, never written.
        """


@runtime_checkable
class Tracker(Protocol):
    """Links the boxes of one shot into tracks.

    Built as `Tracker(info, **options)`, info being the video's `VideoInfo`, afresh for each shot of each video, so that
    it needs no way to forget. Called from one thread at a time; several may be built and used beside each other.
    """

    def update(self, detections: Detections, frame_index: int) -> NDArray[np.int64]:
        """Returns the track of each box of a frame, int64 (N,), in their order; -1: it belongs to none.

        Called for every frame that was looked at, rising, those without boxes included; with a stride or frame ranges
        the numbers leap. No two boxes of a frame are of one track. The same calls give the same answers. It must not
        write into what it is given.
        """


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """Which model made a label. A detector or a classifier may carry one as `model`.

    Attributes:
        name: what people call it.
        weights_sha256: of its weights.
        licence: of its weights.
        engine: what ran it and in which precision, in words.
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
class LeftAlone:
    """A task that is not for this tool, and so stays where it is.

    Attributes:
        title: of the data unit.
        kind: what it is, and what is missing if it is of a kind that could be labelled.
    """

    title: str
    kind: str


class TaskSource(Protocol):
    """Where tasks come from, and where they are told how it ended."""

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
