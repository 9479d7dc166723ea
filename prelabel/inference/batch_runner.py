"""Runs batches through a detector: overlaps them, halves those that do not fit into memory, checks the results."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

from prelabel.data.detections import Detections
from prelabel.data.frames import FrameBatch
from prelabel.errors import DetectError, DeviceMemoryError, TaskError
from prelabel.plugins.protocols import Detector
from prelabel.plugins.traits import start_batch
from prelabel.runtime.gpus import imported_torch


class BatchSizes:
    """Finds the batch size once for each frame size, on the detector's thread.

    Args:
        fit: returns the frames per batch for a height and a width in pixels; None: `default` for all.
        default: frames per batch.
    """

    def __init__(self, fit: Callable[[int, int], int] | None, default: int) -> None:
        self._fit, self._default = fit, default
        self._lock = threading.Lock()
        self._sizes: dict[tuple[int, int], Future[int]] = {}
        self._is_closed = False

    def find(self, height: int, width: int) -> None:
        """Finds the batch size unless it is known. An error is raised in `wait`, not here."""
        if self._fit is None:
            return
        future = self._future(height, width)
        if future.done():
            return
        try:
            future.set_result(self._fit(height, width))
        except Exception as error:  # raised in `wait`; the next video tries again
            with self._lock:
                del self._sizes[height, width]
            future.set_exception(error)

    def wait(self, height: int, width: int) -> int:
        """Waits for `find` and returns the frames per batch.

        Raises:
            CancelledError: `close` was called, so nothing will find the size.
        """
        return self._default if self._fit is None else self._future(height, width).result()

    def close(self) -> None:
        """Ends all waiting with a CancelledError."""
        with self._lock:
            self._is_closed = True
            for future in self._sizes.values():
                future.cancel()

    def _future(self, height: int, width: int) -> Future[int]:
        with self._lock:
            future = self._sizes.setdefault((height, width), Future())
            if self._is_closed:  # a `wait` that begins after `close` must not wait for ever
                future.cancel()
            return future


_Result = TypeVar("_Result")
Found = list[tuple[int, Detections]]
"""(frame_index, detections) of each frame of a batch, in batch order."""


@dataclass(slots=True)
class BatchRunner:
    """Runs batches through a detector, for all videos of a run.

    Attributes:
        detector: called from one thread. If it has `start(batch)`, that starts a batch and returns a function that
            waits for the results; the next batch starts before that function is called.
        most_frames: frames per batch that fit into memory; None until a batch has failed.
        busy_seconds: time spent in the detector so far.
    """

    detector: Detector
    most_frames: int | None = None
    busy_seconds: float = field(default=0.0)

    def run(self, batches: Iterable[FrameBatch], title: str) -> Iterator[Found]:
        """Yields the detections of each batch, in order.

        Raises:
            DetectError: the detector raised or broke its contract, or a single frame does not fit into memory.
        """
        awaited: Callable[[], Found] | None = None
        for batch in batches:
            begun = self._begin(batch, title)
            del batch  # its memory is reused once nothing refers to it
            if awaited is not None:
                yield awaited()
            awaited = begun
        if awaited is not None:
            yield awaited()

    def _begin(self, batch: FrameBatch, title: str) -> Callable[[], Found]:
        """Starts a batch and returns a function that waits for its results."""
        began = time.perf_counter()
        begun = self._attempt(batch, title)
        self.busy_seconds += time.perf_counter() - began

        def finish() -> Found:
            began = time.perf_counter()
            try:
                return begun()
            finally:
                self.busy_seconds += time.perf_counter() - began

        return finish

    def _attempt(self, batch: FrameBatch, title: str) -> Callable[[], Found]:
        if self.most_frames is not None and len(batch) > self.most_frames:
            return self._in_parts(batch, title)
        where = f"{title}: frames {batch.frame_indices[0]} to {batch.frame_indices[-1]}"
        waiting = self._call(lambda: start_batch(self.detector, batch), where)
        if waiting is None:
            return self._in_halves(batch, title, where)

        def finish() -> Found:
            found = self._call(lambda: _listed(waiting()), where)
            return self._check(batch, found, where) if found is not None else self._in_halves(batch, title, where)()

        return finish

    def _call(self, detect: Callable[[], _Result], where: str) -> _Result | None:
        """Returns the detector's result; None if the batch does not fit into the device's memory."""
        try:
            return detect()
        except DeviceMemoryError:
            return None
        except TaskError as error:
            raise type(error)(f"{where}: {error}") from error
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # `sys.exit` and panics of Rust code are no Exceptions, and would end the thread
            if _is_out_of_memory(error):
                return None
            raise DetectError(f"{where}: the detector raised {type(error).__name__}: {error}") from error

    def _in_halves(self, batch: FrameBatch, title: str, where: str) -> Callable[[], Found]:
        """Detects in halves of the batch, and limits later batches to that size. Call after its memory is freed."""
        if len(batch) == 1:
            height, width = batch.shape[1:3]
            raise DeviceMemoryError(
                f"{where}: not even one frame of {width} x {height} fits into the device's memory: lower "
                "detector.imgsz, end what else uses the device, or set detector.device: cpu"
            )
        _empty_cache()
        self.most_frames = len(batch) // 2
        return self._in_parts(batch, title)

    def _in_parts(self, batch: FrameBatch, title: str) -> Callable[[], Found]:
        """Detects in parts of the batch, one after the other; a part that does not fit is halved again."""
        found: Found = []
        at = 0
        while at < len(batch):
            part = batch.part(at, at + min(self.most_frames or len(batch), len(batch) - at))
            found += self._attempt(part, title)()
            at += len(part)
        return lambda: found

    def _check(self, batch: FrameBatch, found: list[Detections], where: str) -> Found:
        if len(found) != len(batch):
            raise DetectError(f"{where}: the detector returned {len(found)} results for {len(batch)} frames")
        num_classes = len(self.detector.class_names)
        for detections in found:
            if len(detections) and int(detections.class_id.max()) >= num_classes:
                got = int(detections.class_id.max())
                raise DetectError(f"{where}: the detector returned class_id {got}, it has {num_classes} class_names")
        return list(zip(batch.frame_indices.tolist(), found, strict=True))


def _listed(found: object) -> list[Detections]:
    """Returns a detector's results as a list.

    Raises:
        DetectError: the results are not a sequence of `Detections`.
    """
    if not isinstance(found, Sequence):
        got = type(found).__name__
        raise DetectError(f"the detector returned {got}, expected a list of Detections, one for each frame")
    for detections in found:
        if not isinstance(detections, Detections):
            got = type(detections).__name__
            raise DetectError(f"the detector returned {got} for a frame, expected Detections; of nothing: .empty()")
    return list(found)


def _is_out_of_memory(error: BaseException) -> bool:
    torch = imported_torch()  # without it, the error is not torch's
    return torch is not None and isinstance(error, torch.OutOfMemoryError)


def _empty_cache() -> None:
    torch = imported_torch()
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
