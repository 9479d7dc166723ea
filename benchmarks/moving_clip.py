"""A clip for benchmarks that have no footage: a noisy picture that moves, so that no frame is free to decode."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

FPS = 30
KEYFRAME_EVERY = 60
_MARGIN = 64


def write_moving_clip(path: Path, height: int, num_frames: int, seed: int = 0) -> Path:
    """Writes H.264 of 16:9, 4:2:0, with B-frames, and returns where."""
    width = round(height * 16 / 9 / 2) * 2
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, ((height + _MARGIN) // 16 + 1, (width + _MARGIN) // 16 + 1, 3), dtype=np.int16)
    picture = coarse.repeat(16, axis=0).repeat(16, axis=1)[: height + _MARGIN, : width + _MARGIN]
    picture = (picture + rng.normal(0, 8, picture.shape)).clip(0, 255).astype(np.uint8)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "g": str(KEYFRAME_EVERY)})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = Fraction(1, FPS)
        for number in range(num_frames):
            across = round(_MARGIN / 2 * (1 + np.sin(number / 20)))
            down = round(_MARGIN / 2 * (1 + np.cos(number / 30)))
            view = np.ascontiguousarray(picture[down : down + height, across : across + width])
            output.mux(stream.encode(av.VideoFrame.from_ndarray(view, format="rgb24")))
        output.mux(stream.encode())
    return path
