"""PyNvVideoCodec as far as `prelabel` uses it, on a machine without a GPU: FFmpeg decodes, surfaces lie in host memory.

It has the names and behaviour of version 2.2: frames come four packets late, bring back the packet's time, and are
written over at the next call. An empty packet returns the frames that are left.
"""

from __future__ import annotations

import ctypes
import enum
import sys
from collections.abc import Callable
from types import ModuleType

import av
import numpy as np
import pytest
import torch

from prelabel.media import nvdec
from tests.fake_cuda import FakeCuda

LATENCY = 4


class Codec(enum.Enum):
    H264 = "h264"
    HEVC = "hevc"
    VP9 = "vp9"


class PacketData:
    bsl = 0
    bsl_data = 0
    pts = 0


class DecodedFrame:
    def __init__(self, surface: torch.Tensor, pts: int) -> None:
        self.surface, self._pts = surface, pts

    def getPTS(self) -> int:  # noqa: N802
        return self._pts

    def __dlpack__(self, stream: object = None, **_: object) -> object:
        return self.surface.__dlpack__()

    def __dlpack_device__(self) -> object:
        return self.surface.__dlpack_device__()


class FakeDecoder:
    def __init__(self, codec: Codec, fake: FakeNvdec) -> None:
        self._context = av.CodecContext.create(codec.value, "r")
        self._context.thread_count = 1
        self._fake = fake
        self._waiting: list[DecodedFrame] = []
        self._given: list[DecodedFrame] = []

    def Decode(self, data: PacketData) -> list[DecodedFrame]:  # noqa: N802
        for frame in self._given:
            frame.surface.fill_(0)
        packet = None
        if data.bsl:
            packet = av.Packet(ctypes.string_at(data.bsl_data, data.bsl))
            packet.pts = data.pts
        frames = [DecodedFrame(_surface(frame), frame.pts) for frame in self._context.decode(packet)]
        self._waiting += self._fake.change(frames)
        num_ready = len(self._waiting) if packet is None else max(0, len(self._waiting) - LATENCY)
        self._given, self._waiting = self._waiting[:num_ready], self._waiting[num_ready:]
        if packet is None:
            self._context.flush_buffers()
        return list(self._given)


def _surface(frame: av.VideoFrame) -> torch.Tensor:
    """Returns a frame as NV12: rows of brightness, then rows of interleaved Cb and Cr."""
    planes = []
    for number, plane in enumerate(frame.planes):
        width = frame.width if number == 0 else frame.width // 2
        planes.append(np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, :width])
    colours = np.stack(planes[1:], axis=-1).reshape(frame.height // 2, frame.width)
    return torch.from_numpy(np.concatenate([planes[0], colours]))


class FakeNvdec:
    """Installs the module, and streams that only keep account.

    Attributes:
        opened: the arguments of each `CreateDecoder`.
        change: changes the frames that a decoder returns, to try faults.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        FakeCuda(monkeypatch)
        self.opened: list[dict[str, object]] = []
        self.change: Callable[[list[DecodedFrame]], list[DecodedFrame]] = lambda frames: frames
        module = ModuleType("PyNvVideoCodec")
        module.PacketData, module.cudaVideoCodec, module.CreateDecoder = PacketData, Codec, self._create
        monkeypatch.setitem(sys.modules, "PyNvVideoCodec", module)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)
        monkeypatch.setattr(nvdec, "_idle_sessions", nvdec.IdleSessions())

    def _create(self, **options: object) -> FakeDecoder:
        self.opened.append(options)
        return FakeDecoder(options["codec"], self)
