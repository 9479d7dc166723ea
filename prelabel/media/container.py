"""Opening a video file with FFmpeg, with errors that say what the file is instead."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from prelabel.errors import ReadError

# FFmpeg draws text files as a video of a terminal.
TEXT_FORMATS = {"tty", "bin", "xbin", "adf", "idf"}

# PyAV before 19 raises where a file's tags are not UTF-8, unless it is told not to; 19 has no such option.
OPEN_OPTIONS = {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}


@contextmanager
def open_video(path: Path, *, guess_times: bool = True) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Opens a file and picks its video stream, the one that FFmpeg would; cover art is not a video.

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
    """Yields the stream's packets as stored, the last one empty: given it, a decoder gives what it still holds.

    Raises:
        ReadError: FFmpeg cannot read on.
    """
    name = Path(container.name).name
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except IndexError:
            # PyAV 18.1 has no place for a stream that a TS file begins in mid-file; it notices after our last packet.
            return
        except av.error.FFmpegError as error:
            raise ReadError(f"{name}: FFmpeg cannot read on in the file: {error.strerror}") from error
        if packet is None:
            return
        if packet.size or packet.dts is None:  # an empty one in mid-file would end the decoding
            yield packet


def _pick_stream(container: InputContainer, name: str) -> VideoStream:
    if container.format.name in TEXT_FORMATS:
        raise ReadError(f"{name}: the file is text, expected a video")
    streams = [stream for stream in container.streams.video if not _is_cover_art(stream)]
    # PyAV gives a stream of a codec that FFmpeg does not know no context, whatever its annotations say.
    known = [stream for stream in streams if getattr(stream, "codec_context", None) is not None]
    if streams and not known:
        raise ReadError(f"{name}: its video is of no codec that FFmpeg knows, or its head is damaged")
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        cover = " (its only picture is cover art)" if container.streams.video else ""
        raise ReadError(f"{name}: no video stream{cover}: the file holds {kinds}")
    return max(known, key=_rank)


def _rank(stream: VideoStream) -> int:
    """Returns how much FFmpeg's command prefers a stream: `map_auto_video` of fftools/ffmpeg_mux_init.c.

    `av_find_best_stream`, which PyAV calls, ranks otherwise: in a TS of two streams it takes the first.
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
    if head[4:8] == b"ftyp":
        return "no index (moov) in this MP4: it was cut off or is still being written: fetch or export it again"
    if head[:1].isascii() and b"\0" not in head:
        return "the file is text, expected a video"
    return "not a video that FFmpeg can open"


def declared_bytes(path: Path) -> int | None:
    """Returns how long an AVI or Matroska file says it is, in bytes; None where it does not say."""
    with path.open("rb") as file:
        head = file.read(64)
    if head[:4] == b"RIFF":
        return int.from_bytes(head[4:8], "little") + 8
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return _matroska_bytes(head)
    return None


def _matroska_bytes(head: bytes) -> int | None:
    """Returns the end of the segment: RFC 8794 (EBML), two elements, each an id and a size of variable length."""
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
