"""How many videos a GPU decodes at once."""

from __future__ import annotations

import ctypes
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prelabel.data.frames import FrameBatch

if TYPE_CHECKING:
    import torch


# cudaVideoCodec of NVIDIA's cuviddec.h (Video Codec SDK 13), by FFmpeg's names.
CODECS = {"mpeg2video": 1, "mpeg4": 2, "h264": 4, "hevc": 8, "vp8": 9, "vp9": 10}
YUV_420 = 1  # cudaVideoChromaFormat_420


class DecoderCaps(ctypes.Structure):
    """CUVIDDECODECAPS of cuviddec.h: first what is asked, then what the driver answers."""

    _fields_ = (
        ("codec_type", ctypes.c_int),
        ("chroma_format", ctypes.c_int),
        ("bit_depth_minus_8", ctypes.c_uint),
        ("reserved_1", ctypes.c_uint * 3),
        ("is_supported", ctypes.c_ubyte),
        ("num_nvdecs", ctypes.c_ubyte),
        ("output_format_mask", ctypes.c_ushort),
        ("max_width", ctypes.c_uint),
        ("max_height", ctypes.c_uint),
        ("max_macroblocks", ctypes.c_uint),
        ("min_width", ctypes.c_ushort),
        ("min_height", ctypes.c_ushort),
        ("reserved_2", ctypes.c_uint * 11),
    )


def count_engines(device: str, codec: str) -> int:
    """Returns how many NVDEC engines of a GPU decode a codec, by its driver; 1 where that does not say.

    Args:
        device: `cuda` or `cuda:N`.
        codec: FFmpeg's name.
    """
    import torch

    with torch.cuda.device(device):
        # The driver answers for this thread's context, which a call of the runtime makes; torch may have memory left.
        torch.cuda.mem_get_info(device)
        try:
            return ask_driver(ctypes.CDLL("libnvcuvid.so.1"), codec)
        except OSError:
            return 1


def ask_driver(library: ctypes.CDLL, codec: str) -> int:
    """Returns how many engines decode a codec with 8 bits and 4:2:0; 1 where the driver does not say."""
    caps = DecoderCaps(codec_type=CODECS.get(codec, CODECS["h264"]), chroma_format=YUV_420)
    failed = library.cuvidGetDecoderCaps(ctypes.byref(caps))
    return max(1, caps.num_nvdecs) if not failed and caps.is_supported else 1


Inspect = Callable[[FrameBatch], None]
"""Computes something from a batch's frames, on the current CUDA stream where they are on a GPU."""


# By device. torch keeps freed memory for the stream that allocated it: with a new stream for each video, the memory
# that torch holds would grow with every video.
_idle_streams: defaultdict[str, list[torch.cuda.Stream]] = defaultdict(list)


def to_device(
    batches: Iterable[FrameBatch], device: str | None, inspect: Inspect | None = None
) -> Generator[FrameBatch, None, None]:
    """Yields batches on a GPU, decoded and copied on a CUDA stream of their own.

    Args:
        batches: on the host or on the device; taken, and closed, on the thread that takes this generator's batches.
        device: of the detector, such as `cuda:0`; None or a CPU: batches stay where they are.
        inspect: called with each batch, on the stream that made it. To wait for the frames is to wait for its result.
    """
    iterator = iter(batches)
    inspect = inspect or (lambda _: None)
    try:
        if device is None or not device.startswith("cuda"):
            for batch in iterator:
                await_frames(batch)
                inspect(batch)
                yield batch
                del batch
        else:
            yield from _on_own_stream(iterator, device, inspect)
    finally:
        if isinstance(iterator, Generator):
            iterator.close()


def await_frames(batch: FrameBatch) -> None:
    """Makes this thread's current CUDA stream wait for the batch's frames; returns at once."""
    if batch.ready is None:
        return
    import torch

    stream = torch.cuda.current_stream(batch.data.device)
    stream.wait_event(batch.ready)
    # Without this, torch's allocator could give the memory to the next frames while this stream still reads it.
    batch.data.record_stream(stream)


@contextmanager
def _borrow_stream(device: str) -> Iterator[torch.cuda.Stream]:
    """Gives a CUDA stream that nobody else uses meanwhile."""
    import torch

    idle = _idle_streams[device]
    try:
        stream = idle.pop()
    except IndexError:
        stream = torch.cuda.Stream(torch.device(device))
    try:
        yield stream
    finally:
        idle.append(stream)


def _on_own_stream(batches: Iterator[FrameBatch], device: str, inspect: Inspect) -> Iterator[FrameBatch]:
    import torch

    with _borrow_stream(device) as stream:
        while True:
            # The current stream belongs to the thread: it must not stay set while the consumer runs, at `yield`.
            with torch.cuda.stream(stream):
                batch = next(batches, None)
                if batch is None:
                    return
                if batch.ready is not None:  # the reader has CUDA streams of its own
                    stream.wait_event(batch.ready)
                data = batch.data.to(device, non_blocking=True)
                inspect(FrameBatch(data, batch.frame_indices, batch.pts_seconds))
                ready = torch.cuda.Event()
                ready.record(stream)
            if data is not batch.data:
                ready.synchronize()  # only now may the reader use the host memory again
            yield FrameBatch(data, batch.frame_indices, batch.pts_seconds, ready)
            del batch, data
