"""Frames to the detector's GPU on a stream of their own, beside what the detector computes there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prelabel.data.frames import FrameBatch

if TYPE_CHECKING:
    import torch


Look = Callable[[FrameBatch], None]
"""Computes something of a batch's frames, on the current stream where they are on a GPU."""


_idle_streams: defaultdict[str, list[torch.cuda.Stream]] = defaultdict(list)
"""By device. torch keeps freed memory for the stream that it was of: with a new one for each video it would grow."""


def to_device(
    batches: Iterable[FrameBatch], device: str | None, look: Look | None = None
) -> Generator[FrameBatch, None, None]:
    """Yields batches on a GPU, decoded and copied there on a stream of their own; as they are where there is none.

    Args:
        batches: on the host or on the device, made by the thread that asks for them.
        device: the detector's, such as `cuda:0`; None: it takes frames wherever they are.
        look: called with each batch, on the stream that made it; whoever awaits the frames awaits what it computes.
    """
    iterator = iter(batches)
    look = look or _pass_over
    try:
        if device is None or not device.startswith("cuda"):
            yield from _where_they_are(iterator, look)
        else:
            yield from _on_own_stream(iterator, device, look)
    finally:
        if isinstance(iterator, Generator):
            iterator.close()


def await_frames(batch: FrameBatch) -> None:
    """Lets this thread's current stream wait for the batch's frames; returns at once."""
    if batch.ready is None:
        return
    import torch

    stream = torch.cuda.current_stream(batch.data.device)
    stream.wait_event(batch.ready)
    batch.data.record_stream(stream)  # else its memory could be given to the next frames while it is read


def _pass_over(_: FrameBatch) -> None:
    pass


def _where_they_are(batches: Iterator[FrameBatch], look: Look) -> Iterator[FrameBatch]:
    for batch in batches:
        await_frames(batch)
        look(batch)
        yield batch
        del batch


@contextmanager
def _lent_stream(device: str) -> Iterator[torch.cuda.Stream]:
    """Gives a stream that nobody else has for the while."""
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


def _on_own_stream(batches: Iterator[FrameBatch], device: str, look: Look) -> Iterator[FrameBatch]:
    import torch

    with _lent_stream(device) as stream:
        while True:
            with torch.cuda.stream(stream):
                batch = next(batches, None)
                if batch is None:
                    return
                if batch.ready is not None:  # the reader has streams of its own
                    stream.wait_event(batch.ready)
                data = batch.data.to(device, non_blocking=True)
                look(FrameBatch(data, batch.frame_indices, batch.pts_seconds))
                ready = torch.cuda.Event()
                ready.record(stream)
            if data is not batch.data:
                ready.synchronize()  # the reader may use the host's memory again
            yield FrameBatch(data, batch.frame_indices, batch.pts_seconds, ready)
            del batch, data
