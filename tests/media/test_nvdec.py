"""How many videos a GPU decodes at once, and that several sessions on it give the frames of one."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from prelabel.data.frames import Media
from prelabel.media import cuda as nvdec
from prelabel.media import torchcodec
from prelabel.media.parallel import ParallelReader
from prelabel.media.torchcodec import TorchCodecReader
from tests.make_media import RECIPES, read_number, remux, write_clip


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
    assert 1 <= nvdec.count_engines("cuda:0", "h264") <= 16


@pytest.mark.parametrize(("failed", "supported", "engines"), [(0, 1, 7), (0, 0, 1), (999, 1, 1)])
def test_the_driver_says_how_many_engines_a_gpu_has(failed: int, supported: int, engines: int):
    class Driver:
        @staticmethod
        def cuvidGetDecoderCaps(reference) -> int:  # noqa: N802
            caps = reference._obj
            assert (caps.codec_type, caps.chroma_format, caps.bit_depth_minus_8) == (8, 1, 0)
            caps.is_supported, caps.num_nvdecs = supported, 7
            return failed

    assert nvdec.ask_driver(Driver(), "hevc") == engines
