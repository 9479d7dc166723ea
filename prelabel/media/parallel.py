"""Reads one long video with several readers in parallel and yields batches in frame order."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from prelabel.data.frames import FrameBatch, Media, VideoInfo
from prelabel.errors import ReadError
from prelabel.media.batching import BatchMemory, FramePool, PooledReader, check_request
from prelabel.media.cuda import await_frames, to_device
from prelabel.media.index import index_video
from prelabel.plugins.protocols import VideoReader
from prelabel.runtime.prefetch import prefetch_each

# Up to one batch is decoded twice at the end of a segment. With four batches per segment, that is an eighth on average.
MIN_SEGMENT_BATCHES = 4


class ParallelReader:
    """Reads a video with several readers of one kind, each on its own thread.

    With N workers, each reader takes every N-th segment. The batches are the same as those of a single reader. If a
    segment cannot be read completely, a single reader continues from there. So results and errors do not depend on the
    number of workers.

    Args:
        media: one video.
        make_reader: builds a reader that can begin at any keyframe; called on several threads.
        num_workers: readers that run at the same time.
        max_bytes: memory for frames that are decoded ahead of their turn.
        device: GPU on which the readers decode, each on its own CUDA stream; None: the CPU.
    """

    def __init__(
        self,
        media: Media,
        make_reader: Callable[[], VideoReader],
        num_workers: int,
        max_bytes: float,
        device: str | None,
    ) -> None:
        self._path = media.paths[0]
        self._make_reader = make_reader
        self._num_workers, self._max_bytes, self._device = num_workers, max_bytes, device
        self.pool: BatchMemory = FramePool()
        self._first: VideoReader | None = None

    def __enter__(self) -> Self:
        reader = self._build()
        reader.__enter__()
        self._first = reader
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        reader, self._first = self._opened(), None
        reader.__exit__(kind, error, trace)

    @property
    def info(self) -> VideoInfo:
        """The video as displayed."""
        return self._opened().info

    def batches(self, frame_indices: NDArray[np.int64], batch_size: int) -> Generator[FrameBatch, None, None]:
        """Yields the wanted frames in order.

        Raises:
            ReadError: the same error that a single reader raises.
        """
        first = self._opened()
        wanted = check_request(frame_indices, batch_size, first.info.num_frames)
        segments = split_at_keyframes(wanted, index_video(self._path).seek_points, batch_size)
        bytes_per_pixel = getattr(first, "bytes_per_pixel", 3)  # a reader of surfaces has fewer than RGB
        max_batches = int(self._max_bytes / (batch_size * first.info.width * first.info.height * bytes_per_pixel))
        num_workers = min(self._num_workers, len(segments), max_batches // 2)
        if num_workers < 2:
            yield from first.batches(wanted, batch_size)
            return
        num_done = 0
        with closing(self._merge(segments, num_workers, ReadAheadBudget(num_workers, max_batches))) as merged:
            for batch in merged:
                num_done += len(batch)
                yield batch
                del batch
        if num_done < len(wanted):
            with self._build() as reader:  # a new one: the stopped readers may be in any state
                yield from reader.batches(wanted[num_done:], batch_size)

    def _opened(self) -> VideoReader:
        if self._first is None:
            raise ValueError("the reader is not open: read inside `with`")
        return self._first

    def _build(self) -> VideoReader:
        reader = self._make_reader()
        if isinstance(reader, PooledReader):
            reader.pool = self.pool
        return reader

    def _merge(
        self, segments: Sequence[Segment], num_workers: int, budget: ReadAheadBudget
    ) -> Generator[FrameBatch, None, None]:
        """Yields the segments' batches in order; ends early at a missing or unexpected batch."""
        workers = [self._decode(segments[number::num_workers], budget) for number in range(num_workers)]
        # Close the budget before `prefetch_each` joins the workers: one that waits for room would never end.
        with prefetch_each(workers, name="decode worker") as queues, closing(budget):
            for segment in segments:
                budget.begin(segment.number)
                for expected in segment.batches:
                    try:
                        batch = next(queues[segment.number % num_workers], None)
                    except ReadError:
                        return
                    if batch is None or not np.array_equal(batch.frame_indices, expected):
                        return
                    budget.give_back(segment.number)
                    await_frames(batch)
                    yield batch
                    del batch
            for queue in queues:
                next(queue, None)  # raises what a reader reports at its end

    def _decode(self, segments: Sequence[Segment], budget: ReadAheadBudget) -> Iterator[FrameBatch]:
        with self._build() as reader:
            for segment in segments:
                read = reader.batches(np.concatenate(segment.batches), len(segment.batches[0]))
                with closing(to_device(read, self._device)) as batches:
                    for _ in segment.batches:
                        if not budget.take(segment.number):
                            return
                        batch = next(batches, None)
                        if batch is None:
                            break
                        yield batch
                        del batch
                    next(batches, None)  # raises what the reader reports at the segment's end


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive batches that one reader decodes.

    Attributes:
        number: 0-based, in the video's order.
        batches: int64 frame indices of each batch.
    """

    number: int
    batches: tuple[NDArray[np.int64], ...]


def split_at_keyframes(wanted: NDArray[np.int64], seek_points: NDArray[np.int64], batch_size: int) -> list[Segment]:
    """Groups a video's batches into segments. Each segment begins shortly after a seek point.

    A batch that crosses a seek point belongs to the earlier segment, so the batches do not depend on the split.

    Args:
        wanted: int64 (M,), frame numbers, rising.
        seek_points: int64 (C,), frames at which decoding may begin, rising.
        batch_size: frames per batch.

    >>> [segment.batches[0].tolist() for segment in split_at_keyframes(np.arange(30), np.array([0, 3, 9, 18]), 2)]
    [[0, 1], [10, 11], [18, 19]]
    """
    batches = [wanted[at : at + batch_size] for at in range(0, len(wanted), batch_size)]
    after = -(-np.searchsorted(wanted, seek_points) // batch_size)  # first batch wholly after each seek point
    starts = [0]
    for start in after.tolist():
        if start - starts[-1] >= MIN_SEGMENT_BATCHES and len(batches) - start >= MIN_SEGMENT_BATCHES:
            starts.append(start)
    return [
        Segment(number, tuple(batches[start:stop]))
        for number, (start, stop) in enumerate(zip(starts, [*starts[1:], len(batches)], strict=True))
    ]


class ReadAheadBudget:
    """Limits how many batches each segment may have decoded ahead of its turn.

    The consumer takes one segment after the other, each as fast as all readers together decode. So most of the next
    segment should be decoded by its turn, but only a little of the last one. Equal shares would give the next segment
    too little memory and the last one too much.
    """

    def __init__(self, num_workers: int, num_batches: int) -> None:
        shares = num_workers * (num_workers + 1) // 2
        self._limits = [max(1, num_batches * (num_workers - rank) // shares) for rank in range(num_workers)]
        self._changed = threading.Condition()
        self._ahead: Counter[int] = Counter()
        self._turn = 0
        self._is_closed = False

    def begin(self, segment: int) -> None:
        """Records that the consumer now reads this segment."""
        with self._changed:
            self._turn = segment
            self._changed.notify_all()

    def take(self, segment: int) -> bool:
        """Waits until the segment may decode one more batch; returns False if the budget was closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._has_room(segment))
            self._ahead[segment] += 1
            return not self._is_closed

    def give_back(self, segment: int) -> None:
        """Records that the consumer took one of the segment's batches."""
        with self._changed:
            self._ahead[segment] -= 1
            self._changed.notify_all()

    def close(self) -> None:
        """Makes all waiting and later calls of `take` return False."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _has_room(self, segment: int) -> bool:
        rank = segment - self._turn
        return rank < len(self._limits) and self._ahead[segment] < self._limits[rank]
