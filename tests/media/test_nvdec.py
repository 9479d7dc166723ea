"""Decoding with NVDEC: its engines, several sessions at once, and the reader on PyNvVideoCodec."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from prelabel.data.frames import Media
from prelabel.errors import FrameCountError, MachineError, ReadError
from prelabel.media import cuda, nvdec, torchcodec
from prelabel.media import parallel as split
from prelabel.media.index import index_video
from prelabel.media.nvdec import NvdecReader, probe, refuse
from prelabel.media.parallel import ParallelReader
from prelabel.media.pyav import PyAVReader
from prelabel.media.torchcodec import TorchCodecReader
from prelabel.testing import check_reader
from tests.fake_cuda import FakeStream
from tests.fake_nvdec import DecodedFrame, FakeNvdec
from tests.make_media import CLIPS, RECIPES, read_number, remux, write_clip
from tests.media.conftest import BuildClip


@pytest.mark.needs_cuda
def test_several_sessions_on_a_gpu_give_the_frames_of_one(tmp_path: Path):
    if unavailable_reason := torchcodec.probe("cuda"):
        pytest.skip(unavailable_reason)
    source = write_clip(tmp_path / "clip.mp4", RECIPES["h264"]).path
    clip = Media("video", (remux(source, tmp_path / "long.mp4", times=5),))
    pictures = {}
    for sessions in (1, 3):
        make = partial(TorchCodecReader, clip, device="cuda")
        reader = make() if sessions == 1 else ParallelReader(clip, make, sessions, 1e9, "cuda:0")
        with reader:
            pictures[sessions] = torch.cat([batch.data.clone() for batch in reader.batches(np.arange(150), 4)])
    assert pictures[3].is_cuda
    assert torch.equal(pictures[1], pictures[3])
    assert [read_number(frame) for frame in pictures[3].cpu().numpy()] == [number % 30 for number in range(150)]


@pytest.mark.needs_cuda
def test_a_gpu_says_how_many_engines_it_has():
    assert 1 <= cuda.count_engines("cuda:0", "h264") <= 16


@pytest.mark.parametrize(("failed", "supported", "engines"), [(0, 1, 7), (0, 0, 1), (999, 1, 1)])
def test_the_driver_says_how_many_engines_a_gpu_has(failed: int, supported: int, engines: int):
    class Driver:
        @staticmethod
        def cuvidGetDecoderCaps(reference) -> int:  # noqa: N802
            caps = reference._obj
            assert (caps.codec_type, caps.chroma_format, caps.bit_depth_minus_8) == (8, 1, 0)
            caps.is_supported, caps.num_nvdecs = supported, 7
            return failed

    assert cuda.ask_driver(Driver(), "hevc") == engines


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeNvdec:
    return FakeNvdec(monkeypatch)


def _frames(reader: NvdecReader | ParallelReader, batch_size: int = 7) -> tuple[list[int], np.ndarray]:
    with reader:
        batches = list(reader.batches(np.arange(reader.info.num_frames), batch_size))
    numbers = [int(number) for batch in batches for number in batch.frame_indices]
    return numbers, torch.cat([batch.data for batch in batches]).numpy()


@pytest.mark.parametrize("sessions", [1, 3])
@pytest.mark.parametrize("name", CLIPS)
def test_nvdec_frames_are_pyavs_within_two_grey_levels_or_the_file_is_refused(
    name: str, sessions: int, clip: BuildClip, fake: FakeNvdec, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(split, "MIN_SEGMENT_BATCHES", 1)
    media = Media("video", (clip(name).path,))
    make = partial(NvdecReader, media)
    reader = make() if sessions == 1 else ParallelReader(media, make, sessions, 1e9, None)
    if name == "h264 size changes" or refuse(index_video(media.paths[0])) is not None:
        with pytest.raises(ReadError, match=r"nvdec does not read this file exactly|which scales it"):
            _frames(reader)
        return
    numbers, frames = _frames(reader)
    _, truth = _frames(PyAVReader(media))
    assert numbers == list(range(len(truth)))
    assert np.abs(frames.astype(np.int16) - truth).max() <= 2


def test_nvdec_reads_most_kinds_of_h264_and_hevc(clip: BuildClip):
    read = {name for name in CLIPS if refuse(index_video(clip(name).path)) is None}
    assert {"h264", "h264 BT.709", "h264 full range", "h264 TS", "h264 rotated 90", "h264 mirrored", "hevc"} <= read


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("h264 10-bit", "its pixels are yuv420p10le"),
        ("h264 interlaced", "it is interlaced"),
        ("h264 edit list", "it holds frames that are not shown"),
        ("h264 raw", "its times do not tell its frames, which had to be counted"),
        ("h264 joined TS", "its clock is reset"),
        ("av1", "its codec is av1"),
    ],
)
def test_nvdec_says_why_it_refuses_a_file(name: str, reason: str, clip: BuildClip):
    assert refuse(index_video(clip(name).path)) == reason


@pytest.mark.parametrize("name", ["h264", "hevc", "h264 open GOP"])
def test_nvdec_keeps_the_contract_of_readers(name: str, clip: BuildClip, fake: FakeNvdec):
    check_reader(NvdecReader, Media("video", (clip(name).path,)))


def test_a_session_is_used_for_the_next_video_of_its_kind(clip: BuildClip, fake: FakeNvdec):
    for _ in range(3):
        numbers, frames = _frames(NvdecReader(Media("video", (clip("h264").path,))))
        assert [read_number(frame) for frame in frames] == numbers
    assert len(fake.opened) == 1
    assert fake.opened[0]["gpuid"] == 0


def test_idle_sessions_have_a_bound_in_bytes(monkeypatch: pytest.MonkeyPatch):
    sessions, stream = nvdec.IdleSessions(), FakeStream()
    key = ("cuda:0", "h264", (1920, 1080))
    one = 1920 * 1080 * 3 // 2 * nvdec.SURFACES_PER_SESSION
    monkeypatch.setattr(nvdec, "MAX_IDLE_BYTES", 3 * one)
    opened = [nvdec._Session(number, stream) for number in range(5)]
    for session in opened:
        sessions.give_back(key, session)
    assert sessions.num_bytes == 3 * one
    assert sessions.take(("cuda:1", *key[1:])) is None
    sessions.give_back(("cuda:0", "h264", (3840, 2160)), opened[0])  # four times the size: more than all may take
    assert sessions.num_bytes == 0
    for session in opened[2:]:
        sessions.give_back(key, session)
    assert [sessions.take(key) for _ in range(4)] == [*reversed(opened[2:]), None]


def _drop_frame_12(frames: list[DecodedFrame]) -> list[DecodedFrame]:
    return [frame for frame in frames if frame.getPTS() != 12]


def _repeat_frame_11(frames: list[DecodedFrame]) -> list[DecodedFrame]:
    return [DecodedFrame(frame.surface, 11 if frame.getPTS() == 12 else frame.getPTS()) for frame in frames]


@pytest.mark.parametrize(
    ("fault", "gave"),
    [
        (_drop_frame_12, "gave frame 13 where frame 12 of 30 was due"),
        (_repeat_frame_11, "gave frame 11 where frame 12"),
    ],
)
def test_another_frame_than_the_next_is_an_error_and_its_session_is_not_used_again(
    fault: Callable[[list[DecodedFrame]], list[DecodedFrame]], gave: str, clip: BuildClip, fake: FakeNvdec
):
    fake.change = fault
    media = Media("video", (clip("h264").path,))
    with pytest.raises(FrameCountError, match=gave):
        _frames(NvdecReader(media))
    fake.change = lambda frames: frames
    _frames(NvdecReader(media))
    assert len(fake.opened) == 2


def test_other_pixels_than_pyavs_are_an_error(clip: BuildClip, fake: FakeNvdec):
    def brighten(frames: list[DecodedFrame]) -> list[DecodedFrame]:
        for frame in frames:
            frame.surface[: frame.surface.shape[0] * 2 // 3] //= 2
        return frames

    fake.change = brighten
    with pytest.raises(FrameCountError, match=r"NVDEC's frame 3 differs from PyAV's by .* grey levels"):
        _frames(NvdecReader(Media("video", (clip("h264").path,))))


def test_an_error_of_the_decoder_names_the_file_and_the_frame(clip: BuildClip, fake: FakeNvdec):
    def fail(frames: list[DecodedFrame]) -> list[DecodedFrame]:
        raise RuntimeError("CUDA_ERROR_UNKNOWN")

    fake.change = fail
    path = clip("h264").path
    with pytest.raises(ReadError, match=f"{path.name}: NVDEC stopped at frame 0: CUDA_ERROR_UNKNOWN"):
        _frames(NvdecReader(Media("video", (path,))))


def test_a_machine_without_nvdec_is_told_what_is_missing(clip: BuildClip, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "PyNvVideoCodec", None)
    media = Media("video", (clip("h264").path,))
    with pytest.raises(MachineError, match=r"reader nvdec on device 'auto': PyNvVideoCodec is not installed \(uv sync"):
        NvdecReader(media)
    with pytest.raises(MachineError, match="reader nvdec on device 'cpu': it decodes on a GPU only: use pyav"):
        NvdecReader(media, device="cpu")


@pytest.mark.needs_cuda
@pytest.mark.parametrize("name", ["h264", "h264 BT.709", "h264 full range", "hevc"])
def test_a_gpu_gives_pyavs_frames_by_nvdec(name: str, clip: BuildClip):
    if unavailable_reason := probe():
        pytest.skip(unavailable_reason)
    media = Media("video", (clip(name).path,))
    with NvdecReader(media) as reader:
        batches = list(reader.batches(np.arange(reader.info.num_frames), 7))
    frames = torch.cat([batch.data for batch in batches]).cpu().numpy()
    _, truth = _frames(PyAVReader(media))
    assert np.abs(frames.astype(np.int16) - truth).max() <= 2
