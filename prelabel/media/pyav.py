"""Reads videos on the CPU with FFmpeg. This reader is the reference and accepts every file."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from typing import Literal

import av
import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from prelabel.data.frames import FrameBatch, Media
from prelabel.errors import FrameCountError, MachineError, ReadError
from prelabel.media.batching import BatchMemory, FramePool, MissingFrames, check_request, pick_frames, stack_batches
from prelabel.media.counting import MAX_DECODER_THREADS
from prelabel.media.index import SEEKABLE, IndexedReader, VideoIndex
from prelabel.media.packets import NO_TIME, demux, open_video
from prelabel.media.pixels import FrameConverter
from prelabel.runtime.process_settings import usable_cores

SkipFrame = Literal["DEFAULT", "NONKEY"]


class PyAVReader(IndexedReader):
    """Reads any video that FFmpeg can read.

    Frame times are matched with the index to number the frames. Damaged or missing frames are left out. After the last
    good frame, a ReadError names them. Interlaced frames are not deinterlaced.

    Args:
        media: one video.
        device: `auto` or `cpu`.
        threads: of the decoder; 0: one more than there are cores, at most 16.

    Raises:
        MachineError: `device` is another one.
    """

    def __init__(self, media: Media, *, device: str = "auto", threads: int = 0) -> None:
        reason = self.unavailable_reason(device)
        if reason is not None:
            raise MachineError(f"reader pyav on device {device!r}: {reason}")
        super().__init__(media.paths[0])
        # As FFmpeg does by default: one thread more than cores, so that they stay busy while this one converts a frame.
        self._threads = threads or min(MAX_DECODER_THREADS, usable_cores() + 1)
        self.pool: BatchMemory = FramePool()

    @staticmethod
    def unavailable_reason(device: str) -> str | None:
        """Returns why PyAV cannot use this device; None if it can."""
        return None if device in {"auto", "cpu"} else "it decodes on the CPU: use auto there"

    def batches(self, frame_indices: NDArray[np.int64], batch_size: int) -> Generator[FrameBatch, None, None]:
        """Yields the requested frames in order.

        Raises:
            ReadError: after the last good frame, if some could not be decoded.
        """
        index = self._opened()
        wanted = check_request(frame_indices, batch_size, index.info.num_frames)
        reason = (
            "after the decoder's error nothing tells which frame is which"
            if index.is_counted
            else "the file is cut off"
        )
        missing = MissingFrames(self._path.name, index.info.num_frames, index.num_present, reason)
        convert = FrameConverter(index.info.width, index.info.height, index.orientation, self._threads)
        pictures = (
            (number, None if frame is None else self._convert(frame, number, convert))
            for number, frame in missing.watch(self._frames(index, wanted))
        )
        yield from stack_batches(pictures, index.pts_seconds, batch_size, self.pool)
        missing.raise_if_any()

    def _convert(self, frame: VideoFrame, number: int, convert: FrameConverter) -> NDArray[np.uint8]:
        try:
            return convert(frame)
        except av.error.FFmpegError as error:
            raise ReadError(
                f"{self._path.name}: FFmpeg cannot convert frame {number} to RGB: its pixels are {frame.format.name} "
                f"with the colour matrix {int(frame.colorspace)} of H.273 ({error.strerror}): convert it to BT.709"
            ) from error

    def _frames(self, index: VideoIndex, wanted: NDArray[np.int64]) -> Iterator[tuple[int, VideoFrame | None]]:
        """Yields the wanted frames: with all threads up to the first gap, then without frame threads."""
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
        # Counted frames are numbered by their position, so none may be skipped.
        only_keyframes = (
            not index.is_counted
            and index.container.startswith(SEEKABLE)
            and bool(np.isin(wanted, index.keyframes).all())
        )
        return self._decode(
            index,
            # Frame threads lose frames after an error (FFmpeg 8.1), so the rest is decoded again without them.
            thread_type="AUTO",
            skip_frame="NONKEY" if only_keyframes else "DEFAULT",
            start=index.seek_point(wanted),
        )

    def _decode(
        self, index: VideoIndex, *, thread_type: str, skip_frame: SkipFrame = "DEFAULT", start: int = 0
    ) -> Generator[tuple[int, VideoFrame], None, None]:
        """Yields (number, frame) for undamaged frames in order, from `start` or a keyframe before it."""
        if start:
            with closing(self._decode_from(start, index, thread_type, skip_frame)) as decoded:
                # FFmpeg 8.1 seeks too far in Matroska where times are negative, and after a seek in a fragmented MP4
                # with negative offsets it gives packets other times. Then decoding begins at the start of the file.
                first = None
                with suppress(FrameCountError):
                    first = next(decoded, None)
                if first is not None:
                    yield first
                    yield from decoded
                    return
        yield from self._decode_from(0, index, thread_type, skip_frame)

    def _decode_from(
        self, start: int, index: VideoIndex, thread_type: str, skip_frame: SkipFrame
    ) -> Generator[tuple[int, VideoFrame], None, None]:
        with open_video(self._path) as (container, stream):
            stream.thread_type = thread_type
            stream.codec_context.thread_count = self._threads
            stream.codec_context.skip_frame = skip_frame
            if start:
                container.seek(int(index.pts[start]), stream=stream)
            numbering = _Numbering(index, start, self._path.name, may_skip=skip_frame == "NONKEY")
            for packet in demux(container, stream):
                numbering.check_seek(packet)
                try:
                    frames = packet.decode()
                except av.error.FFmpegError:
                    if index.is_counted:
                        return  # later frames can no longer be numbered
                    numbering.may_skip = True
                    continue
                for frame in frames:
                    numbering.may_skip |= frame.is_corrupt
                    number = numbering.number(frame)
                    if number is not None and not frame.is_corrupt:
                        yield number, frame
            numbering.check_all_came()


def _read_on_to_the_end(
    decoded: Iterator[tuple[int, VideoFrame]], index: VideoIndex, wanted: NDArray[np.int64]
) -> None:
    """Decodes past the video's last frame, so that a surplus frame raises an error."""
    if len(wanted) and wanted[-1] == index.info.num_frames - 1:
        deque(decoded, maxlen=0)


class _Numbering:
    """Numbers decoded frames, which arrive in display order, and checks them against the index.

    If the decoder returns a frame that the index does not expect, the index is wrong. All later numbers could then be
    wrong, so this is an error at once and under any policy.

    Args:
        index: of the video.
        start: first frame that is decoded.
        name: of the file.
        may_skip: frames may be missing although the index is right: only keyframes are decoded, or there is damage.
    """

    def __init__(self, index: VideoIndex, start: int, name: str, *, may_skip: bool) -> None:
        self._index, self._start, self._name = index, start, name
        self._next = start
        self._is_first_packet = True
        self._is_whole = index.num_present == index.info.num_frames
        self.may_skip = may_skip or not self._is_whole

    def check_seek(self, packet: Packet[VideoStream]) -> None:
        """Checks that a seek led to a packet of the index, at or before the wanted one.

        Raises:
            FrameCountError: it led elsewhere.
        """
        if self._is_first_packet and self._start and not self._index.holds(packet, self._start):
            raise self._wrong_index(packet.pts)
        self._is_first_packet = False

    def number(self, frame: VideoFrame) -> int | None:
        """Returns the frame's number; None if the frame is not in the index.

        Raises:
            FrameCountError: the index is wrong.
        """
        index, number = self._index, self._next
        pts = NO_TIME if frame.pts is None else frame.pts
        if number < index.num_present and index.pts[number] == pts:
            self._next += 1
            return number
        if index.is_counted:
            if self._is_whole:
                raise self._wrong_index(pts)
            return None
        found = np.flatnonzero(index.pts[number : index.num_present] == pts)
        if len(found) and self.may_skip:
            self._next += 1 + int(found[0])
            return self._next - 1
        # After a seek to a keyframe, a decoder may return frames that are shown before it.
        is_before_start = number == self._start > 0 and pts < index.pts[number]
        if self._is_whole and not is_before_start:
            raise self._wrong_index(pts)
        return None

    def check_all_came(self) -> None:
        """Checks, at the stream's end, that no frame of the index is missing without damage."""
        if not self.may_skip and self._next < self._index.num_present:
            raise self._wrong_index(None)

    def _wrong_index(self, pts: int | None) -> FrameCountError:
        index, number = self._index, self._next
        came = "the video ended" if pts is None else f"a frame of another time ({pts}) came"
        source = "decoding it once before" if index.is_counted else "the times in the file"
        return FrameCountError(
            f"{self._name}: {came} where {source} promised frame {number} of {index.info.num_frames}: which frame is "
            "which is not sure: convert it first (ffmpeg -i in -fps_mode passthrough out.mp4)"
        )
