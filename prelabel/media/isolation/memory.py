"""Shared memory for frames, as anonymous files that vanish with the last process that holds them."""

from __future__ import annotations

import math
import mmap
import os
import threading
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from prelabel.media.batching import lend
from prelabel.media.isolation.messages import Batch

if TYPE_CHECKING:
    from prelabel.data.frames import FrameBatch


Shape = tuple[int, int, int, int]
KEPT_BYTES = 128_000_000
"""Most free memory to keep for the next media. New memory is slow: it is cleared, and both processes map it."""


@dataclass(slots=True)
class _Memory:
    """A block of shared memory, as seen by the decoding process.

    Attributes:
        number: its name in both processes.
        handle: of the anonymous file.
        pixels: its bytes.
        in_use: it was taken and not freed yet.
        is_held: the run holds a batch in it.
        is_known: the run has received its handle.
    """

    number: int
    handle: int
    pixels: NDArray[np.uint8]
    in_use: bool = False
    is_held: bool = False
    is_known: bool = False


class SharedFramePool:
    """Memory for batches in the decoding process; reused once the run has freed it, also for the next media.

    Replaces `FramePool`. Safe to use from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._memories: dict[int, _Memory] = {}
        self._num_made = 0
        self._dropped: list[int] = []

    def take(self, shape: Shape) -> NDArray[np.uint8]:
        """Returns a uint8 array of this shape, contents undefined."""
        num_bytes = math.prod(shape)
        with self._lock:
            memory = self._free_memory(num_bytes) or self._make(num_bytes)
            memory.in_use = True
        return memory.pixels[:num_bytes].reshape(shape)

    def free(self, numbers: tuple[int, ...]) -> None:
        """Records that the run no longer holds these blocks."""
        with self._lock:
            for memory in (self._memories[number] for number in numbers if number in self._memories):
                memory.in_use = memory.is_held = False

    def free_unsent(self) -> None:
        """Frees batches that were decoded ahead but not sent to the run."""
        with self._lock:
            for memory in self._memories.values():
                memory.in_use = memory.is_held

    def share(self, batch: FrameBatch) -> tuple[Batch, int | None]:
        """Returns where the batch lies in shared memory, and the handle if it is new to the run.

        Frames that are not in shared memory are copied there.
        """
        shape = cast(Shape, batch.shape)
        with self._lock:
            memory = self._memory_at(batch.array)
            if memory is None:
                pixels = self.take(shape)
                pixels[:] = batch.array
                memory = self._memory_at(pixels)
                assert memory is not None
            handle = None if memory.is_known else memory.handle
            memory.is_known = memory.is_held = True
            dropped, self._dropped = tuple(self._dropped), []
        indices, seconds = batch.frame_indices.tolist(), batch.pts_seconds.tolist()
        return Batch(memory.number, shape, tuple(indices), tuple(seconds), dropped), handle

    def trim(self) -> None:
        """Frees unused memory, except `KEPT_BYTES` of it."""
        num_bytes = 0
        with self._lock:
            for memory in sorted(self._memories.values(), key=lambda memory: memory.pixels.nbytes):
                if memory.in_use:
                    continue
                num_bytes += memory.pixels.nbytes
                if num_bytes > KEPT_BYTES:
                    self._drop(memory)

    def _memory_at(self, data: NDArray[np.uint8]) -> _Memory | None:
        """Returns the memory that begins with these pixels; None if there is none."""
        if not data.flags.c_contiguous:
            return None
        place = data.ctypes.data
        return next((memory for memory in self._memories.values() if memory.pixels.ctypes.data == place), None)

    def _free_memory(self, num_bytes: int) -> _Memory | None:
        """Returns free memory that is large enough. Drops smaller blocks, since the frame size has changed."""
        for memory in list(self._memories.values()):
            if memory.in_use:
                continue
            if memory.pixels.nbytes >= num_bytes:
                return memory
            self._drop(memory)
        return None

    def _drop(self, memory: _Memory) -> None:
        os.close(memory.handle)
        del self._memories[memory.number]
        if memory.is_known:
            self._dropped.append(memory.number)

    def _make(self, num_bytes: int) -> _Memory:
        handle = os.memfd_create("prelabel frames")
        os.ftruncate(handle, max(num_bytes, 1))
        pixels = np.frombuffer(mmap.mmap(handle, max(num_bytes, 1)), np.uint8)
        self._num_made += 1
        memory = self._memories[self._num_made] = _Memory(self._num_made, handle, pixels)
        return memory


class MappedFrames:
    """The shared memory, as seen by the run."""

    def __init__(self) -> None:
        self._pixels: dict[int, NDArray[np.uint8]] = {}
        self._freed: deque[int] = deque()

    def frames(self, batch: Batch, handle: int | None) -> NDArray[np.uint8]:
        """Returns the frames, uint8 (N, H, W, 3), without a copy. Their memory is freed with the array.

        Raises:
            ValueError: the process described memory that does not exist or is too small.
        """
        for number in batch.dropped:
            self._pixels.pop(number, None)
        if handle is not None:
            self._pixels[batch.memory] = _map(handle)
        num_bytes = math.prod(batch.shape)
        pixels = self._pixels.get(batch.memory)
        if pixels is None or min(batch.shape) < 0 or num_bytes > pixels.nbytes:
            raise ValueError(f"frames of shape {batch.shape} do not lie in memory {batch.memory}")
        return lend(pixels, batch.shape, partial(self._freed.append, batch.memory))

    def take_freed(self) -> tuple[int, ...]:
        """Returns the numbers of the memory that was freed since the last call."""
        return tuple(self._freed.popleft() for _ in range(len(self._freed)))


def _map(handle: int) -> NDArray[np.uint8]:
    try:
        return np.frombuffer(mmap.mmap(handle, 0), np.uint8)
    finally:
        os.close(handle)
