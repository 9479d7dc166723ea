"""Numbers the frames of a video by decoding all of it, where its times do not tell which frames are shown."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from prelabel.media.packets import MAX_REORDERED, NO_TIME, Packets, Timeline, demux, open_video, packet_clock
from prelabel.runtime.process_settings import usable_cores

# FFmpeg's own limit: with more threads H.264 gets no faster, and each holds a frame.
MAX_DECODER_THREADS = 16
# In a file of these codecs each packet is one displayed frame, unless the file says otherwise. Older codecs have
# packets without a frame and packets with two (packed B-frames): only decoding tells.
ONE_FRAME_PER_PACKET = ("h264", "hevc", "vp8", "vp9", "av1")
# These store a time for each packet, TS with exceptions. FFmpeg guesses times in other containers, or mends wrong ones.
STORE_TIMES = ("mov", "matroska", "mpegts")
# Enough to reach past what a decoder drops at the start of a recording that was cut out of a longer one.
NUM_FIRST_FRAMES = 64


@dataclass(frozen=True, slots=True, eq=False)
class CountedFrames:
    """All frames that a decoder gives, in the order in which it gives them: the order of display.

    Attributes:
        pts: int64 (D,), time of each frame by FFmpeg's guess; NO_TIME where it has none.
        is_key: bool (D,), the frame decodes alone.
        num_sure: frames before the first error of the decoder; numbers after it are not sure.
    """

    pts: NDArray[np.int64]
    is_key: NDArray[np.bool_]
    num_sure: int

    @property
    def is_damaged(self) -> bool:
        """Whether the decoder met an error."""
        return self.num_sure < len(self.pts) or not len(self.pts)

    @property
    def times_rise(self) -> bool:
        """Whether each frame has a later time than the one before."""
        return bool((self.pts != NO_TIME).all() and (np.diff(self.pts) > 0).all())


def times_tell_frames(
    container: InputContainer, stream: VideoStream, packets: Packets, first: VideoFrame, path: Path
) -> bool:
    """Returns whether the packets' times alone tell which frames are shown, in which order.

    Args:
        container: open.
        stream: the video's.
        packets: all of the stream's.
        first: the first frame that decodes.
        path: of the file.
    """
    codec, format_name = stream.codec_context.codec, container.format.name
    shown = packets.is_shown
    times = np.stack([packet_clock(packets)[shown], packets.pts[shown]], axis=1)
    if (times[:, 1] == NO_TIME).any() or len(np.unique(times, axis=0)) < len(times):
        return False
    if codec.intra_only:
        return True
    if _keyframes_overlap(times, packets.is_key[shown]):
        return False
    if codec.canonical_name not in ONE_FRAME_PER_PACKET or not format_name.startswith(STORE_TIMES):
        return False
    if first.interlaced_frame:  # each field may be a packet of its own
        return False
    return format_name != "mpegts" or _stores_all_times(path)


def _keyframes_overlap(times: NDArray[np.int64], is_key: NDArray[np.bool_]) -> bool:
    """Returns whether a frame stored after a keyframe is shown before one that is stored before the keyframe.

    No encoder writes that (for HEVC see 3.69 of H.265, leading pictures). It happens where recordings with open GOPs
    were cut and joined. There the decoder's order is not that of the times.

    Args:
        times: int64 (P, 2), clock and time of each shown packet, in stored order.
        is_key: bool (P,).
    """
    rank = np.empty(len(times), np.int64)
    rank[np.lexsort((times[:, 1], times[:, 0]))] = np.arange(len(times))
    latest_before = np.maximum.accumulate(rank)[:-1]
    earliest_after = np.minimum.accumulate(rank[::-1])[::-1][1:]
    return bool((is_key[1:] & (earliest_after < latest_before)).any())


def begins_as_indexed(path: Path, pts: NDArray[np.int64]) -> bool:
    """Returns whether the first frames that a decoder gives have the times of the first frames of an index."""
    with open_video(path) as (container, stream):
        stream.thread_type = "AUTO"
        try:
            first = [frame.pts for frame in islice(container.decode(stream), NUM_FIRST_FRAMES)]
        except av.error.FFmpegError:
            return True  # damage is found, and reported, where the file is read
    return bool(first == pts[: len(first)].tolist())


def count_by_decoding(path: Path) -> CountedFrames:
    """Returns all frames that a decoder gives of a file; keeps their times, not their pixels."""
    pts: list[int] = []
    is_key: list[bool] = []
    num_sure: int | None = None
    with open_video(path) as (container, stream):
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = min(MAX_DECODER_THREADS, usable_cores())
        for packet in demux(container, stream):
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                num_sure = len(pts) if num_sure is None else num_sure
                continue
            for frame in frames:
                if frame.is_corrupt and num_sure is None:
                    num_sure = len(pts)
                pts.append(NO_TIME if frame.pts is None else frame.pts)
                is_key.append(bool(frame.key_frame))
    return CountedFrames(np.array(pts, np.int64), np.array(is_key, bool), len(pts) if num_sure is None else num_sure)


def lay_out_counted(packets: Packets, counted: CountedFrames) -> Timeline:
    """Returns counted frames as a timeline; frames that are missing in the file come after them."""
    num_sure, step = counted.num_sure, packets.frame_seconds
    num_frames = max(len(counted.pts), int(packets.is_shown.sum()) if counted.is_damaged else 0)
    num_frames += len(packets.missing_dts)
    if len(packets.missing_dts):
        # A frame that was cut off may have been shown before the last ones that are there.
        num_sure = max(0, num_sure - MAX_REORDERED)
    pts = np.full(num_frames, NO_TIME)
    pts[: len(counted.pts)] = counted.pts
    seconds = np.arange(num_frames, dtype=np.float64) * step
    if counted.times_rise and num_frames == len(counted.pts):
        seconds = (counted.pts - counted.pts[0]) * float(packets.time_base)
    return Timeline(packet=np.arange(num_sure), pts=pts, seconds=seconds)


def _stores_all_times(path: Path) -> bool:
    """Returns whether each packet of the video comes with a time that the file stores."""
    with open_video(path, guess_times=False) as (container, stream):
        return all(packet.pts is not None for packet in demux(container, stream) if packet.size)
