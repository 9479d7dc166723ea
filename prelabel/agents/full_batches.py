"""Pictures through a classifier in full batches, whichever tasks they are of."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from prelabel.agents.pictures import EndOfTask, Picture
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
        classifier: called from one thread.
        batch_size: pictures a batch; the last one, and one of large pictures, is smaller.
    """

    def __init__(self, classifier: Classifier, batch_size: int) -> None:
        self._classifier, self._batch_size = classifier, batch_size
        self._num_classes = len(classifier.class_names)
        self._open: deque[_Open] = deque()
        self._waiting: list[tuple[_Open, Picture]] = []
        self._num_bytes = 0

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
        """Gives a batch that failed to the classifier task by task: a failure is one task's."""
        tasks = list(dict.fromkeys(id(task) for task, _ in waiting))
        if len(tasks) == 1:
            task = waiting[0][0]
            task.error, task.num_waiting = error, task.num_waiting - len(waiting)
            return
        for one in tasks:
            self._waiting = [(task, picture) for task, picture in waiting if id(task) == one]
            self._classify_waiting()

    def _classify(self, pictures: Sequence[Picture]) -> NDArray[np.float32]:
        """Returns the probabilities, checked, float32 (N, C)."""
        try:
            rows = np.asarray(self._classifier.classify([picture.image for picture in pictures]), np.float32)
        except (SetupError, Stopped, TaskError):
            raise
        except Exception as error:
            raise ClassifyError(f"the classifier raised {type(error).__name__}: {error}") from error
        expected = (len(pictures), self._num_classes)
        if rows.shape != expected:
            raise ClassifyError(f"the classifier returned shape {rows.shape}, expected {expected}")
        if not ((rows >= 0) & (rows <= 1)).all():
            raise ClassifyError("the classifier returned a value outside 0..1, or NaN, expected probabilities")
        return rows
