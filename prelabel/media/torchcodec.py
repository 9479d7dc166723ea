"""Reads videos with torchcodec: on the CPU with the system's FFmpeg libraries, on a GPU with NVDEC."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from prelabel.data.frames import FrameBatch, Media, VideoInfo
from prelabel.errors import FrameCountError, MachineError, ReadError
from prelabel.media.batching import check_request
from prelabel.media.index import VideoIndex, index_video

if TYPE_CHECKING:
    from torchcodec.decoders import VideoDecoder


# The index and torchcodec round times differently, but never by as much as this share of the time between two frames.
PTS_TOLERANCE = 0.4


def probe(device: str = "cpu") -> str | None:
    """Returns why torchcodec cannot decode on `device` here; None if it can. Its import takes seconds."""
    try:
        import torch
        from torchcodec.decoders import VideoDecoder

        VideoDecoder(b"")  # since 0.17 the first decoder loads FFmpeg, not the import
    except ImportError as error:
        return f"torchcodec cannot be loaded: {_reason(error)}"
    except (OSError, RuntimeError, ValueError) as error:
        if "libtorchcodec" in str(error):
            return "torchcodec finds no FFmpeg libraries: install FFmpeg 4 to 9, e.g. apt-get install ffmpeg"
    if device.startswith("cuda") and not torch.cuda.is_available():
        return "torch sees no CUDA device"
    return None


def refuse(index: VideoIndex, *, on_gpu: bool) -> str | None:
    """Returns why torchcodec cannot read this file's frames exactly; None if it can."""
    says_colours = index.codec == "h264" and (index.color_space, index.color_range) != ("unknown", "unknown")
    reasons = {
        f"its container is {index.container}": not index.container.startswith(("mov", "matroska")),
        "its times do not tell its frames, which had to be counted": index.is_counted,
        "an edit list leaves out or repeats frames inside": index.is_edited_inside,
        "its times begin below zero": index.start_seconds < 0,
        "it is cut off at its end": index.num_present < index.info.num_frames,
        # torchcodec applies MP4 edit lists, but counts other frames that are not shown.
        "it holds frames that are not shown": index.has_unshown_packets and not index.container.startswith("mov"),
        # torchcodec starts to decode at whatever frame the file marks.
        "it marks other frames as keyframes than those that decode alone": not index.has_true_keyframes,
        "it is mirrored": index.orientation.is_mirrored,
        # Seen with 0.17 on an H100: in both such H.264 files of the tests, one frame was replaced by the one two later.
        "it names its colours, and a GPU gave a wrong frame of such files": on_gpu and says_colours,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


class TorchCodecReader:
    """Reads a video exactly with torchcodec, or raises an error that says why it cannot.

    Args:
        media: one video.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        threads: of the decoder on a CPU; 0: FFmpeg chooses.

    Raises:
        MachineError: this machine lacks torchcodec or the device.
    """

    def __init__(self, media: Media, *, device: str = "auto", threads: int = 0) -> None:
        unavailable_reason = probe(device)
        if unavailable_reason is not None:
            raise MachineError(f"reader torchcodec on device {device!r}: {unavailable_reason}")
        self._path = media.paths[0]
        self._device = _resolve(device)
        self._threads = threads
        self._opened: tuple[VideoIndex, VideoDecoder] | None = None

    @staticmethod
    def unavailable_reason(device: str) -> str | None:
        """Returns why torchcodec cannot use `device` on this machine; None if it can."""
        return probe(device)

    def __enter__(self) -> Self:
        index = index_video(self._path)
        reason = refuse(index, on_gpu=self._device.startswith("cuda"))
        if reason is not None:
            raise ReadError(f"{self._path.name}: torchcodec does not read this file exactly, {reason}: use reader pyav")
        self._opened = index, self._open_decoder(index)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened = None

    @property
    def info(self) -> VideoInfo:
        """The video as displayed."""
        return self._parts()[0].info

    def batches(self, frame_indices: NDArray[np.int64], batch_size: int) -> Iterator[FrameBatch]:
        """Yields the requested frames in order.

        Raises:
            ReadError: a batch cannot be decoded completely, or its times differ from the index.
        """
        index, decoder = self._parts()
        wanted = check_request(frame_indices, batch_size, index.info.num_frames)
        for at in range(0, len(wanted), batch_size):
            numbers = wanted[at : at + batch_size]
            try:
                frames = decoder.get_frames_at(numbers.tolist())
            except RuntimeError as error:
                raise ReadError(
                    f"{self._path.name}: torchcodec could not decode frames {numbers[0]}-{numbers[-1]} of "
                    f"{index.info.num_frames}: {_reason(error)}"
                ) from error
            self._check_times(index, numbers, frames.pts_seconds.cpu().numpy())
            yield FrameBatch(frames.data, numbers, index.pts_seconds[numbers])

    def _parts(self) -> tuple[VideoIndex, VideoDecoder]:
        if self._opened is None:
            raise ValueError("the reader is not open: read inside `with`")
        return self._opened

    def _open_decoder(self, index: VideoIndex) -> VideoDecoder:
        from torchcodec.decoders import VideoDecoder

        try:
            decoder = VideoDecoder(
                str(self._path),
                stream_index=index.stream_index,
                dimension_order="NHWC",
                num_ffmpeg_threads=self._threads,
                device=self._device,
                seek_mode="exact",
            )
        except (RuntimeError, ValueError) as error:
            raise ReadError(f"{self._path.name}: torchcodec cannot open it: {_reason(error)}") from error
        if decoder.cpu_fallback:
            raise ReadError(f"{self._path.name}: {decoder.cpu_fallback}: use reader pyav, which says so at once")
        if index.info.rotation_degrees and not decoder.metadata.rotation:
            raise ReadError(
                f"{self._path.name}: torchcodec ignores the rotation, which only the frames state and not the file: "
                "use reader pyav"
            )
        if len(decoder) != index.info.num_frames:
            raise FrameCountError(
                f"{self._path.name}: torchcodec counts {len(decoder)} frames, the index {index.info.num_frames}"
            )
        return decoder

    def _check_times(self, index: VideoIndex, numbers: NDArray[np.int64], pts_seconds: NDArray[np.float64]) -> None:
        expected = index.pts_seconds[numbers] + index.start_seconds
        tolerance = PTS_TOLERANCE * np.diff(index.pts_seconds).min(initial=index.info.duration_seconds)
        wrong = np.abs(pts_seconds - expected) > tolerance
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            raise FrameCountError(
                f"{self._path.name}: frame {numbers[first]} came from {pts_seconds[first]:.3f} s, "
                f"the index has it at {expected[first]:.3f} s"
            )


def _reason(error: Exception) -> str:
    """Returns an error's first line, without the function and source line that torchcodec 0.17 puts first."""
    return re.sub(r"^[^,]+, \S+:\d+, ", "", str(error).strip().split("\n", 1)[0])


def _resolve(device: str) -> str:
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device
