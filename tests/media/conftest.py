"""Clips built once a session, and FFmpeg's own frames of them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from prelabel.errors import ReadError
from prelabel.plugins.protocols import VideoReader
from tests.make_media import Clip, build_clip, read_number

BuildClip = Callable[[str], Clip]
FFmpegFrames = Callable[..., NDArray[np.uint8]]


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> BuildClip:
    """Returns one of tests.media.CLIPS by name."""
    built: dict[str, Clip] = {}

    def build(name: str) -> Clip:
        if name not in built:
            built[name] = build_clip(tmp_path_factory.mktemp("clip"), name)
        return built[name]

    return build


@pytest.fixture(scope="session")
def ffmpeg_frames() -> FFmpegFrames:
    """Returns the frames of a video as `ffmpeg -pix_fmt rgb24` writes them; skips without the binary."""
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        pytest.skip("no ffmpeg binary on PATH: its frames cannot be compared with")

    @cache
    def decode(path: Path, width: int, height: int, max_frames: int = 1000) -> NDArray[np.uint8]:
        command = [ffmpeg, "-v", "error", "-i", path, "-map", "0:v:0", "-fps_mode", "passthrough"]
        command += ["-frames:v", str(max_frames)]
        done = subprocess.run(
            [*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, check=False, timeout=60
        )
        return np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)

    return decode


def read_until_error(reader: VideoReader, batch_size: int = 7) -> tuple[list[tuple[int, int]], str]:
    """Returns frame indices with the numbers that the frames show, and what the ReadError said that ended it."""
    frames: list[tuple[int, int]] = []
    try:
        with reader:
            for batch in reader.batches(np.arange(reader.info.num_frames), batch_size):
                frames += zip(batch.frame_indices.tolist(), map(read_number, batch.data.numpy()), strict=True)
    except ReadError as error:
        return frames, str(error)
    return frames, ""
