"""What TorchCodecReader does beyond the contract."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from prelabel.data.frames import Media
from prelabel.errors import MachineError, ReadError
from prelabel.media.index import index_video
from prelabel.media.torchcodec import TorchCodecReader, probe, refuse
from tests.make_media import RECIPES, Recipe, add_exif, cut_off, read_number, spoil, write_clip
from tests.media.conftest import BuildClip, read_until_error


@pytest.fixture(autouse=True)
def _needs_torchcodec() -> None:
    if unavailable_reason := probe():
        pytest.skip(unavailable_reason)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("h264", None),
        ("h264 edit list", None),
        ("h264 TS", "its container is mpegts"),
        ("h264 mirrored", "it is mirrored"),
        ("vp8 hidden frame", "it holds frames that are not shown"),
    ],
)
def test_a_refusal_says_why(name: str, reason: str | None, clip: BuildClip):
    assert refuse(index_video(clip(name).path), on_gpu=False) == reason


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path):
    path = cut_off(write_clip(tmp_path / "whole.mp4", Recipe()).path, tmp_path / "clip.mp4")
    with pytest.raises(ReadError, match="it is cut off at its end: use reader pyav"):
        TorchCodecReader(Media("video", (path,)), device="cpu").__enter__()


def test_frames_that_say_themselves_how_they_are_turned_are_refused(tmp_path: Path):
    plain = write_clip(tmp_path / "plain.mov", replace(RECIPES["mjpeg AVI"], suffix=".mov")).path
    path = add_exif(plain, tmp_path / "camera.mov", orientation=3)
    with pytest.raises(ReadError, match="ignores the rotation"), TorchCodecReader(Media("video", (path,))):
        pass


def test_damage_is_an_error_that_names_the_frames(clip: BuildClip, tmp_path: Path):
    path = spoil(clip("h264 no B-frames").path, tmp_path / "clip.mp4", packets=[14], keep=4)
    frames, error = read_until_error(TorchCodecReader(Media("video", (path,)), device="cpu"))
    assert frames == [(index, index) for index in range(len(frames))]
    assert error.startswith(f"clip.mp4: torchcodec could not decode frames {len(frames)}-")


def test_a_gpu_that_is_not_there_is_refused(clip: BuildClip):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(MachineError, match="reader torchcodec on device 'cuda': torch sees no CUDA device"):
        TorchCodecReader(Media("video", (clip("h264").path,)), device="cuda")


@pytest.mark.needs_cuda
def test_a_gpu_gives_the_frame_of_the_number(clip: BuildClip):
    with TorchCodecReader(Media("video", (clip("h264").path,)), device="cuda") as reader:
        batches = list(reader.batches(np.arange(30), 8))
    assert all(batch.data.is_cuda for batch in batches)
    assert [read_number(frame.cpu().numpy()) for batch in batches for frame in batch.data] == list(range(30))


@pytest.mark.parametrize("name", ["h264 full range", "h264 BT.709"])
def test_colours_that_a_file_names_are_left_to_the_cpu(name: str, clip: BuildClip):
    index = index_video(clip(name).path)
    assert refuse(index, on_gpu=False) is None
    assert refuse(index, on_gpu=True) == "it names its colours, and a GPU gave a wrong frame of such files"


@pytest.mark.needs_cuda
@pytest.mark.parametrize("name", ["h264", "h264 variable rate", "h264 rotated 90", "h264 mkv"])
def test_a_gpu_gives_the_pictures_of_the_cpu(name: str, clip: BuildClip):
    media = Media("video", (clip(name).path,))
    pictures = {}
    for device in ("cpu", "cuda"):
        with TorchCodecReader(media, device=device) as reader:
            pictures[device] = torch.cat([batch.data.cpu() for batch in reader.batches(np.arange(30), 8)]).float()
    difference = (pictures["cuda"] - pictures["cpu"]).abs().mean(dim=(1, 2, 3))
    assert difference.max() < 4  # of 255; chroma is brought to full size by another filter there
