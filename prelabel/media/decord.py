"""Reads videos with decord: on the CPU in bounded memory, on a GPU if the installed build has NVDEC."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from av.packet import Packet
from av.video.stream import VideoStream
from numpy.typing import NDArray

from prelabel.data.frames import FrameBatch, Media
from prelabel.errors import FrameCountError, MachineError, ReadError
from prelabel.media.batching import BatchMemory, FramePool, MissingFrames, check_request, pick_frames, stack_batches
from prelabel.media.index import IndexedReader, VideoIndex
from prelabel.media.packets import packets_from
from prelabel.media.pyav import PyAVReader

if TYPE_CHECKING:
    import torch


MAX_COPIED_BYTES = 256_000_000
"""Limit for a part of a file that is copied into memory."""


def cut_pieces(index: VideoIndex, wanted: NDArray[np.int64]) -> Iterator[tuple[int, io.BytesIO]]:
    """Yields (first frame, MP4 in memory) for each piece of a video that has wanted frames."""
    if not len(wanted):
        return
    first = index.seek_point(wanted)
    edges = [*index.closed_gop_starts[index.closed_gop_starts >= first].tolist(), index.info.num_frames]
    with closing(packets_from(index.path, first, int(index.pts[first]))) as packets:
        for start, end in pairwise(edges):
            if start > wanted[-1]:
                return
            # No frame crosses these keyframes, so `end - start` packets hold exactly these frames.
            piece = list(islice(packets, end - start))
            if np.searchsorted(wanted, start) < np.searchsorted(wanted, end):
                yield start, _copy_packets(index, start, piece)


def from_seek_point(index: VideoIndex, wanted: NDArray[np.int64]) -> tuple[int, io.BytesIO | str]:
    """Returns the first frame and a source with which decord starts near the first wanted frame.

    The source is a copy of a part of the file in memory. If that copy would be large, it is the file's path.
    """
    first = index.seek_point(wanted)
    if first:
        behind = index.closed_gop_starts[index.closed_gop_starts > wanted[-1]]
        end = int(behind[0]) if len(behind) else index.info.num_frames
        with closing(packets_from(index.path, first, int(index.pts[first]))) as packets:
            piece = _take_small(islice(packets, end - first))
            if piece:
                return first, _copy_packets(index, first, piece)
    return 0, str(index.path)


def _take_small(packets: Iterable[Packet[VideoStream]]) -> list[Packet[VideoStream]]:
    """Returns the packets; an empty list if they are too large to be copied."""
    taken: list[Packet[VideoStream]] = []
    num_bytes = 0
    for packet in packets:
        num_bytes += packet.size
        if num_bytes > MAX_COPIED_BYTES:
            return []
        taken.append(packet)
    return taken


def _copy_packets(index: VideoIndex, start: int, packets: Sequence[Packet[VideoStream]]) -> io.BytesIO:
    """Returns an MP4 in memory with these packets; the first one is frame `start`."""
    memory = io.BytesIO()
    try:
        with av.open(memory, "w", format="mp4") as output:
            target = output.add_stream_from_template(packets[0].stream)
            for packet in packets:
                packet.stream = target
                output.mux(packet)
    except av.error.FFmpegError as error:
        raise ReadError(
            f"{index.path.name}: frames from {start} on cannot be handed to decord: {error.strerror}: "
            "set reader.use: pyav"
        ) from error
    memory.seek(0)
    return memory


MAX_DIFFERENCE = 1.0
"""Limit of the mean pixel difference, 0..255, between two decoders' versions of a frame; on most files it is 0."""
CPU_CODECS = ("h264", "hevc", "mpeg4", "mpeg2video", "vp9", "mjpeg")
GPU_CODECS = ("h264", "hevc", "mpeg4", "vp9")
# decord's CUDA kernel has only the limited-range BT.601 matrix. FFmpeg assumes it for untagged video, too.
GPU_COLOR_SPACES = ("smpte170m", "bt470bg", "unknown")
EOF_RETRIES = 1_000_000
"""How often decord checks an empty queue before it drops the last frames. A GPU may need more than the default."""


def probe(ordinal: int) -> str | None:
    """Returns why decord cannot use GPU number `ordinal` here; None if it can.

    decord on PyPI is built without CUDA; a build with it comes from upstream's source.
    """
    try:
        decord = _load()
        decord.nd.empty((1,), "uint8", decord.gpu(ordinal))
    except Exception as error:  # decord raises many kinds, from OSError to DECORDError
        return f"the installed decord has no GPU {ordinal}: {_first_line(error)}"
    return None


def refuse(index: VideoIndex, *, on_gpu: bool) -> str | None:
    """Returns why decord cannot read this file's frames exactly; None if it can."""
    reasons = {
        "its times do not tell its frames, which had to be counted": index.is_counted,
        "it holds frames that are not shown": index.has_unshown_packets,
        "an edit list leaves out or repeats frames inside": index.is_edited_inside,
        "it has several video streams": bool(index.other_streams),
        "it is cut off at its end": index.num_present < index.info.num_frames,
        f"its components have {index.bits} bits": index.bits != 8,
        "it is mirrored": index.orientation.is_mirrored,
        "it does not begin with a keyframe": not on_gpu and not (index.closed_gop_starts[:1] == 0).any(),
        f"its codec is {index.codec}": index.codec not in (GPU_CODECS if on_gpu else CPU_CODECS),
        "its width or height is odd": any(side % 2 for side in index.coded_size),
    }
    if on_gpu:
        reasons |= {
            "it is interlaced": index.is_interlaced,
            f"its pixels are {index.pixel_format}": index.pixel_format != "yuv420p",
            f"its colours are {index.color_space}": index.color_space not in GPU_COLOR_SPACES,
            "its colours have full range": index.color_range == "pc",
            f"its container is {index.container}": not index.container.startswith(("mov", "matroska")),
            "its container gives no duration": not index.has_duration,
        }
    return next((reason for reason, holds in reasons.items() if holds), None)


class DecordReader(IndexedReader):
    """Reads a video exactly with decord, or raises an error that says why it cannot.

    On the CPU decord decodes ahead without limit, so it gets the file in pieces. A piece is an MP4 in memory with the
    packets between two keyframes that no frame crosses. At most one piece is decoded ahead.
    The GPU path follows decord's source and has not been run on a GPU yet.

    Args:
        media: one video.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        max_buffered_mb: largest decoded size of a piece, in megabytes.

    Raises:
        MachineError: the installed decord cannot use the GPU that `device` names.
    """

    def __init__(self, media: Media, *, device: str = "auto", max_buffered_mb: int = 2000) -> None:
        super().__init__(media.paths[0])
        self._media = media
        self._max_buffered_mb = max_buffered_mb
        self.pool: BatchMemory = FramePool()
        no_gpu = _no_gpu(device)
        if no_gpu is not None:
            raise MachineError(f"reader decord on device {device!r}: {no_gpu}")
        self._gpu = _gpu_ordinal(device)

    @staticmethod
    def unavailable_reason(device: str) -> str | None:
        """Returns why decord cannot use `device` on this machine; None if it can."""
        try:
            _load()
        except (ImportError, OSError) as error:
            return str(error)
        return _no_gpu(device)

    def _check(self, index: VideoIndex) -> None:
        reason = refuse(index, on_gpu=self._gpu is not None)
        if reason is None and self._gpu is None:
            reason = self._too_large(index)
        if reason is not None:
            raise ReadError(
                f"{self._path.name}: decord does not read this file exactly, {reason}: set reader.use: auto"
            )

    def batches(self, frame_indices: NDArray[np.int64], batch_size: int) -> Iterator[FrameBatch]:
        """Yields the requested frames in order.

        Raises:
            ReadError: a frame cannot be decoded.
        """
        index = self._opened()
        wanted = check_request(frame_indices, batch_size, index.info.num_frames)
        if self._gpu is not None:
            yield from self._gpu_batches(index, wanted, batch_size, self._gpu)
            return
        frames = self._verified(pick_frames(self._cpu_frames(index, wanted), wanted), wanted)
        missing = MissingFrames(self._path.name, index.info.num_frames, index.num_present)
        yield from stack_batches(missing.watch(frames), index.pts_seconds, batch_size, self.pool)
        missing.raise_if_any()

    def _verified(
        self, frames: Iterable[tuple[int, NDArray[np.uint8] | None]], wanted: NDArray[np.int64]
    ) -> Iterator[tuple[int, NDArray[np.uint8] | None]]:
        """Yields the frames, after comparing each with PyAV's frame of the same number.

        decord 0.6 uses the decoder of FFmpeg 4.1, which misjudges how far B-frame pyramids are reordered. It then
        returns a neighbouring frame without an error, so every frame is decoded a second time with PyAV. Remove this
        when `benchmarks.frame_numbers --readers decord` finds no wrong frame without it.
        """
        with PyAVReader(self._media, device="cpu") as reader, closing(reader.batches(wanted, 1)) as batches:
            for number, frame in frames:
                if frame is not None:
                    batch = next(batches, None)
                    right = None if batch is None else batch.array[0][::4, ::4].astype(np.int16)
                    if right is None or np.abs(right - frame[::4, ::4]).mean() > MAX_DIFFERENCE:
                        raise FrameCountError(
                            f"{self._path.name}: decord gave another frame as frame {number}: set reader.use: auto"
                        )
                yield number, frame

    def _too_large(self, index: VideoIndex) -> str | None:
        longest = int(np.diff(np.append(index.closed_gop_starts, index.info.num_frames)).max())
        needed_mb = longest * index.info.width * index.info.height * 3 / 1e6
        if needed_mb <= self._max_buffered_mb:
            return None
        return (
            f"it has {longest} frames between keyframes that no frame crosses, {needed_mb:.0f} MB decoded, "
            f"more than max_buffered_mb {self._max_buffered_mb}"
        )

    def _cpu_frames(self, index: VideoIndex, wanted: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        shape = (index.info.height, index.info.width, 3)
        for start, piece in cut_pieces(index, wanted):
            for number, frame in self._read_on(piece, start, {"num_threads": 1}):
                if frame.shape != shape:
                    height, width, _ = frame.shape
                    raise ReadError(
                        f"{self._path.name}: frame {number} has {width} x {height} pixels, those before it "
                        f"{index.info.width} x {index.info.height}: set reader.use: pyav, which scales it"
                    )
                yield number, frame.numpy()

    def _read_on(
        self, source: io.BytesIO | str, start: int, options: dict[str, object]
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Yields a file's frames on decord's device, numbered from `start`."""
        import torch

        decord = _load()

        number = start
        try:
            reader = decord.VideoReader(source, **options)
            for number in range(start, start + len(reader)):
                yield number, torch.from_dlpack(reader.next().to_dlpack())
        except (decord.DECORDError, AssertionError, StopIteration) as error:
            raise ReadError(f"{self._path.name}: decord stopped at frame {number}: {_first_line(error)}") from error

    def _gpu_batches(
        self, index: VideoIndex, wanted: NDArray[np.int64], batch_size: int, ordinal: int
    ) -> Iterator[FrameBatch]:
        import torch

        decord = _load()

        # After a decoding fault decord silently repeats frames; any fault_tol above 0 makes that an error.
        options = {"ctx": decord.gpu(ordinal), "num_threads": 1, "fault_tol": 1e-9}
        start, source = from_seek_point(index, wanted)
        frames = pick_frames(self._read_on(source, start, options), wanted)
        turns = -index.info.rotation_degrees // 90
        for numbers in (wanted[at : at + batch_size] for at in range(0, len(wanted), batch_size)):
            shape = (len(numbers), index.info.height, index.info.width, 3)
            data = torch.empty(shape, dtype=torch.uint8, device=f"cuda:{ordinal}")
            for row, (number, frame) in zip(data, frames, strict=False):
                if frame is None:
                    raise ReadError(f"{self._path.name}: decord ended before frame {number} of {index.info.num_frames}")
                # decord writes on the legacy default stream, so wait for it before reading the frame.
                torch.cuda.current_stream(ordinal).wait_stream(torch.cuda.default_stream(ordinal))
                row.copy_(torch.rot90(frame, turns, dims=(0, 1)))
            yield FrameBatch(data, numbers, index.pts_seconds[numbers])


def _load() -> Any:
    """Imports decord, which reads the environment only once, when its library is loaded."""
    os.environ.setdefault("DECORD_EOF_RETRY_MAX", str(EOF_RETRIES))
    import decord

    return decord


def _no_gpu(device: str) -> str | None:
    """Returns why the GPU that `device` names cannot be used; None if it can, or if it names none."""
    ordinal = None if device == "auto" else _gpu_ordinal(device)
    reason = None if ordinal is None else probe(ordinal)
    return None if reason is None else f"{reason}: use torchcodec, or device: cpu"


def _gpu_ordinal(device: str) -> int | None:
    """Returns the number of the GPU to decode on; None for the CPU."""
    if device == "cpu" or (device == "auto" and probe(0) is not None):
        return None
    return int(device.partition(":")[2] or 0)


def _first_line(error: BaseException) -> str:
    """Returns an error's first line without decord's time stamps and source lines."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"\[[\d:]+\] \S+: ", "", lines[0]).rstrip(".")
