"""Pictures through a classifier in full batches, whichever tasks they are of."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from prelabel.agents.pictures import EndOfTask, Picture
from prelabel.capabilities import StartsPictures
from prelabel.errors import ClassifyError, SetupError, TaskError
from prelabel.interrupts import Stopped
from prelabel.protocols import Classifier

MAX_BATCH_BYTES = 512_000_000


@dataclass(frozen=True, slots=True)
class Classified:
    """A task all of whose pictures the classifier has seen.

    Attributes:
        end: how reading it went.
        frame_index: int64 (M,), rising.
        probabilities: float32 (M, C).
        error: why there are none; None if there are.
        seconds: that its pictures took in the classifier, as a share of their batches.
    """

    end: EndOfTask
    frame_index: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    error: Exception | None
    seconds: float


@dataclass(frozen=True, slots=True)
class _Begun:
    """Pictures that are with the classifier, and what waits for their probabilities."""

    pictures: list[tuple[_Open, Picture]]
    finish: Callable[[], NDArray[np.float32]]


@dataclass(slots=True)
class _Open:
    """A task some of whose pictures still wait for the classifier."""

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
    """Collects pictures until a batch is full; keeps the tasks' order.

    Attributes:
        classifier: called from one thread. One with `start(images)` begins with a batch there while what came of the
            one before is made use of.
        batch_size: pictures a batch; the last one, and one of large pictures, is smaller.
    """

    def __init__(self, classifier: Classifier, batch_size: int) -> None:
        self._classifier, self._batch_size = classifier, batch_size
        self._num_classes = len(classifier.class_names)
        self._open: deque[_Open] = deque()
        self._waiting: list[tuple[_Open, Picture]] = []
        self._num_bytes = 0
        self._begun: deque[_Begun] = deque()
        self._num_ahead = 1 if isinstance(classifier, StartsPictures) else 0

    def run(self, stream: Iterable[Picture | EndOfTask]) -> Iterator[Classified]:
        """Yields each task once its last picture was seen.

        Raises:
            SetupError: the classifier can see no picture at all.
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
                self._classify_waiting(self._num_ahead)
                yield from self._done()
        self._classify_waiting(0)
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

    def _classify_waiting(self, num_ahead: int) -> None:
        """Begins with the pictures that wait; takes in what came of all batches but the last `num_ahead`."""
        if self._waiting:
            self._begun.append(self._begin(self._waiting))
            self._waiting, self._num_bytes = [], 0
        while len(self._begun) > num_ahead:
            self._take_in(self._begun.popleft())

    def _begin(self, pictures: list[tuple[_Open, Picture]]) -> _Begun:
        images = [picture.image for _, picture in pictures]
        if isinstance(self._classifier, StartsPictures):
            return _Begun(pictures, self._classifier.start(images))
        return _Begun(pictures, partial(self._classifier.classify, images))

    def _take_in(self, begun: _Begun) -> None:
        began = time.perf_counter()
        try:
            rows = self._finish(begun)
        except (SetupError, Stopped):
            raise
        except Exception as error:
            self._tell_apart(begun.pictures, error)
            return
        share = (time.perf_counter() - began) / len(rows)
        for (task, picture), row in zip(begun.pictures, rows, strict=True):
            task.frame_indices.append(picture.frame_index)
            task.rows.append(row)
            task.seconds += share
            task.num_waiting -= 1

    def _tell_apart(self, pictures: Sequence[tuple[_Open, Picture]], error: Exception) -> None:
        """Gives a batch that failed to the classifier task by task: a failure is one task's."""
        tasks = list(dict.fromkeys(id(task) for task, _ in pictures))
        if len(tasks) == 1:
            task = pictures[0][0]
            task.error, task.num_waiting = error, task.num_waiting - len(pictures)
            return
        for one in tasks:
            self._take_in(self._begin([(task, picture) for task, picture in pictures if id(task) == one]))

    def _finish(self, begun: _Begun) -> NDArray[np.float32]:
        """Returns the probabilities, checked, float32 (N, C)."""
        try:
            rows = np.asarray(begun.finish(), np.float32)
        except (SetupError, Stopped, TaskError):
            raise
        except Exception as error:
            raise ClassifyError(f"the classifier raised {type(error).__name__}: {error}") from error
        expected = (len(begun.pictures), self._num_classes)
        if rows.shape != expected:
            raise ClassifyError(f"the classifier returned shape {rows.shape}, expected {expected}")
        if not ((rows >= 0) & (rows <= 1)).all():
            raise ClassifyError("the classifier returned a value outside 0..1, or NaN, expected probabilities")
        return rows
