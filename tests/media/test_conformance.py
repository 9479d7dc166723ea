"""Every reader on every file: the right frame under the right number, or a refusal that is known."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest

from prelabel.data.frames import Media
from prelabel.errors import ReadError
from prelabel.media import parallel as split
from prelabel.media import torchcodec
from prelabel.media.decord import DecordReader
from prelabel.media.index import index_video
from prelabel.media.pyav import PyAVReader
from prelabel.media.torchcodec import TorchCodecReader
from prelabel.plugins.protocols import VideoReader
from prelabel.testing import check_reader
from tests.make_media import CLIPS, read_number
from tests.media.conftest import BuildClip, FFmpegFrames

READERS: dict[str, Callable[..., VideoReader]] = {
    "pyav": PyAVReader,
    "decord": DecordReader,
    "torchcodec": TorchCodecReader,
}
REFUSED = {
    "pyav": set(),
    "decord": {
        "h264 10-bit",
        "h264 AVI",
        "h264 edit list",
        "h264 lost start",
        "h264 mirrored",
        "h264 raw",
        "h264 rotated 90 mirrored",
        "h264 size changes",
        "hevc 10-bit",
        "hevc lost start",
        "hevc raw",
        "mpeg2 lost start",
        "mpeg2 PS",
        "mpeg4 AVI",
        "vp8 webm",
        "vp8 hidden frame",
        "av1",
        "ffv1 odd size",
    },
    "torchcodec": {
        "h264 AVI",
        "h264 intra refresh",
        "h264 TS",
        "h264 joined TS",
        "h264 lost start",
        "h264 mirrored",
        "h264 raw",
        "h264 rotated 90 mirrored",
        "h264 size changes",
        "hevc lost start",
        "hevc raw",
        "mjpeg AVI",
        "mpeg2 lost start",
        "mpeg2 PS",
        "mpeg4 AVI",
        "vp8 hidden frame",
    },
}


# FFmpeg before 8 makes up what such a file shows before its first keyframe; FFmpeg 8 begins at it.
VERSIONS_DIFFER = {"hevc lost start"}
READ = [
    (reader, name)
    for reader in READERS
    for name in CLIPS
    if name not in REFUSED[reader] and name not in VERSIONS_DIFFER
]


@pytest.fixture(params=READERS)
def reader(request: pytest.FixtureRequest) -> str:
    if request.param == "torchcodec" and (unavailable_reason := torchcodec.probe()):
        pytest.skip(unavailable_reason)
    return request.param


@pytest.fixture(params=[1, 3])
def sessions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(split, "MIN_SEGMENT_BATCHES", 1)
    return request.param


def open_reader(name: str, media: Media, sessions: int) -> VideoReader:
    make = partial(READERS[name], media, device="cpu")
    return make() if sessions == 1 else split.ParallelReader(media, make, sessions, 1e9, None)


@pytest.mark.parametrize("name", CLIPS)
def test_frames_show_their_numbers_or_the_file_is_refused(name: str, reader: str, sessions: int, clip: BuildClip):
    built = clip(name)
    frames: list[tuple[int, int]] = []
    refusal = pytest.raises(ReadError, match=f"^{built.path.name}: ") if name in REFUSED[reader] else nullcontext()
    with refusal, open_reader(reader, Media("video", (built.path,)), sessions) as opened:
        for batch in opened.batches(np.arange(opened.info.num_frames), 7):
            numbers = [read_number(frame.numpy()) for frame in batch.data]
            frames += zip(batch.frame_indices.tolist(), numbers, strict=True)
    assert all(number == built.numbers[index] for index, number in frames)
    assert len(frames) == len(built.numbers) or name in REFUSED[reader]


@pytest.mark.parametrize("sessions", [1, pytest.param(3, marks=pytest.mark.slow)], indirect=True)
@pytest.mark.parametrize(("reader", "name"), READ, indirect=["reader"])
def test_pixels_are_those_of_ffmpeg(
    name: str, reader: str, sessions: int, clip: BuildClip, ffmpeg_frames: FFmpegFrames
):
    built = clip(name)
    info = index_video(built.path).info
    truth = ffmpeg_frames(built.path, info.width, info.height)
    media = Media("video", (built.path,))
    if len(truth) < 3:
        with open_reader(reader, media, sessions) as opened:
            (batch,) = opened.batches(np.arange(len(truth)), 7)
            assert np.array_equal(batch.data.numpy(), truth)
        return
    check_reader(lambda asked: open_reader(reader, asked, sessions), media, truth=truth)


@pytest.mark.parametrize("name", CLIPS)
def test_keyframes_alone_equal_those_of_the_whole_video(name: str, clip: BuildClip):
    media = Media("video", (clip(name).path,))
    keyframes = index_video(media.paths[0]).keyframes
    assert len(keyframes) > 0
    with PyAVReader(media) as reader:
        whole = np.concatenate([batch.data.numpy() for batch in reader.batches(np.arange(reader.info.num_frames), 30)])
        alone = np.concatenate([batch.data.numpy() for batch in reader.batches(keyframes, 5)])
        assert np.array_equal(alone, whole[keyframes])
