"""Reads the packets of a video stream: their times, which are shown, and which were cut off the end of the file."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream
from numpy.typing import NDArray

from prelabel.errors import ReadError
from prelabel.media.nal_units import LoneFields, needs_others

# FFmpeg would open text files as a video of a terminal.
TEXT_FORMATS = {"tty", "bin", "xbin", "adf", "idf"}

# PyAV before 19 raises if a file's tags are not UTF-8, unless this option is set; PyAV 19 has no such option.
OPEN_OPTIONS = {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}


MAX_TRAILER_BYTES = 100
"""Largest size of what a file may hold after its last packet."""


@contextmanager
def open_video(path: Path, *, guess_times: bool = True) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Opens a file and picks the video stream that FFmpeg would pick; cover art is not a video.

    Args:
        path: of the file.
        guess_times: let FFmpeg fill in times that the file does not store.

    Raises:
        ReadError: there is no such file, or no video in it.
    """
    if not path.is_file():
        raise ReadError(f"{path.name}: no such file: {path}")
    if path.stat().st_size == 0:
        raise ReadError(f"{path.name}: the file is empty: fetch it again")
    try:
        flags = {} if guess_times else {"fflags": "nofillin"}
        container = av.open(str(path), options=flags, **OPEN_OPTIONS)
    except PermissionError as error:
        raise ReadError(f"{path.name}: may not be read by this user: {path}: change its permissions") from error
    except (av.error.FFmpegError, ValueError) as error:
        raise ReadError(f"{path.name}: {_why_unreadable(path)}") from error
    with container:
        yield container, _pick_stream(container, path.name)


def demux(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """Yields the stream's packets as stored, then an empty one that makes a decoder return its last frames.

    Raises:
        ReadError: FFmpeg cannot continue to read the file.
    """
    path, end = Path(container.name), 0
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except IndexError:
            # PyAV 18.1 raises this for a stream that begins in the middle of a TS file, after our last packet.
            return
        except av.error.FFmpegError as error:
            if end < path.stat().st_size - MAX_TRAILER_BYTES:
                raise ReadError(f"{path.name}: FFmpeg cannot read on in the file: {error.strerror}") from error
            # FFmpeg 8.1 reports an error at the end of GXF and of multipart JPEG.
            packet = av.Packet()
            packet.stream = stream
        if packet is None:
            return
        end = max(end, (packet.pos or 0) + packet.size)
        if packet.size or packet.dts is None:  # an empty packet in mid-file would end decoding
            yield packet


def packets_from(path: Path, first: int, first_pts: int) -> Generator[Packet[VideoStream], None, None]:
    """Yields the packets with content from a closed GOP start on. If seeking misses it, reads from the file's start.

    Args:
        path: of the file.
        first: number of the frame at which the GOP starts.
        first_pts: its time in units of the stream.
    """
    if first:
        with open_video(path) as (container, stream):
            container.seek(first_pts, stream=stream)
            packets = (packet for packet in demux(container, stream) if packet.size)
            packet = next(packets, None)
            if packet is not None and packet.pts == first_pts:
                yield packet
                yield from packets
                return
    with open_video(path) as (container, stream):
        # No frame crosses this keyframe, so `first` packets come before it.
        yield from islice((packet for packet in demux(container, stream) if packet.size), first, None)


def _pick_stream(container: InputContainer, name: str) -> VideoStream:
    if container.format.name in TEXT_FORMATS:
        raise ReadError(f"{name}: the file is text, expected a video")
    streams = [stream for stream in container.streams.video if not _is_cover_art(stream)]
    # Despite PyAV's annotations, a stream has no codec context if FFmpeg does not know its codec.
    known = [stream for stream in streams if getattr(stream, "codec_context", None) is not None]
    if streams and not known:
        raise ReadError(f"{name}: its video is of no codec that FFmpeg knows, or its head is damaged")
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        cover = " (its only image is cover art)" if container.streams.video else ""
        raise ReadError(f"{name}: no video stream{cover}: the file holds {kinds}")
    return max(known, key=_rank)


def _rank(stream: VideoStream) -> int:
    """Returns the rank that the ffmpeg command gives a stream (`map_auto_video` in fftools/ffmpeg_mux_init.c).

    PyAV calls `av_find_best_stream`, which ranks differently: in a TS with two streams it picks the first.
    """
    context = stream.codec_context
    return context.width * context.height + 5_000_000 * bool(stream.disposition & stream.disposition.default)


def other_video_streams(container: InputContainer, chosen: VideoStream) -> tuple[int, ...]:
    """Returns the indices of the video streams that were not chosen; cover art does not count."""
    return tuple(s.index for s in container.streams.video if s.index != chosen.index and not _is_cover_art(s))


def _is_cover_art(stream: VideoStream) -> bool:
    return bool(stream.disposition & stream.disposition.attached_pic)


def _why_unreadable(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(4096)
    if head[4:8] in (b"styp", b"sidx", b"moof"):
        return "a segment of an MP4 without its head: join them first (cat init.mp4 segment.m4s > whole.mp4)"
    if head[4:8] == b"ftyp":
        if b"moov" in _boxes(path):
            return "FFmpeg cannot read the index (moov) of this MP4: it is damaged or encrypted"
        return "no index (moov) in this MP4: it was cut off or is still being written: fetch or export it again"
    if head[:1].isascii() and b"\0" not in head:
        return "the file is text, expected a video"
    return "not a video that FFmpeg can open"


def _boxes(path: Path) -> set[bytes]:
    """Returns the names of the outermost boxes of an MP4 (ISO/IEC 14496-12, 4.2)."""
    names: set[bytes] = set()
    most = path.stat().st_size
    with path.open("rb") as file:
        while len(head := file.read(16)) >= 8:
            size = int.from_bytes(head[8:] if head[:4] == b"\0\0\0\1" else head[:4])
            names.add(head[4:8])
            if not 8 <= size <= most:
                break
            file.seek(size - len(head), os.SEEK_CUR)
    return names


def declared_bytes(path: Path) -> int | None:
    """Returns the size in bytes that an AVI or Matroska file states; None if it states none."""
    with path.open("rb") as file:
        head = file.read(64)
    if head[:4] == b"RIFF":
        return int.from_bytes(head[4:8], "little") + 8
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return _matroska_bytes(head)
    return None


def _matroska_bytes(head: bytes) -> int | None:
    """Returns the position of the segment's end (RFC 8794, EBML: two elements, each with an id and a size)."""
    size, at = _ebml_size(head, 4)
    at += size or 0
    if head[at : at + 4] != b"\x18\x53\x80\x67" or len(head) < at + 12:
        return None
    size, at = _ebml_size(head, at + 4)
    return None if size is None else at + size


def _ebml_size(data: bytes, at: int) -> tuple[int | None, int]:
    """Returns a size, None for `unknown`, and the position after it."""
    length = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + length], "big") & ((1 << 7 * length) - 1)
    return (None if value == (1 << 7 * length) - 1 else value), at + length


NO_TIME = np.iinfo(np.int64).min
# Most frames that H.264 and HEVC may buffer for reordering (max_dec_frame_buffering, A.3.1 of H.264).
MAX_REORDERED = 16
# Four days at 30 frames per second. A header that promises more missing frames than this is itself damaged.
MAX_MISSING = 10_000_000
# A larger backward jump means that the clock was reset, e.g. where two broadcasts were joined.
CLOCK_JUMP_SECONDS = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Packets:
    """The P packets of a stream, in stored order.

    Attributes:
        pts: int64 (P,), display times in units of `time_base`; NO_TIME if unknown.
        dts: int64 (P,), decoding times in the same units.
        is_key: bool (P,), is marked as a keyframe.
        is_false_key: bool (P,), is marked as a keyframe but does not decode alone, e.g. H.264 with intra refresh.
        is_shown: bool (P,), contains a frame that is displayed.
        one_frame_each: no packet holds a single field, two of which are one frame, and none holds several shown frames.
        has_repeats: an edit list of an MP4 shows frames twice.
        time_base: seconds per unit.
        frame_seconds: usual duration of a frame.
        missing_dts: int64 (M,), decoding times of the frames that were cut off the end.
    """

    pts: NDArray[np.int64]
    dts: NDArray[np.int64]
    is_key: NDArray[np.bool_]
    is_false_key: NDArray[np.bool_]
    is_shown: NDArray[np.bool_]
    one_frame_each: bool
    has_repeats: bool
    time_base: Fraction
    frame_seconds: float
    missing_dts: NDArray[np.int64]

    def leaves_out_inside(self, *, or_at_end: bool) -> bool:
        """Returns whether frames are left out after the first shown one and, unless `or_at_end`, before the last."""
        shown, left_out = self.pts[self.is_shown], self.pts[~self.is_shown]
        if not len(shown):
            return False
        return bool(((left_out > shown.min()) & (or_at_end | (left_out < shown.max()))).any())


def demux_packets(container: InputContainer, stream: VideoStream) -> Packets:
    """Returns the stream's packets. Reads to the end of the file without decoding."""
    rows: list[tuple[int, int, int, bool, bool, bool]] = []
    positions: set[int | None] = set()
    is_mov = container.format.name.startswith("mov")
    codec, extradata = stream.codec_context.codec.canonical_name, stream.codec_context.extradata
    num_shown = _NUM_SHOWN.get(codec)
    lone_fields = LoneFields(extradata) if codec == "h264" else None
    one_frame_each = True
    for packet in demux(container, stream):
        # In MP4, FFmpeg marks a packet corrupt only if the end of the file cuts it.
        if packet.size and not (is_mov and packet.is_corrupt):
            data = bytes(packet)
            num = num_shown(data) if num_shown else 1
            one_frame_each = one_frame_each and num < 2 and not (lone_fields and lone_fields.is_one(data))
            false_key = packet.is_keyframe and needs_others(codec, data, extradata)
            times = _time(packet.pts), _time(packet.dts), packet.duration or 0
            rows.append((*times, packet.is_keyframe, false_key, num > 0 and not packet.is_discard))
            positions.add(packet.pos)
    pts, dts, durations = (np.array([row[at] for row in rows], np.int64) for at in range(3))
    is_key, is_false_key, is_shown = (np.array([row[at] for row in rows], bool) for at in range(3, 6))
    has_repeats = is_mov and len(positions) < len(rows)
    time_base = stream.time_base or Fraction(1)
    frame_seconds = _frame_seconds(stream, durations, time_base)
    missing = _missing_dts(container, stream, dts, frame_seconds)
    return Packets(
        pts, dts, is_key, is_false_key, is_shown, one_frame_each, has_repeats, time_base, frame_seconds, missing
    )


def _time(value: int | None) -> int:
    return NO_TIME if value is None else value


def _num_shown_vp8(data: bytes) -> int:
    """Returns 0 for a VP8 frame that is for reference only (`show_frame`, RFC 6386, 9.1), else 1."""
    return data[0] >> 4 & 1


def _num_shown_vp9(data: bytes) -> int:
    """Returns how many of the frames in a VP9 packet are shown: several if it holds layers of several sizes.

    See the VP9 bitstream specification 0.6: `superframe_index`, annex B, and `uncompressed_header`, 6.2.
    """
    sizes, marker = [len(data)], data[-1]
    if marker >> 5 == 0b110:
        num, size_bytes = (marker & 7) + 1, (marker >> 3 & 3) + 1
        index = data[-2 - num * size_bytes : -1]
        if index[:1] == data[-1:]:
            sizes = [int.from_bytes(index[at : at + size_bytes], "little") for at in range(1, len(index), size_bytes)]
    starts = [sum(sizes[:at]) for at in range(len(sizes))]
    return sum(
        _is_shown_vp9(data[start]) for start, size in zip(starts, sizes, strict=True) if 0 < size <= len(data) - start
    )


def _is_shown_vp9(head: int) -> bool:
    is_profile_3 = head >> 4 & 3 == 3  # a reserved bit follows
    shows_existing, _, is_shown = (head >> 3 - is_profile_3 - at & 1 for at in range(3))
    return bool(shows_existing or is_shown)


_NUM_SHOWN = {"vp8": _num_shown_vp8, "vp9": _num_shown_vp9}


def _frame_seconds(stream: VideoStream, durations: NDArray[np.int64], time_base: Fraction) -> float:
    rate = stream.average_rate or stream.guessed_rate
    by_rate = 1 / rate if rate else Fraction(0)
    if not (durations > 0).any():
        return float(by_rate)
    by_packets = Fraction(np.median(durations[durations > 0])) * time_base
    # Matroska rounds durations to milliseconds; its rate is exact.
    return float(by_rate if abs(by_rate - by_packets) <= time_base else by_packets)


def _missing_dts(
    container: InputContainer, stream: VideoStream, dts: NDArray[np.int64], frame_seconds: float
) -> NDArray[np.int64]:
    """Returns decoding times of the frames that were cut off; a guess if only the file's size is known."""
    path = Path(container.name)
    if container.format.name.startswith("mov"):
        # The sample table lists every sample, including those past the end of a file that was cut off.
        late = stream.index_entries[len(dts) :]
        if len(late) or stream.frames <= len(dts):
            return np.array([entry.timestamp for entry in late if not entry.is_discard], np.int64)
        num_missing = _num_left_out(path, stream)
    else:
        declared = declared_bytes(path)
        is_cut_off = declared is not None and declared > path.stat().st_size
        promised = stream.frames
        if not promised and container.duration and frame_seconds:
            promised = round(container.duration / av.time_base / frame_seconds)
        num_missing = max(1, promised - len(dts)) if is_cut_off else 0
    if not num_missing or not len(dts):
        return np.zeros(0, np.int64)
    step = max(1, round(frame_seconds / stream.time_base)) if stream.time_base else 1
    return int(dts.max()) + step * np.arange(1, min(num_missing, MAX_MISSING) + 1, dtype=np.int64)


def _num_left_out(path: Path, stream: VideoStream) -> int:
    """Returns how many samples FFmpeg left out of an MP4's table because the table is damaged.

    Edit lists are ignored here, because they leave out samples, too.
    """
    with av.open(str(path), options={"ignore_editlist": "1"}, **OPEN_OPTIONS) as container:
        return max(0, stream.frames - len(container.streams[stream.index].index_entries))


def drop_lost_start(packets: Packets, first_pts: int | None) -> Packets:
    """Returns the packets, with those that the decoder drops at the start marked as not shown.

    In a recording that begins in mid-stream, packets stored or shown before the first keyframe refer to frames that
    were never recorded. Some decoders show them all the same; only the first decoded frame says so.

    Args:
        packets: of the whole file.
        first_pts: time of the first frame that the decoder returns.
    """
    if first_pts is None or not packets.is_key.any():
        return packets
    number = np.arange(len(packets.pts))
    first_key, *others = np.flatnonzero(packets.is_key)
    before = (number < first_key) | (
        (packets.pts < packets.pts[first_key]) & (number < min(others, default=len(number)))
    )
    return replace(packets, is_shown=packets.is_shown & ~(before & (packets.pts < first_pts)))


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """Frames in display order.

    Attributes:
        packet: int64 (num_present,), packet number of each frame that is complete in the file.
        pts: int64 (N,), in units of the stream.
        seconds: float64 (N,), since the first frame.
    """

    packet: NDArray[np.int64]
    pts: NDArray[np.int64]
    seconds: NDArray[np.float64]


def lay_out(packets: Packets) -> Timeline:
    """Returns the frames in the order of their times."""
    shown = np.flatnonzero(packets.is_shown)
    clock = packet_clock(packets)[shown]
    order = np.lexsort((packets.pts[shown], clock))
    packet, clock = shown[order], clock[order]
    num_sure = len(packet)
    if len(packets.missing_dts):  # no frame is shown before it is decoded
        num_sure = int((packets.pts[packet] < packets.missing_dts[0]).sum())
    num_missing = len(packet) - num_sure + len(packets.missing_dts)
    packet, clock = packet[:num_sure], clock[:num_sure]
    pts, step = packets.pts[packet], packets.frame_seconds
    seconds = _seconds(pts, clock, packets)
    last = seconds[-1] if len(seconds) else -step
    return Timeline(
        packet=packet,
        pts=np.append(pts, np.full(num_missing, NO_TIME)),
        seconds=np.append(seconds, last + step * np.arange(1, num_missing + 1)),
    )


def packet_clock(packets: Packets) -> NDArray[np.int64]:
    """Returns how often the clock was reset before each packet, int64 (P,)."""
    dts = packets.dts.copy()
    for at in np.flatnonzero(dts == NO_TIME):
        dts[at] = dts[at - 1] if at else packets.pts[at]
    jumps = np.diff(dts, prepend=dts[:1]) * float(packets.time_base) < -CLOCK_JUMP_SECONDS
    return np.cumsum(jumps)


def _seconds(pts: NDArray[np.int64], clock: NDArray[np.int64], packets: Packets) -> NDArray[np.float64]:
    """Returns seconds since the first frame; at a clock reset, time continues after one frame."""
    seconds = np.asarray(pts * float(packets.time_base), np.float64)
    for start in np.flatnonzero(np.diff(clock)) + 1:
        seconds[start:] += seconds[start - 1] + packets.frame_seconds - seconds[start]
    seconds -= seconds[:1].copy()
    return seconds


def find_keyframes(packets: Packets, timeline: Timeline) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the keyframes, and those of them that no frame crosses.

    A frame crosses a keyframe (open GOP) if it is stored after the keyframe and shown before it.
    """
    is_key = (packets.is_key & ~packets.is_false_key)[timeline.packet]
    keyframes = np.flatnonzero(is_key)
    if not len(keyframes):
        return keyframes, keyframes
    last_stored_so_far = np.maximum.accumulate(timeline.packet)
    first_stored_from_here = np.minimum.accumulate(timeline.packet[::-1])[::-1]
    uncrossed = (last_stored_so_far == timeline.packet) & (first_stored_from_here == timeline.packet)
    return keyframes, np.flatnonzero(is_key & uncrossed)
