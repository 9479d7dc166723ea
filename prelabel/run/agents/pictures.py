"""Classifies images and frames of many tasks in full batches."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prelabel.config.sections import ReaderSection
from prelabel.data.frames import Frames, VideoInfo
from prelabel.errors import ClassifyError, SetupError, TaskError, raised_as
from prelabel.media.open import FramePolicy, OpenFrames, open_frames
from prelabel.plugins.protocols import Classifier, TaskFacts
from prelabel.plugins.traits import has_preparation
from prelabel.run.work import FetchedTask
from prelabel.runtime.interrupts import Stopped, StopSignal

BATCH_SIZE = 8
"""Frames that the reader decodes at once. The classifier's batches are independent of it."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An image or a frame of a task.

    Attributes:
        frame_index: number of the frame within the task.
        image: uint8 (H, W, 3), RGB, as `prepare_image` returns it.
    """

    frame_index: int
    image: Frames

    @property
    def num_bytes(self) -> int:
        """The image's size in memory."""
        return int(self.image.nbytes)


@dataclass(frozen=True, slots=True)
class EndOfTask:
    """Marks the end of a task's images in the stream.

    Attributes:
        task: the task.
        info: info of its media; None if they could not be read.
        reader: which reader read the media, and why that one.
        partial: what is missing and why; None if nothing is missing.
        error: why the media could not be read; None if there was no error.
        seconds: busy time by step: fetch, decode.
        began: `time.perf_counter()` when reading began.
    """

    task: TaskFacts
    info: VideoInfo | None = None
    reader: str = ""
    partial: str | None = None
    error: Exception | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    began: float = 0.0


@dataclass(frozen=True, slots=True)
class PictureReader:
    """Reads the images of each task for the classifier.

    Attributes:
        reader: the config's section `reader`.
        folder: the config's folder, which plug-in paths are relative to.
        frames_per_video: number of evenly spaced frames per video; None: all frames that `reader` selects.
        frames: what to do if frames are missing: `strict` fails the task, `warn` uses the frames that were read.
        prepare: returns an image as the classifier takes it; must not share the image's memory.
        stop: checked before every batch.
        begun: called with a task's title, the number of its images, and its key.
    """

    reader: ReaderSection
    folder: Path
    frames_per_video: int | None
    frames: FramePolicy
    prepare: Callable[[Frames], Frames]
    stop: StopSignal
    begun: Callable[[str, int, str], None]

    def read(self, fetched: Iterable[FetchedTask]) -> Iterator[Picture | EndOfTask]:
        """Yields each task's images and then its end, which carries its error. It closes each task's `release`.

        Raises:
            Stopped: a second stop request.
        """
        for item in fetched:
            try:
                with item.release:
                    end = yield from self._read(item)
            except Stopped:
                raise
            except Exception as error:  # passed on: the run decides whether only this task fails
                end = EndOfTask(item.task, error=error)
            yield end

    def _read(self, item: FetchedTask) -> Generator[Picture, None, EndOfTask]:
        task, began = item.task, time.perf_counter()
        with open_frames(item.media, self.reader, self.folder, self.frames, task.num_frames, task.title) as opened:
            wanted = spread(opened.wanted, self.frames_per_video) if item.media.kind == "video" else opened.wanted
            self.begun(task.title, len(wanted), task.key)
            yield from self._pictures(opened, wanted)
            reader = f"{opened.choice.use} ({opened.choice.reason})"
            seconds = {"fetch": item.seconds, "decode": opened.decode_seconds}
            return EndOfTask(task, opened.info, reader, opened.partial, seconds=seconds, began=began)

    def _pictures(self, opened: OpenFrames, wanted: NDArray[np.int64]) -> Iterator[Picture]:
        with closing(opened.batches(wanted, BATCH_SIZE)) as batches:
            for batch in batches:
                self.stop.check()
                for frame_index, image in zip(batch.frame_indices.tolist(), batch.frames, strict=True):
                    yield Picture(frame_index, self.prepare(image))


def prepare_image(classifier: Classifier, image: Frames) -> Frames:
    """Returns an image as `classifier` takes it: what it makes of the image, or else a tensor with a copy."""
    if has_preparation(classifier):
        with raised_as(ClassifyError, "the classifier", SetupError, TaskError):
            return classifier.prepare(image)
    import torch

    return torch.from_numpy(image.copy()) if isinstance(image, np.ndarray) else image.clone()


def spread(frames: NDArray[np.int64], num: int | None) -> NDArray[np.int64]:
    """Returns `num` evenly spaced frames, each from the middle of an equal part; all frames if there are not more.

    >>> spread(np.arange(100), 4).tolist()
    [12, 37, 62, 87]
    """
    if num is None or len(frames) <= num:
        return frames
    return frames[((np.arange(num) + 0.5) * len(frames) / num).astype(np.int64)]


MAX_BATCH_BYTES = 512_000_000
"""A batch of this size is classified even if it is not full, so that large images do not fill the memory."""


@dataclass(frozen=True, slots=True)
class Classified:
    """A task whose images are all classified.

    Attributes:
        end: the end of its images, as the reader yielded it.
        frame_index: int64 (M,), increasing.
        probabilities: float32 (M, C).
        error: why reading or classifying failed; None if nothing failed.
        seconds: the images' share of their batches' time in the classifier.
    """

    end: EndOfTask
    frame_index: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    error: Exception | None
    seconds: float


@dataclass(slots=True)
class _Open:
    """A task with images that still wait for the classifier."""

    frame_indices: list[int] = field(default_factory=list)
    rows: list[NDArray[np.float32]] = field(default_factory=list)
    end: EndOfTask | None = None
    error: Exception | None = None
    seconds: float = 0.0
    num_waiting: int = 0

    @property
    def is_done(self) -> bool:
        return self.end is not None and not self.num_waiting


class FullBatches:
    """Collects images until a batch is full, and keeps the order of the tasks.

    Attributes:
        classifier: the classifier; called from one thread.
        batch_size: images per batch; the last batch and batches of large images are smaller.
    """

    def __init__(self, classifier: Classifier, batch_size: int) -> None:
        self._classifier, self._batch_size = classifier, batch_size
        self._num_classes = len(classifier.class_names)
        self._open: deque[_Open] = deque()
        self._waiting: list[tuple[_Open, Picture]] = []
        self._num_bytes = 0

    def run(self, stream: Iterable[Picture | EndOfTask]) -> Iterator[Classified]:
        """Yields each task after its last image was classified.

        Raises:
            SetupError: the classifier cannot classify any image.
        """
        current = _Open()
        for item in stream:
            if isinstance(item, Picture):
                self._add(current, item)
            else:
                current.end = item
                self._open.append(current)
                current = _Open()
                yield from self._done()
            if len(self._waiting) >= self._batch_size or self._num_bytes >= MAX_BATCH_BYTES:
                self._classify_waiting()
                yield from self._done()
        self._classify_waiting()
        yield from self._done()

    def _add(self, task: _Open, picture: Picture) -> None:
        self._waiting.append((task, picture))
        self._num_bytes += picture.num_bytes
        task.num_waiting += 1

    def _done(self) -> Iterator[Classified]:
        while self._open and self._open[0].is_done:
            task = self._open.popleft()
            assert task.end is not None
            rows = np.stack(task.rows) if task.rows else np.zeros((0, self._num_classes), np.float32)
            frame_index = np.array(task.frame_indices, np.int64)
            yield Classified(task.end, frame_index, rows, task.end.error or task.error, task.seconds)

    def _classify_waiting(self) -> None:
        waiting, self._waiting, self._num_bytes = self._waiting, [], 0
        if not waiting:
            return
        began = time.perf_counter()
        try:
            rows = self._classify([picture for _, picture in waiting])
        except (SetupError, Stopped):
            raise
        except Exception as error:
            self._tell_apart(waiting, error)
            return
        share = (time.perf_counter() - began) / len(waiting)
        for (task, picture), row in zip(waiting, rows, strict=True):
            task.frame_indices.append(picture.frame_index)
            task.rows.append(row)
            task.seconds += share
            task.num_waiting -= 1

    def _tell_apart(self, waiting: Sequence[tuple[_Open, Picture]], error: Exception) -> None:
        """Classifies a failed batch again, task by task, so that only the failing task fails."""
        tasks = list(dict.fromkeys(id(task) for task, _ in waiting))
        if len(tasks) == 1:
            task = waiting[0][0]
            task.error, task.num_waiting = error, task.num_waiting - len(waiting)
            return
        for one in tasks:
            self._waiting = [(task, picture) for task, picture in waiting if id(task) == one]
            self._classify_waiting()

    def _classify(self, pictures: Sequence[Picture]) -> NDArray[np.float32]:
        """Returns the checked probabilities, float32 (N, C)."""
        classifier, images = self._classifier, [picture.image for picture in pictures]
        classify = classifier.classify_prepared if has_preparation(classifier) else classifier.classify
        with raised_as(ClassifyError, "the classifier", SetupError, Stopped, TaskError):
            rows = np.asarray(classify(images), np.float32)
        expected = (len(pictures), self._num_classes)
        if rows.shape != expected:
            raise ClassifyError(f"the classifier returned shape {rows.shape}, expected {expected}")
        if not ((rows >= 0) & (rows <= 1)).all():
            raise ClassifyError("the classifier returned a value outside 0..1, or NaN, expected probabilities")
        return rows
