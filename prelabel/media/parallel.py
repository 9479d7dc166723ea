"""One long video by several readers at once: each takes pieces between keyframes, and batches come in frame order."""

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
from prelabel.media.cuda_streams import await_frames, to_device
from prelabel.media.index import index_video
from prelabel.plugins.protocols import VideoReader
from prelabel.runtime.prefetch import prefetch_each

LEAST_BATCHES = 4
"""Batches that a piece holds at least. At its end less than one is decoded twice: at most an eighth more on average."""


class ParallelReader:
    """Reads a video by several readers of one kind, each on a thread of its own.

    A reader takes every N-th piece. Batches are those that one reader alone would give. Where a piece cannot be had
    whole, one reader reads on from there: it gives what it can, or raises, as it does without the others.

    Args:
        media: one video.
        make_reader: builds a reader of it that can begin at any keyframe; called on several threads.
        sessions: readers at once.
        max_bytes: that frames may take which are decoded ahead of their turn.
        device: GPU on which they decode, each on a stream of its own; None: the CPU.
    """

    def __init__(
        self, media: Media, make_reader: Callable[[], VideoReader], sessions: int, max_bytes: float, device: str | None
    ) -> None:
        self._path = media.paths[0]
        self._make_reader = make_reader
        self._sessions, self._max_bytes, self._device = sessions, max_bytes, device
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
        """The video as it is shown."""
        return self._opened().info

    def batches(self, frame_indices: NDArray[np.int64], batch_size: int) -> Generator[FrameBatch, None, None]:
        """Yields the asked frames in order.

        Raises:
            ReadError: as one reader raises it.
        """
        first = self._opened()
        wanted = check_request(frame_indices, batch_size, first.info.num_frames)
        pieces = split_at_keyframes(wanted, index_video(self._path).seek_points, batch_size)
        max_batches = int(self._max_bytes / (batch_size * first.info.width * first.info.height * 3))
        sessions = min(self._sessions, len(pieces), max_batches // 2)
        if sessions < 2:
            yield from first.batches(wanted, batch_size)
            return
        num_done = 0
        with closing(self._merge(pieces, sessions, ReadAheadBudget(sessions, max_batches))) as merged:
            for batch in merged:
                num_done += len(batch)
                yield batch
                del batch
        if num_done < len(wanted):
            with self._build() as reader:  # another may be in no state to go on
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
        self, pieces: Sequence[Segment], sessions: int, room: ReadAheadBudget
    ) -> Generator[FrameBatch, None, None]:
        """Yields the pieces' batches in order; ends early where one is not as it has to be."""
        readings = [self._decode(pieces[number::sessions], room) for number in range(sessions)]
        with prefetch_each(readings, name="session") as streams, closing(room):
            for piece in pieces:
                room.begin(piece.number)
                for expected in piece.batches:
                    try:
                        batch = next(streams[piece.number % sessions], None)
                    except ReadError:
                        return
                    if batch is None or not np.array_equal(batch.frame_indices, expected):
                        return
                    room.give(piece.number)
                    await_frames(batch)  # whoever asks may read them, as those of one reader
                    yield batch
                    del batch
            for stream in streams:
                next(stream, None)  # raises what a reader has to say at its end

    def _decode(self, pieces: Sequence[Segment], room: ReadAheadBudget) -> Iterator[FrameBatch]:
        with self._build() as reader:
            for piece in pieces:
                asked = reader.batches(np.concatenate(piece.batches), len(piece.batches[0]))
                with closing(to_device(asked, self._device)) as batches:
                    for _ in piece.batches:
                        if not room.take(piece.number):
                            return
                        batch = next(batches, None)
                        if batch is None:
                            break
                        yield batch
                        del batch
                    next(batches, None)  # raises what the reader has to say at the piece's end


@dataclass(frozen=True, slots=True)
class Segment:
    """Batches that one reader decodes on end.

    Attributes:
        number: 0-based, in the video's order.
        batches: int64 frame indices of each batch.
    """

    number: int
    batches: tuple[NDArray[np.int64], ...]


def split_at_keyframes(wanted: NDArray[np.int64], seek_points: NDArray[np.int64], batch_size: int) -> list[Segment]:
    """Returns the batches of a video as pieces, each of which begins shortly after a frame from which one can decode.

    A batch that crosses such a frame belongs to the piece before, so that batches are those of the whole video.

    Args:
        wanted: int64 (M,), frames asked for, rising.
        seek_points: int64 (C,), frames from which decoding may begin, rising.
        batch_size: frames a batch.

    >>> [piece.batches[0].tolist() for piece in split_at_keyframes(np.arange(30), np.array([0, 3, 9, 18]), 2)]
    [[0, 1], [10, 11], [18, 19]]
    """
    batches = [wanted[at : at + batch_size] for at in range(0, len(wanted), batch_size)]
    after = -(-np.searchsorted(wanted, seek_points) // batch_size)  # the first batch that lies whole beyond each
    starts = [0]
    for start in after.tolist():
        if start - starts[-1] >= LEAST_BATCHES and len(batches) - start >= LEAST_BATCHES:
            starts.append(start)
    return [
        Segment(number, tuple(batches[start:stop]))
        for number, (start, stop) in enumerate(zip(starts, [*starts[1:], len(batches)], strict=True))
    ]


class ReadAheadBudget:
    """Room for batches that are decoded ahead: a piece gets less of it the later its turn is.

    Pieces are taken one after the other, each as fast as all readers together decode. So of the next one nearly all
    should be there by its turn, and of the last one little: equal shares would leave the next short and the last idle.
    """

    def __init__(self, sessions: int, num_batches: int) -> None:
        shares = sessions * (sessions + 1) // 2
        self._limits = [max(1, num_batches * (sessions - rank) // shares) for rank in range(sessions)]
        self._changed = threading.Condition()
        self._ahead: Counter[int] = Counter()
        self._turn = 0
        self._is_closed = False

    def begin(self, piece: int) -> None:
        """Takes note that it is this piece's turn."""
        with self._changed:
            self._turn = piece
            self._changed.notify_all()

    def take(self, piece: int) -> bool:
        """Waits until the piece may have one batch more; returns whether anybody still wants it."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._has_room(piece))
            self._ahead[piece] += 1
            return not self._is_closed

    def give(self, piece: int) -> None:
        """Takes note that one of the piece's batches has been handed on."""
        with self._changed:
            self._ahead[piece] -= 1
            self._changed.notify_all()

    def close(self) -> None:
        """Ends all waiting."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _has_room(self, piece: int) -> bool:
        rank = piece - self._turn
        return rank < len(self._limits) and self._ahead[piece] < self._limits[rank]
