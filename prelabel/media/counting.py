"""Numbers the frames of a video by decoding it, if the packet times do not say which frames are shown."""

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

from prelabel.media.nal_units import lost_references
from prelabel.media.packets import MAX_REORDERED, NO_TIME, Packets, Timeline, demux, open_video, packet_clock
from prelabel.runtime.process_settings import usable_cores

# FFmpeg's own limit: more threads do not speed up H.264, and each thread holds a frame.
MAX_DECODER_THREADS = 16
# In these codecs each packet is one displayed frame, unless the file says otherwise. Older codecs have packets with
# no frame or with two (packed B-frames), so their frames can be counted only by decoding.
ONE_FRAME_PER_PACKET = ("h264", "hevc", "vp8", "vp9", "av1")
# These containers store a time for each packet, TS with exceptions. In others FFmpeg guesses or repairs times.
STORE_TIMES = ("mov", "matroska", "mpegts")
# A recording cut out of a longer one starts with frames that the decoder drops. This many frames reach past them.
NUM_FIRST_FRAMES = 64


@dataclass(frozen=True, slots=True, eq=False)
class CountedFrames:
    """All frames that a decoder returns, in display order.

    Attributes:
        pts: int64 (D,), FFmpeg's guess of each frame's time; NO_TIME if it has none.
        is_key: bool (D,), the frame decodes alone.
        num_sure: frames before the decoder's first error; later frame numbers are uncertain.
    """

    pts: NDArray[np.int64]
    is_key: NDArray[np.bool_]
    num_sure: int

    @property
    def is_damaged(self) -> bool:
        """Whether the decoder reported an error, or returned no frame."""
        return self.num_sure < len(self.pts) or not len(self.pts)

    @property
    def times_rise(self) -> bool:
        """Whether each frame has a later time than the one before."""
        return bool((self.pts != NO_TIME).all() and (np.diff(self.pts) > 0).all())


def times_tell_frames(
    container: InputContainer, stream: VideoStream, packets: Packets, first: VideoFrame, path: Path
) -> bool:
    """Returns whether the packet times alone determine which frames are shown, and in which order.

    Args:
        container: open.
        stream: the video's.
        packets: all packets of the stream.
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
    one_frame_each = codec.canonical_name in ONE_FRAME_PER_PACKET and packets.one_frame_each
    if not one_frame_each or not format_name.startswith(STORE_TIMES):
        return False
    # Where an edit list enters in mid-GOP, the decoder drops more frames than the list says.
    is_edited = format_name.startswith("mov") and (packets.has_repeats or packets.leaves_out_inside(or_at_end=False))
    fields_may_be_packets = first.interlaced_frame
    if is_edited or fields_may_be_packets:
        return False
    if not _order_is_sure(stream, packets, times, path):
        return False
    return format_name != "mpegts" or _stores_all_times(path)


def _order_is_sure(stream: VideoStream, packets: Packets, times: NDArray[np.int64], path: Path) -> bool:
    """Returns whether a decoder shows the frames in the order of their times.

    Args:
        stream: the video's.
        packets: all packets of the stream.
        times: int64 (P, 2), clock and time of each shown packet, in stored order.
        path: of the file.
    """
    are_reordered = _are_reordered(times)
    # If a decoder reorders what the times do not, these are decoding times. Only H.264 and HEVC are reordered.
    reorders = bool(stream.codec_context.has_b_frames)
    if reorders != are_reordered or _keyframes_overlap(times, packets.is_key[packets.is_shown]):
        return False
    if not _has_gap(packets):
        return True
    # Where frames were lost or the clock jumps in mid-GOP, a decoder keeps its own order, whatever the times say.
    lacks_references = stream.codec_context.codec.canonical_name == "h264" and _lacks_references(path)
    return not are_reordered and not lacks_references


def _are_reordered(times: NDArray[np.int64]) -> bool:
    """Returns whether a frame is stored after one that is shown later; `times` is int64 (P, 2), clock and time."""
    return bool(((np.diff(times[:, 0]) == 0) & (np.diff(times[:, 1]) < 0)).any())


def _keyframes_overlap(times: NDArray[np.int64], is_key: NDArray[np.bool_]) -> bool:
    """Returns whether a frame stored after a keyframe is shown before one that is stored before the keyframe.

    No encoder writes this (for HEVC see 3.69 of H.265, leading pictures). It happens if recordings with open GOPs were
    cut and joined. The decoder's order then differs from the order of the times.

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
    """Returns whether the first decoded frames have the times of the first frames of an index."""
    with open_video(path) as (container, stream):
        stream.thread_type = "AUTO"
        try:
            first = [frame.pts for frame in islice(container.decode(stream), NUM_FIRST_FRAMES)]
        except av.error.FFmpegError:
            return True  # the reader reports the damage later
    return bool(first == pts[: len(first)].tolist())


def count_by_decoding(path: Path) -> CountedFrames:
    """Decodes a file and returns the times of all its frames, without their pixels."""
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
                pts.append(NO_TIME if frame.pts is None else frame.pts)
                is_key.append(bool(frame.key_frame))
    return CountedFrames(np.array(pts, np.int64), np.array(is_key, bool), len(pts) if num_sure is None else num_sure)


def lay_out_counted(packets: Packets, counted: CountedFrames) -> Timeline:
    """Returns counted frames as a timeline, followed by the frames that the file lacks."""
    num_sure, step = counted.num_sure, packets.frame_seconds
    num_frames = max(len(counted.pts), int(packets.is_shown.sum()) if counted.is_damaged else 0)
    num_frames += len(packets.missing_dts)
    if len(packets.missing_dts):
        # A frame that was cut off may belong before the last present ones in display order.
        num_sure = max(0, num_sure - MAX_REORDERED)
    pts = np.full(num_frames, NO_TIME)
    pts[: len(counted.pts)] = counted.pts
    seconds = np.arange(num_frames, dtype=np.float64) * step
    if counted.times_rise and num_frames == len(counted.pts):
        seconds = (counted.pts - counted.pts[0]) * float(packets.time_base)
    return Timeline(packet=np.arange(num_sure), pts=pts, seconds=seconds)


def _has_gap(packets: Packets) -> bool:
    """Returns whether a frame is decoded much later than the one before: packets were lost, or the rate varies."""
    steps = np.diff(packets.dts[packets.dts != NO_TIME]) * float(packets.time_base)
    return bool((steps > 1.5 * packets.frame_seconds).any())


def _lacks_references(path: Path) -> bool:
    with open_video(path) as (container, stream):
        packets = (bytes(packet) for packet in demux(container, stream) if packet.size)
        return lost_references(packets, stream.codec_context.extradata)


def _stores_all_times(path: Path) -> bool:
    """Returns whether the file stores a time for each packet of the video."""
    with open_video(path, guess_times=False) as (container, stream):
        return all(packet.pts is not None for packet in demux(container, stream) if packet.size)
