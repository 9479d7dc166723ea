"""The index of a video: which frames are shown and when. The only source of frame numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import av
import numpy as np
from av.buffer import Buffer
from av.container import InputContainer
from av.packet import Packet
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from prelabel.data.frames import VideoInfo
from prelabel.data.surfaces import Orientation
from prelabel.errors import ReadError
from prelabel.media.counting import (
    CountedFrames,
    begins_as_indexed,
    count_by_decoding,
    lay_out_counted,
    times_tell_frames,
)
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

# AVCOL_SPC_* and AVCOL_RANGE_* of libavutil/pixfmt.h, by FFmpeg's own names.
COLOR_SPACES = {
    **{0: "gbr", 1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "ycgco", 9: "bt2020nc"},
    **{10: "bt2020c", 11: "smpte2085", 12: "chroma-derived-nc", 13: "chroma-derived-c", 14: "ictcp"},
}
COLOR_RANGES = {1: "tv", 2: "pc"}
# Containers in which FFmpeg seeks reliably to the requested keyframe.
SEEKABLE = ("mov", "matroska")


@dataclass(frozen=True, slots=True, eq=False)
class VideoIndex:
    """The frames and properties of a video file.

    Frame `i` is the i-th that FFmpeg shows. If the file stores a time for each packet, frames are the packets that no
    edit list discards, in the order of their times. Otherwise the file was decoded once and its frames were counted.

    Attributes:
        path: the file.
        stream_index: index of the video stream in the file.
        other_streams: indices of the video streams that are not read.
        info: the video as displayed; `num_frames` includes frames that were cut off the end of the file.
        pts: int64 (N,), time of each frame in units of the stream; not sorted if the file's clock is reset.
        dts: int64 (num_present,), time at which each frame is decoded, in the same units; tells where a seek led.
        pts_seconds: float64 (N,), time of each frame since the first.
        start_seconds: time of the first frame on the file's own clock.
        keyframes: int64 (K,), frames that decode alone; only those whose number is certain.
        closed_gop_starts: int64 (C,), keyframes that no frame crosses: earlier frames decode without later ones.
        num_present: frames 0 .. num_present - 1 are complete in the file; the others were cut off.
        container: FFmpeg's name of the container, e.g. `mov,mp4,m4a,3gp,3g2,mj2`.
        codec: FFmpeg's name of the codec, e.g. `h264`.
        pixel_format: FFmpeg's name, e.g. `yuv420p`.
        bits: bits per colour component.
        color_space: FFmpeg's name of the matrix, e.g. `bt709`; `unknown` if the file does not say.
        color_range: `tv`, `pc` or `unknown`.
        coded_size: (width, height) in pixels as stored, before rotation.
        orientation: how a stored frame is rotated and mirrored for display.
        is_interlaced: the first frame holds two fields.
        has_timestamps: frame times rise and can be trusted; otherwise frames are counted from the start.
        has_true_keyframes: the file marks its first frame as a keyframe, and no frame that does not decode alone.
        is_counted: the file was decoded once to number its frames, so reading must also begin at the start.
        has_unshown_packets: there are frames that an edit list discards, that VP8 hides, or that refer to frames
            missing from the file.
        is_edited_inside: an edit list leaves out or repeats frames after the first shown one.
        has_duration: the container states its duration.
    """

    path: Path
    stream_index: int
    other_streams: tuple[int, ...]
    info: VideoInfo
    pts: NDArray[np.int64]
    dts: NDArray[np.int64]
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
    has_true_keyframes: bool
    is_counted: bool
    has_unshown_packets: bool
    is_edited_inside: bool
    has_duration: bool

    @property
    def seek_points(self) -> NDArray[np.int64]:
        """Frames at which decoding may begin, int64 (C,), rising; only frame 0 if seeking is unreliable."""
        # Frames that had to be counted have no other closed GOP start, so this holds for them too.
        if self.container.startswith(SEEKABLE):
            return np.union1d(self.closed_gop_starts, 0)
        return np.zeros(1, np.int64)

    def holds(self, packet: Packet[VideoStream], before: int) -> bool:
        """Returns whether a packet is one of the frames up to `before`, by both of its times."""
        pts, dts = (NO_TIME if time is None else time for time in (packet.pts, packet.dts))
        return bool(((self.pts[: before + 1] == pts) & (self.dts[: before + 1] == dts)).any())

    def seek_point(self, wanted: NDArray[np.int64]) -> int:
        """Returns the last seek point at or before the first wanted frame; `wanted` is int64 (M,)."""
        return int(self.seek_points[self.seek_points <= wanted[0]][-1]) if len(wanted) else 0


class IndexedReader:
    """The part that readers share which number frames by the index: opening, closing, facts about the video.

    Args:
        path: of the video.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._index: VideoIndex | None = None

    def __enter__(self) -> Self:
        index = index_video(self._path)
        self._check(index)
        self._index = index
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._index = None

    @property
    def info(self) -> VideoInfo:
        """The video as displayed."""
        return self._opened().info

    def _check(self, index: VideoIndex) -> None:
        """Raises a ReadError if this reader cannot read the file exactly."""

    def _opened(self) -> VideoIndex:
        if self._index is None:
            raise ValueError("the reader is not open: read inside `with`")
        return self._index


def index_video(path: Path) -> VideoIndex:
    """Returns the index of a video. Reads the whole file once and decodes its first frame.

    If the packet times do not say which frames are shown, the whole file is decoded once more to count its frames. This
    is slow, but FFmpeg's guesses of missing times are wrong.

    The last four indices are cached, so that choosing a reader and reading share one pass.

    Raises:
        ReadError: the file is missing, empty or no video, or none of its frames can be decoded.
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
    """Returns the first frame that decodes; only it has the true size, display matrix and interlacing."""
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
        dts=packets.dts[np.minimum(timeline.packet, len(packets.dts) - 1)],
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
        has_true_keyframes=numbering.has_true_keyframes,
        is_counted=numbering.is_counted,
        has_unshown_packets=numbering.has_unshown_packets,
        is_edited_inside=container.format.name.startswith("mov")
        and (packets.has_repeats or packets.leaves_out_inside(or_at_end=True)),
        has_duration=stream.duration is not None or container.duration is not None,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Numbering:
    """The frames of a video; for the fields see `VideoIndex`."""

    timeline: Timeline
    keyframes: NDArray[np.int64]
    closed_gop_starts: NDArray[np.int64]
    has_timestamps: bool
    has_true_keyframes: bool
    is_counted: bool
    has_unshown_packets: bool


def _number_frames(
    path: Path, container: InputContainer, stream: VideoStream, packets: Packets, first: VideoFrame
) -> _Numbering:
    """Numbers the frames by packet times if they suffice, else by decoding the whole file."""
    all_timed = bool((packets.pts != NO_TIME).all())
    by_packets = _number_by_packets(drop_lost_start(packets, first.pts)) if all_timed else None
    if by_packets is not None and times_tell_frames(container, stream, packets, first, path):
        begins_clean = bool(packets.is_key[0]) and packets.pts[0] == packets.pts[packets.is_shown].min()
        if begins_clean or begins_as_indexed(path, by_packets.timeline.pts):
            return by_packets
    counted = count_by_decoding(path)
    # If the decoded frames have exactly the packet times, these are right. In a damaged file, the remaining frames
    # are enough to confirm it.
    if by_packets is not None and counted.times_rise:
        damaged = counted.is_damaged or len(packets.missing_dts) > 0
        if damaged and np.isin(counted.pts, packets.pts).all():
            return _with_decoded_keyframes(by_packets, counted)
        if np.array_equal(counted.pts, by_packets.timeline.pts):
            # In other containers, a decoder that skips frames or starts in mid-file returns different times.
            is_seekable = container.format.name.startswith(SEEKABLE)
            return replace(_with_decoded_keyframes(by_packets, counted), is_counted=not is_seekable)
    timeline = lay_out_counted(packets, counted)
    num_present = len(timeline.packet)
    return _Numbering(
        timeline=timeline,
        keyframes=np.flatnonzero(counted.is_key[:num_present]),
        closed_gop_starts=np.zeros(min(1, num_present), np.int64),
        has_timestamps=counted.times_rise and not counted.is_damaged and not len(packets.missing_dts),
        has_true_keyframes=False,
        is_counted=True,
        has_unshown_packets=len(counted.pts) != len(packets.pts),
    )


def _number_by_packets(packets: Packets) -> _Numbering:
    timeline = lay_out(packets)
    keyframes, closed_gop_starts = find_keyframes(packets, timeline)
    return _Numbering(
        timeline=timeline,
        keyframes=keyframes,
        closed_gop_starts=closed_gop_starts,
        has_timestamps=True,
        has_true_keyframes=bool(packets.is_key[0]) and not packets.is_false_key.any(),
        is_counted=False,
        has_unshown_packets=not packets.is_shown.all(),
    )


def _with_decoded_keyframes(numbering: _Numbering, counted: CountedFrames) -> _Numbering:
    """Returns the numbering with the keyframes that the decoder found, since a file may mark others."""
    present = numbering.timeline.pts[: len(numbering.timeline.packet)]
    keyframes = np.flatnonzero(np.isin(present, counted.pts[counted.is_key]))
    return replace(
        numbering,
        keyframes=keyframes,
        closed_gop_starts=np.intersect1d(numbering.closed_gop_starts, keyframes),
        has_true_keyframes=numbering.has_true_keyframes and bool(np.isin(numbering.keyframes, keyframes).all()),
    )


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
    try:
        matrix = first.side_data.get("DISPLAYMATRIX")
    except ValueError:
        # PyAV 18.1 raises if a frame has side data of a kind that FFmpeg 8.1 knows and `SideDataType` does not: EXIF of
        # a camera's JPEG, or the views of a spatial video.
        SideDataType._missing_ = classmethod(_unnamed)  # type: ignore[assignment]
        matrix = first.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return Orientation()
    return Orientation.from_display_matrix(np.frombuffer(bytes(cast(Buffer, matrix)), np.int32).tolist())


def _unnamed(kinds: type[SideDataType], value: int) -> SideDataType:
    """Returns a new member of the enumeration for a value that it lacks."""
    member = object.__new__(kinds)
    member._name_ = f"UNNAMED_{value}"
    member._value_ = value  # type: ignore[assignment]  # its annotation is that of enumerations without values
    return member
