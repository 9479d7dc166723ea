"""Frames decoded on the CPU by FFmpeg: the reference, and the reader that takes every file."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing
from types import TracebackType
from typing import Literal, Self

import av
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from prelabel.data.frames import FrameBatch, Media, VideoInfo
from prelabel.errors import FrameCountError, MachineError
from prelabel.media.batching import BatchMemory, FramePool, MissingFrames, check_request, pick_frames, stack_batches
from prelabel.media.container import demux, open_video
from prelabel.media.index import VideoIndex, index_video
from prelabel.media.packets import NO_TIME
from prelabel.media.pixels import FrameConverter
from prelabel.runtime.process_settings import usable_cores

# FFmpeg's own limit: with more threads H.264 gets no faster, and each holds a frame.
MAX_THREADS = 16


class PyAVReader:
    """Reads any video that FFmpeg reads.

    Frames are numbered by their time against the index. A frame that is damaged or missing is left out, reading goes
    on, and once all good frames are out a ReadError says which are missing. Interlaced frames stay as they are.

    Args:
        media: one video.
        device: `auto` or `cpu`.
        threads: of the decoder; 0: one a core, 16 at most.

    Raises:
        MachineError: another device is asked for.
    """

    def __init__(self, media: Media, *, device: str = "auto", threads: int = 0) -> None:
        reason = self.unavailable_reason(device)
        if reason is not None:
            raise MachineError(f"reader pyav on device {device!r}: {reason}")
        self._path = media.paths[0]
        self._threads = threads or min(MAX_THREADS, usable_cores())
        self.pool: BatchMemory = FramePool()
        self._index: VideoIndex | None = None

    @staticmethod
    def unavailable_reason(device: str) -> str | None:
        """Returns why it does not work with such a device; None if it does."""
        return None if device in {"auto", "cpu"} else "it decodes on the CPU: use torchcodec or decord there"

    def __enter__(self) -> Self:
        self._index = index_video(self._path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._index = None

    @property
    def info(self) -> VideoInfo:
        """The video as it is shown."""
        return self._opened().info

    def batches(self, frame_indices: NDArray[np.int64], batch_size: int) -> Iterator[FrameBatch]:
        """Yields the asked frames in order.

        Raises:
            ReadError: after all frames that can be had, if some could not.
        """
        index = self._opened()
        wanted = check_request(frame_indices, batch_size, index.info.num_frames)
        missing = MissingFrames(self._path.name, index.info.num_frames, index.num_present)
        convert = FrameConverter(index.info.width, index.info.height, index.orientation, self._threads)
        pictures = (
            (number, None if frame is None else convert(frame))
            for number, frame in missing.watch(self._frames(index, wanted))
        )
        yield from stack_batches(pictures, index.pts_seconds, batch_size, self.pool)
        missing.raise_if_any()

    def _opened(self) -> VideoIndex:
        if self._index is None:
            raise ValueError("the reader is not open: read inside `with`")
        return self._index

    def _frames(self, index: VideoIndex, wanted: NDArray[np.int64]) -> Iterator[tuple[int, VideoFrame | None]]:
        """Yields the wanted frames: quickly up to the first gap, from there with care."""
        num_done = 0
        with closing(self._decode_quickly(index, wanted)) as decoded:
            for number, frame in pick_frames(decoded, wanted):
                if frame is None:
                    break
                yield number, frame
                num_done += 1
            else:
                _read_on_to_the_end(decoded, index, wanted)
        rest = wanted[num_done:]
        if len(rest):
            with closing(self._decode(index, thread_type="SLICE")) as decoded:
                yield from pick_frames(decoded, rest)
                _read_on_to_the_end(decoded, index, wanted)

    def _decode_quickly(
        self, index: VideoIndex, wanted: NDArray[np.int64]
    ) -> Generator[tuple[int, VideoFrame], None, None]:
        only_keyframes = bool(np.isin(wanted, index.keyframes).all())
        return self._decode(
            index,
            # Frame threads swallow frames after an error (FFmpeg 8.1), so a gap is read again without them.
            thread_type="AUTO",
            skip_frame="NONKEY" if only_keyframes else "DEFAULT",
            start=index.seek_point(wanted),
        )

    def _decode(
        self,
        index: VideoIndex,
        *,
        thread_type: str,
        skip_frame: Literal["DEFAULT", "NONKEY"] = "DEFAULT",
        start: int = 0,
    ) -> Generator[tuple[int, VideoFrame], None, None]:
        """Yields good frames with their numbers, in order, from `start` or a keyframe before it."""
        with open_video(self._path) as (container, stream):
            stream.thread_type = thread_type
            stream.codec_context.thread_count = self._threads
            stream.codec_context.skip_frame = skip_frame
            if start:
                container.seek(int(index.pts[start]), stream=stream)
            numbering = _Numbering(index)
            for packet in demux(container, stream):
                try:
                    frames = packet.decode()
                except av.error.FFmpegError:
                    if index.has_timestamps:
                        continue
                    return  # nothing tells any more which frame is which
                for frame in frames:
                    number = numbering.number(frame)
                    if number is not None and not frame.is_corrupt:
                        yield number, frame
            numbering.check_all_known(self._path.name)


def _read_on_to_the_end(
    decoded: Iterator[tuple[int, VideoFrame]], index: VideoIndex, wanted: NDArray[np.int64]
) -> None:
    """Lets the decoder give what it holds after the video's last frame, so that a surplus is noticed."""
    if len(wanted) and wanted[-1] == index.info.num_frames - 1:
        deque(decoded, maxlen=0)


class _Numbering:
    """Numbers decoded frames, which come in the order in which they are shown."""

    def __init__(self, index: VideoIndex) -> None:
        self._index = index
        self._last = -1
        self._num_unknown = 0

    def number(self, frame: VideoFrame) -> int | None:
        """Returns the frame's number; None if the index does not know it."""
        if not self._index.has_timestamps:
            self._last += 1
            return self._last if self._last < self._index.num_present else None
        later = self._index.pts[self._last + 1 :]
        if frame.pts is not None and len(later) and later[0] == frame.pts:
            self._last += 1
            return self._last
        found = np.flatnonzero(later == (NO_TIME if frame.pts is None else frame.pts))
        if frame.pts is None or not len(found):
            self._num_unknown += 1
            return None
        self._last += 1 + int(found[0])
        return self._last

    def check_all_known(self, name: str) -> None:
        """Checks, at the stream's end, that decoder and index speak of the same frames."""
        index = self._index
        is_whole = index.num_present == index.info.num_frames
        if index.has_timestamps and self._num_unknown and is_whole:
            raise FrameCountError(f"{name}: decoded {self._num_unknown} frames at times that the index does not know")
        if not index.has_timestamps and self._last + 1 != index.num_present and is_whole:
            raise FrameCountError(
                f"{name}: decoded {self._last + 1} frames, the index has {index.num_present}, and the file carries no "
                "times to tell which: convert it to MP4 or MKV first"
            )
