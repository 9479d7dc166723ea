"""Streams and events as CUDA has them, on a machine without: they only know what each stream may rely on.

A kernel is an entry in the stream that was current when it was launched. A stream may read what a kernel wrote if it
launched the kernel itself, or has waited for an event that was recorded after it.
"""

from __future__ import annotations

import itertools
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from prelabel.media import cuda as device_stream


class FakeStream:
    cuda_stream = 0  # its handle in CUDA

    def __init__(self, device: object = None) -> None:
        self.kernels: set[int] = set()

    def wait_event(self, event: FakeEvent) -> None:
        self.kernels |= event.kernels


class FakeEvent:
    def __init__(self) -> None:
        self.kernels: set[int] = set()
        self.was_synchronized = False

    def record(self, stream: FakeStream) -> None:
        self.kernels = set(stream.kernels)

    def synchronize(self) -> None:
        self.was_synchronized = True


class FakeCuda:
    """Stands in for what `prelabel` uses of `torch.cuda`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.default = FakeStream()
        self._numbers = itertools.count()
        self._of_thread = threading.local()
        monkeypatch.setattr(device_stream, "_idle_streams", defaultdict(list))
        monkeypatch.setattr(device_stream, "_allocation_streams", {})
        monkeypatch.setattr(torch.cuda, "Stream", FakeStream)
        monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
        monkeypatch.setattr(torch.cuda, "stream", self.use)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda _: self.current)

    @property
    def current(self) -> FakeStream:
        return getattr(self._of_thread, "stream", self.default)

    @contextmanager
    def use(self, stream: FakeStream) -> Iterator[None]:
        before, self._of_thread.stream = self.current, stream
        yield
        self._of_thread.stream = before

    def frames(self, num: int, device: str = "cuda:0") -> FakeFrames:
        """Returns frames that a kernel on the current stream writes."""
        frames = FakeFrames(self, num, device)
        self.current.kernels.add(frames.kernel)
        return frames

    def launch(self) -> int:
        return next(self._numbers)


class FakeFrames:
    """A tensor of black frames, of which only matters who may read it and for how long its memory is kept."""

    dtype = torch.uint8

    def __init__(self, cuda: FakeCuda, num: int, device: str) -> None:
        self._cuda, self.device = cuda, device
        self.shape = (num, 10, 10, 3)
        self.made_on, self.kernel = cuda.current, cuda.launch()
        self.kept_for = {self.made_on}

    def to(self, device: str, non_blocking: bool) -> FakeFrames:
        return self if device == self.device else self._cuda.frames(self.shape[0], device)

    def new_empty(self, shape: tuple[int, ...]) -> FakeFrames:
        return self._cuda.frames(shape[0], self.device)

    def record_stream(self, stream: FakeStream) -> None:
        self.kept_for.add(stream)

    @property
    def may_be_read(self) -> bool:
        """Whether a kernel launched now, from this thread, finds them written, and their memory not yet given away."""
        return self.kernel in self._cuda.current.kernels and self._cuda.current in self.kept_for
