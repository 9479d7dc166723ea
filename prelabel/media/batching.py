"""Copies frames into batches. Each frame is copied once, into reused memory."""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from prelabel.data.frames import FrameBatch
from prelabel.errors import ReadError

Picture = NDArray[np.uint8]
Frame = TypeVar("Frame")

RANGES_SHOWN = 8


class BatchMemory(Protocol):
    """Allocates the memory of batches."""

    def take(self, shape: tuple[int, int, int, int]) -> NDArray[np.uint8]:
        """Returns a uint8 array of this shape, contents undefined."""


@runtime_checkable
class PooledReader(Protocol):
    """A reader that allocates its batches in `pool`. The pool may be replaced until the reader is entered."""

    pool: BatchMemory


class FramePool:
    """Memory for batches, reused once no array or tensor refers to it. Safe to use from any thread."""

    def __init__(self) -> None:
        self._free: deque[NDArray[np.uint8]] = deque()

    def take(self, shape: tuple[int, int, int, int]) -> NDArray[np.uint8]:
        """Returns a uint8 array of this shape, contents undefined."""
        num_bytes = math.prod(shape)
        memory = self._take_free()
        if memory is None or memory.nbytes < num_bytes:
            memory = np.empty(num_bytes, np.uint8)
        return lend(memory, shape, partial(self._free.append, memory))

    def _take_free(self) -> NDArray[np.uint8] | None:
        try:
            return self._free.popleft()  # atomic, so threads need no lock
        except IndexError:
            return None


def lend(memory: NDArray[np.uint8], shape: tuple[int, int, int, int], give_back: Callable[[], None]) -> Picture:
    """Returns the beginning of some memory as an array, and calls `give_back` once nothing refers to it any more."""
    # numpy makes each view refer to the array at the end of the chain of views. A memoryview ends that chain, so every
    # view and tensor of the result keeps `base` alive.
    base = np.frombuffer(memory.data, np.uint8, math.prod(shape))
    weakref.finalize(base, give_back).atexit = False
    return base.reshape(shape)


def check_request(frame_indices: NDArray[np.int64], batch_size: int, num_frames: int) -> NDArray[np.int64]:
    """Returns the requested frames as int64.

    Raises:
        ValueError: the frames do not rise or lie outside the video, or `batch_size` is less than 1.
    """
    wanted = np.asarray(frame_indices, np.int64)
    if batch_size < 1:
        raise ValueError(f"batch_size: got {batch_size}, expected 1 or more")
    if len(wanted) and (wanted[0] < 0 or wanted[-1] >= num_frames or (np.diff(wanted) <= 0).any()):
        raise ValueError(f"frame_indices: expected rising numbers within 0 .. {num_frames - 1}, got {wanted}")
    return wanted


def pick_frames(decoded: Iterable[tuple[int, Frame]], wanted: NDArray[np.int64]) -> Iterator[tuple[int, Frame | None]]:
    """Yields the wanted frames of a stream in order; None for each frame that the stream lacks.

    >>> list(pick_frames([(0, "a"), (1, "b"), (3, "d")], np.array([1, 2, 3])))
    [(1, 'b'), (2, None), (3, 'd')]
    """
    left = deque(wanted.tolist())
    for index, frame in decoded:
        while left and left[0] < index:
            yield left.popleft(), None
        if left and left[0] == index:
            yield left.popleft(), frame
        if not left:
            return
    for index in left:
        yield index, None


def stack_batches(
    pictures: Iterable[tuple[int, Picture | None]], pts_seconds: NDArray[np.float64], batch_size: int, pool: BatchMemory
) -> Iterator[FrameBatch]:
    """Yields images as batches in host memory. A batch ends early where the image size changes.

    Args:
        pictures: frame index and image (H, W, 3) uint8; missing images are None and are left out.
        pts_seconds: float64 (N,), indexed by frame.
        batch_size: images per batch; the last batch may have fewer.
        pool: allocates the batches.
    """
    indices: list[int] = []
    array = np.empty((0, 0, 0, 3), np.uint8)
    for index, picture in pictures:
        if picture is None:
            continue
        if indices and (len(indices) == batch_size or picture.shape != array.shape[1:]):
            yield _batch(array, indices, pts_seconds)
            indices = []
        if not indices:
            array = pool.take((batch_size, picture.shape[0], picture.shape[1], 3))
        array[len(indices)] = picture
        indices.append(index)
    if indices:
        yield _batch(array, indices, pts_seconds)


def _batch(array: NDArray[np.uint8], indices: list[int], pts_seconds: NDArray[np.float64]) -> FrameBatch:
    frame_indices = np.array(indices, np.int64)
    return FrameBatch(array[: len(indices)], frame_indices, pts_seconds[frame_indices])


class MissingFrames:
    """Records which frames could not be decoded, and raises an error that names them at the end.

    Args:
        name: of the file.
        num_frames: of the video.
        num_present: `reason` explains why frames from this number on are missing.
        reason: text for the error.
    """

    def __init__(self, name: str, num_frames: int, num_present: int, reason: str = "the file is cut off") -> None:
        self._name, self._num_frames, self._num_present, self._reason = name, num_frames, num_present, reason
        self._missing: list[int] = []

    def watch(self, frames: Iterable[tuple[int, Frame | None]]) -> Iterator[tuple[int, Frame | None]]:
        """Yields the frames unchanged and records those that are None."""
        for index, frame in frames:
            if frame is None:
                self._missing.append(index)
            yield index, frame

    def raise_if_any(self) -> None:
        """Raises: ReadError: if a frame was missing."""
        if not self._missing:
            return
        reason = f"; {self._reason}" if self._missing[-1] >= self._num_present else ""
        raise ReadError(
            f"{self._name}: {len(self._missing)} of {self._num_frames} frames could not be decoded: "
            f"{format_ranges(self._missing)}{reason}"
        )


def format_ranges(indices: list[int]) -> str:
    """Returns rising numbers as text ranges, at most the first eight.

    >>> format_ranges([1, 2, 3, 7, 9, 10])
    '1-3, 7, 9-10'
    """
    ranges: list[list[int]] = []
    for index in indices:
        if ranges and index == ranges[-1][1] + 1:
            ranges[-1][1] = index
        else:
            ranges.append([index, index])
    words = [str(first) if first == last else f"{first}-{last}" for first, last in ranges]
    more = f" and {len(words) - RANGES_SHOWN} more stretches" if len(words) > RANGES_SHOWN else ""
    return ", ".join(words[:RANGES_SHOWN]) + more
