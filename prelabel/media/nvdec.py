"""Reads videos on a GPU with NVDEC, through NVIDIA's PyNvVideoCodec. Frames stay there, as NV12 surfaces."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from av.bitstream import BitStreamFilterContext
from numpy.typing import NDArray

from prelabel.data.frames import FrameBatch, Media
from prelabel.data.surfaces import RED_AND_BLUE, Surfaces
from prelabel.errors import FrameCountError, MachineError, ReadError
from prelabel.media.batching import check_request, pick_frames
from prelabel.media.cuda import allocate, await_frames
from prelabel.media.index import IndexedReader, VideoIndex
from prelabel.media.packets import packets_from
from prelabel.media.pyav import PyAVReader

if TYPE_CHECKING:
    import torch


# Each codec's name in `cudaVideoCodec`, and the filter that gives a packet start codes and parameter sets. The decoder
# finds no frame in a packet as MP4 and Matroska store it.
CODECS = {"h264": ("H264", "h264_mp4toannexb"), "hevc": ("HEVC", "hevc_mp4toannexb"), "vp9": ("VP9", None)}
PIXEL_FORMATS = ("yuv420p", "yuvj420p")
MAX_DIFFERENCE = 2.0
"""Limit of the mean pixel difference, 0..255, between this reader's and PyAV's version of a frame."""
MAX_IDLE_BYTES = 2_000_000_000
"""Limit of the surfaces that idle sessions hold. At 1080p that is 32 sessions, at 4K 8."""
SURFACES_PER_SESSION = 20  # 16 reference frames, the most in H.264 and HEVC, and 4 frames of latency


def probe(device: str = "cuda") -> str | None:
    """Returns why NVDEC cannot be used here through PyNvVideoCodec; None if it can."""
    try:
        _load()
    except ImportError:
        return "PyNvVideoCodec is not installed (uv sync --extra nvdec)"
    except Exception as error:  # without a driver, its import raises a RuntimeError
        return f"PyNvVideoCodec cannot be loaded: {str(error).strip().splitlines()[0]}"
    import torch

    ordinal = int(device.partition(":")[2] or 0)
    return None if ordinal < torch.cuda.device_count() else f"torch sees no CUDA device {ordinal}"


def refuse(index: VideoIndex) -> str | None:
    """Returns why this reader cannot read a file's frames exactly; None if it can."""
    reasons = {
        f"its codec is {index.codec}": index.codec not in CODECS,
        f"its pixels are {index.pixel_format}": index.pixel_format not in PIXEL_FORMATS,
        f"its colours are {index.color_space}": index.color_space not in RED_AND_BLUE,
        "its width or height is odd": any(side % 2 for side in index.coded_size),
        "it is interlaced": index.is_interlaced,
        "its times do not tell its frames, which had to be counted": index.is_counted,
        "its clock is reset": bool((np.diff(index.pts) <= 0).any()),
        "it is cut off at its end": index.num_present < index.info.num_frames,
        "it holds frames that are not shown": index.has_unshown_packets,
        "an edit list leaves out or repeats frames inside": index.is_edited_inside,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


class NvdecReader(IndexedReader):
    """Reads a video exactly with NVDEC, or raises an error that says why it cannot.

    Each packet goes to the decoder with the number of its frame, and each frame must come back with the next number.
    One frame of the first batch is compared with PyAV's frame of the same number.
    This reader follows PyNvVideoCodec 2.2 and has not been run on a GPU yet.

    Args:
        media: one video.
        device: `auto`, `cuda` or `cuda:N`.

    Raises:
        MachineError: this machine lacks PyNvVideoCodec or the GPU.
    """

    bytes_per_pixel = 1.5  # NV12

    def __init__(self, media: Media, *, device: str = "auto") -> None:
        reason = self.unavailable_reason(device)
        if reason is not None:
            raise MachineError(f"reader nvdec on device {device!r}: {reason}")
        super().__init__(media.paths[0])
        self._media = media
        self._device = device if device.startswith("cuda:") else "cuda:0"
        self._is_compared = False

    @staticmethod
    def unavailable_reason(device: str) -> str | None:
        """Returns why this reader cannot use `device` on this machine; None if it can."""
        return "it decodes on a GPU only: use pyav" if device == "cpu" else probe(device)

    def _check(self, index: VideoIndex) -> None:
        reason = refuse(index)
        if reason is not None:
            raise ReadError(f"{self._path.name}: nvdec does not read this file exactly, {reason}: use reader pyav")

    def batches(self, frame_indices: NDArray[np.int64], batch_size: int) -> Iterator[FrameBatch]:
        """Yields the requested frames in order. The thread's current CUDA stream waits for them.

        Raises:
            ReadError: a frame cannot be decoded.
            FrameCountError: the decoder returned another frame than the next one.
        """
        import torch

        index = self._opened()
        wanted = check_request(frame_indices, batch_size, index.info.num_frames)
        if not len(wanted):
            return
        with _borrow_session(self._device, index) as session, closing(_decode(session, index, wanted)) as decoded:
            surfaces = pick_frames(decoded, wanted)
            for at in range(0, len(wanted), batch_size):
                numbers = wanted[at : at + batch_size]
                # The current stream is a setting of the thread. At `yield` the consumer runs on this thread.
                with torch.cuda.stream(session.stream):
                    frames = self._collect(index, islice(surfaces, len(numbers)), len(numbers))
                    ready = torch.cuda.Event()
                    ready.record(session.stream)
                    self._compare_once(frames, numbers)
                await_frames(FrameBatch(frames, numbers, index.pts_seconds[numbers], ready))
                yield FrameBatch(frames, numbers, index.pts_seconds[numbers])
                del frames

    def _collect(self, index: VideoIndex, surfaces: Iterator[tuple[int, torch.Tensor | None]], num: int) -> Surfaces:
        """Returns the next `num` frames.

        A surface is copied before the next one is decoded, because the decoder then writes over it.
        """
        planes: torch.Tensor | None = None
        for row, (number, surface) in enumerate(surfaces):
            if surface is None:
                raise ReadError(f"{self._path.name}: NVDEC ended before frame {number} of {index.info.num_frames}")
            if planes is None:
                planes = allocate((num, *surface.shape), surface)
            planes[row].copy_(surface)
        assert planes is not None
        return Surfaces(planes, index.color_space, index.color_range == "pc", index.orientation)

    def _compare_once(self, frames: Surfaces, numbers: NDArray[np.int64]) -> None:
        """Compares one frame of the reader's first batch with PyAV's frame of the same number.

        Raises:
            FrameCountError: it is another frame, or has other colours.
        """
        if self._is_compared:
            return
        self._is_compared = True
        middle = len(numbers) // 2
        with PyAVReader(self._media, device="cpu") as reader:
            truth = next(iter(reader.batches(numbers[middle : middle + 1], 1))).data[0]
        found = frames[middle : middle + 1].rgb()[0]
        difference = (found.cpu().float() - truth.float()).abs().mean().item()
        if difference > MAX_DIFFERENCE:
            raise FrameCountError(
                f"{self._path.name}: NVDEC's frame {numbers[middle]} differs from PyAV's by {difference:.1f} grey "
                f"levels on average, expected at most {MAX_DIFFERENCE:g}: set reader.use: pyav"
            )


@dataclass(frozen=True, slots=True)
class _Session:
    """A decoder on an NVDEC engine.

    Attributes:
        decoder: a `PyNvDecoder`.
        stream: the CUDA stream that it works on.
    """

    decoder: Any
    stream: torch.cuda.Stream

    def decode(self, payload: bytes, number: int, name: str) -> Any:
        """Returns the frames that are complete after a packet. They are valid until the next call.

        Args:
            payload: content of the packet; an empty one ends the stream.
            number: of the frame in the packet; the frame brings it back as its time.
            name: of the file, for errors.

        Raises:
            ReadError: the decoder refused the packet.
        """
        packet = _load().PacketData()
        # The decoder reads `payload` during this call only, and this function keeps it alive.
        packet.bsl, packet.bsl_data = len(payload), np.frombuffer(payload, np.uint8).ctypes.data if payload else 0
        packet.pts = number
        try:
            return self.decoder.Decode(packet)
        except Exception as error:  # its exceptions are not documented
            raise ReadError(f"{name}: NVDEC stopped at frame {number}: {error}") from error


_Key = tuple[str, str, tuple[int, int]]


class IdleSessions:
    """Sessions that nobody uses, by device, codec and size. To open one takes tens of milliseconds.

    Each holds surfaces on the GPU. If they are more than `MAX_IDLE_BYTES`, the ones that were used longest ago are
    closed. Safe to use from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[tuple[_Key, _Session]] = []

    def take(self, key: _Key) -> _Session | None:
        """Returns the session of this kind that was used last; None if there is none."""
        with self._lock:
            for place in reversed(range(len(self._idle))):
                if self._idle[place][0] == key:
                    return self._idle.pop(place)[1]
        return None

    def give_back(self, key: _Key, session: _Session) -> None:
        """Keeps a session for its next use."""
        with self._lock:
            self._idle.append((key, session))
            while self.num_bytes > MAX_IDLE_BYTES:
                self._idle.pop(0)

    @property
    def num_bytes(self) -> int:
        """About what the surfaces of all idle sessions take."""
        return sum(width * height * 3 // 2 * SURFACES_PER_SESSION for (_, _, (width, height)), _ in self._idle)


_idle_sessions = IdleSessions()


@contextmanager
def _borrow_session(device: str, index: VideoIndex) -> Iterator[_Session]:
    """Yields a session that no other caller uses. It is used again later, unless an error occurred."""
    key = (device, index.codec, index.coded_size)
    session = _idle_sessions.take(key) or _open_session(device, index)
    yield session
    try:
        session.decode(b"", 0, index.path.name)  # returns the frames that were not wanted
    except ReadError:
        return
    _idle_sessions.give_back(key, session)


def _open_session(device: str, index: VideoIndex) -> _Session:
    import torch

    codec = _load()
    stream = torch.cuda.Stream(torch.device(device))
    try:
        decoder = codec.CreateDecoder(
            gpuid=int(device.partition(":")[2]),
            codec=getattr(codec.cudaVideoCodec, CODECS[index.codec][0]),
            cudacontext=0,  # the device's primary context, which torch uses too
            cudastream=stream.cuda_stream,
            usedevicememory=True,
        )
    except Exception as error:  # its exceptions are not documented
        raise ReadError(f"{index.path.name}: NVDEC opened no decoder for {index.codec}: {error}") from error
    return _Session(decoder, stream)


def _decode(
    session: _Session, index: VideoIndex, wanted: NDArray[np.int64]
) -> Generator[tuple[int, torch.Tensor], None, None]:
    """Yields (number, NV12 surface) of the frames from the seek point before the first wanted one, in order."""
    import torch

    expected, name = index.seek_point(wanted), index.path.name
    shape = (index.coded_size[1] * 3 // 2, index.coded_size[0])
    with closing(_payloads(index, expected)) as payloads:
        for payload, number in payloads:
            for frame in session.decode(payload, number, name):
                surface = torch.from_dlpack(frame)
                if frame.getPTS() != expected:
                    raise FrameCountError(
                        f"{name}: NVDEC gave frame {frame.getPTS()} where frame {expected} of {index.info.num_frames} "
                        "was due: set reader.use: pyav"
                    )
                if tuple(surface.shape) != shape:
                    raise ReadError(
                        f"{name}: frame {expected} has a surface of {tuple(surface.shape)} bytes, those before it "
                        f"{shape}: set reader.use: pyav, which scales it"
                    )
                yield expected, surface
                expected += 1


def _payloads(index: VideoIndex, start: int) -> Generator[tuple[bytes, int], None, None]:
    """Yields each packet's bytes for the decoder with the number of its frame, then an empty packet.

    Args:
        index: of the video.
        start: a seek point, the first frame.
    """
    add_start_codes: BitStreamFilterContext | None = None
    filter_name = CODECS[index.codec][1]
    with closing(packets_from(index.path, start, int(index.pts[start]))) as packets:
        for packet in packets:
            assert packet.pts is not None  # `refuse` checks that times tell the frames
            number = int(np.searchsorted(index.pts, packet.pts))
            if filter_name is not None and add_start_codes is None:
                add_start_codes = BitStreamFilterContext(filter_name, packet.stream)
            for filtered in [packet] if add_start_codes is None else add_start_codes.filter(packet):
                yield bytes(filtered), number
    yield b"", 0


def _load() -> Any:
    import PyNvVideoCodec

    return PyNvVideoCodec
