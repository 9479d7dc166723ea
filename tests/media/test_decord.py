"""What DecordReader does beyond the contract: bounded pieces, and refusing with the reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prelabel.data.frames import Media
from prelabel.errors import MachineError, ReadError
from prelabel.media import decord as pieces
from prelabel.media.decord import DecordReader, probe, refuse
from prelabel.media.index import index_video
from tests.make_media import Recipe, cut_off, read_number, remux, spoil, write_clip
from tests.media.conftest import BuildClip, read_until_error


def test_a_file_with_too_long_a_gop_for_the_budget_is_refused(clip: BuildClip):
    media = Media("video", (clip("hevc open GOP").path,))
    with pytest.raises(ReadError, match="it has 30 frames between keyframes that no frame crosses, 1 MB decoded"):
        DecordReader(media, device="cpu", max_buffered_mb=0).__enter__()
    with DecordReader(media, device="cpu", max_buffered_mb=1) as reader:
        assert reader.info.num_frames == 30


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("h264 edit list", "it holds frames that are not shown"),
        ("h264 10-bit", "its components have 10 bits"),
        ("h264 mirrored", "it is mirrored"),
        ("h264 raw", "its times do not tell its frames, which had to be counted"),
        ("av1", "its codec is av1"),
    ],
)
def test_a_refusal_says_why(name: str, reason: str, clip: BuildClip):
    assert refuse(index_video(clip(name).path), on_gpu=False) == reason


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("h264", None),
        ("h264 rotated 90", None),
        ("h264 BT.709", "its colours are bt709"),
        ("h264 full range", "its pixels are yuvj420p"),
        ("h264 interlaced", "it is interlaced"),
        ("h264 4:4:4", "its pixels are yuv444p"),
        ("h264 TS", "its container is mpegts"),
        ("h264 mkv no duration", "its container gives no duration"),
    ],
)
def test_a_gpu_takes_less(name: str, reason: str | None, clip: BuildClip):
    index = index_video(clip(name).path)
    assert refuse(index, on_gpu=False) is None
    assert refuse(index, on_gpu=True) == reason


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path):
    path = cut_off(write_clip(tmp_path / "whole.mp4", Recipe()).path, tmp_path / "clip.mp4")
    with pytest.raises(ReadError, match=r"it is cut off at its end: set reader\.use: auto"):
        DecordReader(Media("video", (path,)), device="cpu").__enter__()


def test_damage_is_an_error_that_names_the_frame(clip: BuildClip, tmp_path: Path):
    path = spoil(clip("h264 no B-frames").path, tmp_path / "clip.mp4", packets=[14], keep=4)
    frames, error = read_until_error(DecordReader(Media("video", (path,)), device="cpu"))
    assert frames == [(index, index) for index in range(len(frames))]
    assert error.startswith("clip.mp4: decord stopped at frame 1")


def test_pieces_without_wanted_frames_are_passed_over(clip: BuildClip, tmp_path: Path):
    path = spoil(clip("h264 no B-frames").path, tmp_path / "clip.mp4", packets=[14], keep=4)
    with DecordReader(Media("video", (path,)), device="cpu") as reader:
        batches = list(reader.batches(np.array([3, 11, 24, 29]), 4))
    assert [read_number(frame.numpy()) for batch in batches for frame in batch.data] == [3, 11, 24, 29]


def test_what_a_gpu_is_given_of_a_file_begins_at_a_keyframe(
    clip: BuildClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = remux(clip("h264").path, tmp_path / "long.mp4", times=5)
    index = index_video(path)
    start, source = pieces.from_seek_point(index, np.arange(85, 100))
    assert start == 84
    with DecordReader(Media("video", (path,)), device="cpu") as reader:
        frames = [(number, read_number(frame.numpy())) for number, frame in reader._read_on(source, start, {})]
    assert frames == [(number, number % 30) for number in range(84, 102)]
    assert pieces.from_seek_point(index, np.arange(5, 100)) == (0, str(path))
    monkeypatch.setattr(pieces, "MAX_COPIED_BYTES", 1)
    assert pieces.from_seek_point(index, np.arange(85, 100)) == (0, str(path))


def test_a_gpu_that_decord_lacks_is_refused_with_the_reason(clip: BuildClip):
    if probe(0) is None:
        pytest.skip("this decord has a GPU")
    with pytest.raises(MachineError, match="reader decord on device 'cuda': the installed decord has no GPU 0: "):
        DecordReader(Media("video", (clip("h264").path,)), device="cuda")
    assert str(DecordReader.unavailable_reason("cuda")).startswith("the installed decord has no GPU 0: ")
    assert DecordReader.unavailable_reason("auto") is None


@pytest.mark.needs_cuda
def test_a_gpu_gives_the_frame_of_the_number(clip: BuildClip):
    if unavailable_reason := probe(0):
        pytest.skip(unavailable_reason)
    with DecordReader(Media("video", (clip("h264").path,)), device="cuda") as reader:
        batches = list(reader.batches(np.arange(30), 8))
    assert all(batch.data.is_cuda for batch in batches)
    assert [read_number(frame.cpu().numpy()) for batch in batches for frame in batch.data] == list(range(30))
