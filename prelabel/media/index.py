"""The index of a video: which frames are shown and when. The only source of frame numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.buffer import Buffer
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from prelabel.data.frames import VideoInfo
from prelabel.errors import ReadError
from prelabel.media.counting import begins_as_indexed, count_by_decoding, lay_out_counted, times_tell_frames
from prelabel.media.packets import (
    NO_TIME,
    Packets,
    Timeline,
    demux,
    demux_packets,
    drop_lost_start,
    find_keyframes,
    lay_out,
    open_video,
    other_video_streams,
)
from prelabel.media.pixels import Orientation

# AVCOL_SPC_* and AVCOL_RANGE_* of libavutil/pixfmt.h, by FFmpeg's own names.
COLOR_SPACES = {0: "gbr", 1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 9: "bt2020nc"}
COLOR_RANGES = {1: "tv", 2: "pc"}
# Containers in which FFmpeg finds the keyframe that it is asked for.
SEEKABLE = ("mov", "matroska")


@dataclass(frozen=True, slots=True, eq=False)
class VideoIndex:
    """What a demux pass tells of a video.

    Frame `i` is the i-th that FFmpeg shows. Where the file stores a time for each packet, frames are the packets that
    no edit list discards, in the order of their times. Elsewhere the file was decoded once, and its frames counted.

    Attributes:
        path: the file.
        stream_index: the video's stream among all streams of the file.
        other_streams: indices of the video streams that are not read.
        info: the video as it is shown; `num_frames` counts frames that were cut off the file's end too.
        pts: int64 (N,), time of each frame in units of the stream; not in order of time where timestamps start anew.
        pts_seconds: float64 (N,), time of each frame, from the first.
        start_seconds: time of the first frame by the file's own clock.
        keyframes: int64 (K,), frames that can be decoded alone; only those whose number is sure.
        closed_gop_starts: int64 (C,), keyframes that no frame crosses: what is before decodes without what is after.
        num_present: frames 0 .. num_present - 1 lie in the file whole, the others were cut off.
        container: FFmpeg's name of the container, e.g. `mov,mp4,m4a,3gp,3g2,mj2`.
        codec: FFmpeg's name of the codec, e.g. `h264`.
        pixel_format: FFmpeg's name, e.g. `yuv420p`.
        bits: bits of one colour component.
        color_space: FFmpeg's name of the matrix, e.g. `bt709`; `unknown` where the file does not say.
        color_range: `tv`, `pc` or `unknown`.
        coded_size: (width, height) in pixels as stored, before the turn.
        orientation: how a stored picture is laid to be displayed.
        is_interlaced: the first frame holds two fields.
        has_timestamps: times of frames rise and can be trusted; else frames can only be counted from the start.
        is_counted: the file was decoded once to number its frames: reading has to begin at the start, too.
        has_unshown_packets: frames that an edit list discards, VP8 hides, or that refer to what is
            not in the file.
        has_duration: the container says how long it is.
    """

    path: Path
    stream_index: int
    other_streams: tuple[int, ...]
    info: VideoInfo
    pts: NDArray[np.int64]
    pts_seconds: NDArray[np.float64]
    start_seconds: float
    keyframes: NDArray[np.int64]
    closed_gop_starts: NDArray[np.int64]
    num_present: int
    container: str
    codec: str
    pixel_format: str
    bits: int
    color_space: str
    color_range: str
    coded_size: tuple[int, int]
    orientation: Orientation
    is_interlaced: bool
    has_timestamps: bool
    is_counted: bool
    has_unshown_packets: bool
    has_duration: bool

    @property
    def seek_points(self) -> NDArray[np.int64]:
        """Frames from which decoding may begin, int64 (C,), rising; the first frame alone where seeking is not sure."""
        if self.has_timestamps and not self.is_counted and self.container.startswith(SEEKABLE):
            return np.union1d(self.closed_gop_starts, 0)
        return np.zeros(1, np.int64)

    def seek_point(self, wanted: NDArray[np.int64]) -> int:
        """Returns the frame from which to decode so that the first of the wanted ones, int64 (M,), comes soonest."""
        return int(self.seek_points[self.seek_points <= wanted[0]][-1]) if len(wanted) else 0


def index_video(path: Path) -> VideoIndex:
    """Returns the index of a video. Reads the whole file once and decodes its first frame.

    Where the file's times do not tell which frames are shown, all of it is decoded once more, just to count. That takes
    as long as reading it, and is the only way that holds: FFmpeg guesses missing times, and guesses wrong.

    The last few indices are kept, so that a choice of reader and the reader itself share one pass.

    Raises:
        ReadError: the file is missing, empty, no video, or holds no frame that can be decoded.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise ReadError(f"{path.name}: no such file: {path}") from error
    return _index_video(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4)
def _index_video(path: Path, size: int, mtime_ns: int) -> VideoIndex:
    first = _decode_first_frame(path)
    with open_video(path) as (container, stream):
        packets = demux_packets(container, stream)
        if not packets.is_shown.any():
            raise ReadError(f"{path.name}: no frames: the video stream is empty")
        return _build_index(path, container, stream, packets, first)


def _decode_first_frame(path: Path) -> VideoFrame:
    """Returns the first frame that decodes: only it tells the true size, the display matrix and interlacing."""
    with open_video(path) as (container, stream):
        stream.thread_type = "SLICE"
        stream.codec_context.thread_count = 1
        for packet in demux(container, stream):
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                continue
            if frames:
                return frames[0]
    raise ReadError(f"{path.name}: no frames: nothing in the video stream could be decoded")


def _build_index(
    path: Path, container: InputContainer, stream: VideoStream, packets: Packets, first: VideoFrame
) -> VideoIndex:
    numbering = _number_frames(path, container, stream, packets, first)
    timeline = numbering.timeline
    orientation = _orientation(first)
    width, height = orientation.displayed_size(first.width, first.height)
    return VideoIndex(
        path=path,
        stream_index=stream.index,
        other_streams=other_video_streams(container, stream),
        info=_info(width, height, timeline, packets.frame_seconds, orientation.rotation_degrees),
        pts=timeline.pts,
        pts_seconds=timeline.seconds,
        start_seconds=float(timeline.pts[0] * packets.time_base) if numbering.has_timestamps else 0.0,
        keyframes=numbering.keyframes,
        closed_gop_starts=numbering.closed_gop_starts,
        num_present=len(timeline.packet),
        container=container.format.name,
        codec=stream.codec_context.codec.canonical_name,
        pixel_format=first.format.name,
        bits=first.format.components[0].bits,
        color_space=COLOR_SPACES.get(int(first.colorspace), "unknown"),
        color_range=COLOR_RANGES.get(int(first.color_range), "unknown"),
        coded_size=(first.width, first.height),
        orientation=orientation,
        is_interlaced=first.interlaced_frame,
        has_timestamps=numbering.has_timestamps,
        is_counted=numbering.is_counted,
        has_unshown_packets=numbering.has_unshown_packets,
        has_duration=stream.duration is not None or container.duration is not None,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Numbering:
    """Which frames a video has; the fields are those of `VideoIndex`."""

    timeline: Timeline
    keyframes: NDArray[np.int64]
    closed_gop_starts: NDArray[np.int64]
    has_timestamps: bool
    is_counted: bool
    has_unshown_packets: bool


def _number_frames(
    path: Path, container: InputContainer, stream: VideoStream, packets: Packets, first: VideoFrame
) -> _Numbering:
    """Numbers the frames by the packets' times where these tell; else by decoding the whole file once."""
    all_timed = bool((packets.pts != NO_TIME).all())
    by_packets = _number_by_packets(drop_lost_start(packets, first.pts)) if all_timed else None
    if by_packets is not None and times_tell_frames(container, stream, packets, first, path):
        begins_clean = bool(packets.is_key[0]) and packets.pts[0] == packets.pts[packets.is_shown].min()
        if begins_clean or begins_as_indexed(path, by_packets.timeline.pts):
            return by_packets
    counted = count_by_decoding(path)
    # Frames that were decoded at exactly the packets' times verify these. In a damaged file, those that are left do.
    if by_packets is not None and counted.times_rise:
        damaged = counted.is_damaged or len(packets.missing_dts) > 0
        if damaged and np.isin(counted.pts, packets.pts).all():
            return by_packets
        if np.array_equal(counted.pts, by_packets.timeline.pts):
            # Elsewhere a decoder that skips frames, or starts in mid-file, gives other times than one that does not.
            is_seekable = container.format.name.startswith(SEEKABLE)
            keyframes = np.flatnonzero(counted.is_key)
            return replace(by_packets, keyframes=keyframes, is_counted=not is_seekable)
    timeline = lay_out_counted(packets, counted)
    num_present = len(timeline.packet)
    return _Numbering(
        timeline=timeline,
        keyframes=np.flatnonzero(counted.is_key[:num_present]),
        closed_gop_starts=np.zeros(min(1, num_present), np.int64),
        has_timestamps=counted.times_rise and not counted.is_damaged and not len(packets.missing_dts),
        is_counted=True,
        has_unshown_packets=len(counted.pts) != len(packets.pts),
    )


def _number_by_packets(packets: Packets) -> _Numbering:
    timeline = lay_out(packets)
    keyframes, closed_gop_starts = find_keyframes(packets, timeline)
    return _Numbering(timeline, keyframes, closed_gop_starts, True, False, not bool(packets.is_shown.all()))


def _info(width: int, height: int, timeline: Timeline, frame_seconds: float, rotation_degrees: int) -> VideoInfo:
    num_frames = len(timeline.seconds)
    duration = float(timeline.seconds[-1] + frame_seconds)
    return VideoInfo(
        width=width,
        height=height,
        num_frames=num_frames,
        average_fps=num_frames / duration if duration > 0 else 0.0,
        duration_seconds=duration,
        rotation_degrees=rotation_degrees,
    )


def _orientation(first: VideoFrame) -> Orientation:
    matrix = first.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return Orientation()
    return Orientation.from_display_matrix(np.frombuffer(bytes(cast(Buffer, matrix)), np.int32).tolist())
