"""CUDA for decoding: counts decoder engines and copies batches to a GPU on a separate stream."""

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
    """CUVIDDECODECAPS of cuviddec.h: the query fields, then the fields that the driver fills in."""

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
    """Returns how many NVDEC engines of a GPU decode a codec; 1 if the driver does not say.

    Args:
        device: `cuda` or `cuda:N`.
        codec: FFmpeg's name.
    """
    import torch

    with torch.cuda.device(device):
        # The driver answers for this thread's CUDA context. This call creates it; an allocation might not, since torch
        # may still hold free memory.
        torch.cuda.mem_get_info(device)
        try:
            return ask_driver(ctypes.CDLL("libnvcuvid.so.1"), codec)
        except OSError:
            return 1


def ask_driver(library: ctypes.CDLL, codec: str) -> int:
    """Returns how many engines decode a codec with 8 bits and 4:2:0; 1 if the driver does not say."""
    caps = DecoderCaps(codec_type=CODECS.get(codec, CODECS["h264"]), chroma_format=YUV_420)
    failed = library.cuvidGetDecoderCaps(ctypes.byref(caps))
    return max(1, caps.num_nvdecs) if not failed and caps.is_supported else 1


Inspect = Callable[[FrameBatch], None]
"""Computes something from a batch's frames; on the current CUDA stream if they are on a GPU."""


# By device. torch reserves freed memory for the stream that allocated it. A new stream for each video would make the
# reserved memory grow with every video.
_idle_streams: defaultdict[str, list[torch.cuda.Stream]] = defaultdict(list)


# By device. All surfaces are allocated on it, whichever stream writes them.
_allocation_streams: dict[torch.device, torch.cuda.Stream] = {}


def allocate(shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """Returns memory on the device and of the type of a tensor, contents undefined, for the current CUDA stream.

    torch keeps freed memory for the stream that allocated it. If each decoder allocated on its own stream, reserved
    memory would grow with the number of decoders and the sizes of videos. Memory of one stream serves them all.
    """
    import torch

    stream = _allocation_streams.get(like.device)
    if stream is None:  # if two threads make it at once, the other one only lives as long as its memory
        stream = _allocation_streams.setdefault(like.device, torch.cuda.Stream(like.device))
    with torch.cuda.stream(stream):
        memory = like.new_empty(shape)
    memory.record_stream(torch.cuda.current_stream(like.device))
    return memory


def to_device(
    batches: Iterable[FrameBatch], device: str | None, inspect: Inspect | None = None
) -> Generator[FrameBatch, None, None]:
    """Yields batches on a GPU, decoded and copied on a separate CUDA stream.

    Args:
        batches: on the host or on the device; iterated and closed on the consumer's thread.
        device: of the detector, e.g. `cuda:0`; None or a CPU: batches are not copied.
        inspect: called with each batch, on the stream that made it. Waiting for the frames includes its work.
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

    stream = torch.cuda.current_stream(batch.memory.device)
    stream.wait_event(batch.ready)
    # Without this, torch's allocator could reuse the memory for the next frames while this stream still reads it.
    batch.memory.record_stream(stream)


@contextmanager
def _borrow_stream(device: str) -> Iterator[torch.cuda.Stream]:
    """Yields a CUDA stream that no other caller uses until the context ends."""
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
            # The current stream is a setting of the thread. At `yield` the consumer runs on this thread, so reset it.
            with torch.cuda.stream(stream):
                batch = next(batches, None)
                if batch is None:
                    return
                if batch.ready is not None:  # the reader used its own CUDA stream
                    stream.wait_event(batch.ready)
                moved = batch.to(device)
                inspect(moved)
                moved.ready = torch.cuda.Event()
                moved.ready.record(stream)
            if moved.memory is not batch.memory:
                moved.ready.synchronize()  # the reader may reuse the host memory only after the copy
            del batch
            yield moved
            del moved
