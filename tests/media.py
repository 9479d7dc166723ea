"""Small videos whose every frame carries its number, in each of the shapes that break decoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

ROWS, COLUMNS = 3, 4  # twelve bits: numbers below 4096


def draw_number(number: int, width: int = 96, height: int = 64) -> NDArray[np.uint8]:
    """Returns a picture (H, W, 3) that shows `number` as twelve dark or bright blocks, on colours that differ."""
    y, x = np.mgrid[:height, :width]
    bit = (y * ROWS // height) * COLUMNS + x * COLUMNS // width
    bright = (number >> bit) & 1
    base = np.where(bright, 190, 40)
    tint = np.stack([x * 50 // width, y * 50 // height, (x + y + number * 7) % 50], axis=-1)
    return (base[..., None] + tint - 20).clip(0, 255).astype(np.uint8)


def read_number(frame: NDArray[np.uint8]) -> int:
    """Returns the number that a decoded picture (H, W, 3) shows."""
    height, width = frame.shape[:2]
    grey = frame.astype(np.float32).mean(axis=2)
    number = 0
    for bit in range(ROWS * COLUMNS):
        row, column = divmod(bit, COLUMNS)
        top, left = height * (4 * row + 1) // (4 * ROWS), width * (4 * column + 1) // (4 * COLUMNS)
        bottom, right = height * (4 * row + 3) // (4 * ROWS), width * (4 * column + 3) // (4 * COLUMNS)
        number |= int(grey[top:bottom, left:right].mean() > 120) << bit
    return number


X264 = {"preset": "veryfast", "g": "12", "bf": "2", "qp": "14", "threads": "1"}
X265 = {"preset": "ultrafast", "x265-params": "keyint=12:min-keyint=12:bframes=2:qp=14:pools=1:log-level=none"}


@dataclass(frozen=True)
class Recipe:
    """How to write a clip; what is left out is a plain H.264 mp4 with B-frames and a GOP of 12."""

    suffix: str = ".mp4"
    codec: str = "libx264"
    options: dict[str, str] = field(default_factory=lambda: dict(X264))
    pix_fmt: str = "yuv420p"
    num_frames: int = 30
    width: int = 96
    height: int = 64
    pts: Sequence[int] | None = None  # in units of 1/30 s
    rotation: int = 0  # clockwise degrees that the file asks for
    hflip: bool = False
    format: str | None = None
    muxer: dict[str, str] = field(default_factory=dict)
    full_range: bool = False
    colorspace: int | None = None
    faster_from: int | None = None


def write_clip(folder: Path, name: str, recipe: Recipe | None = None) -> Path:
    """Writes frames 0, 1, 2 ... as they are to be seen when displayed, and returns the file."""
    recipe = recipe or Recipe()
    path = folder / f"{name}{recipe.suffix}"
    turned = recipe.rotation % 180 == 90
    with av.open(path, "w", format=recipe.format, options=recipe.muxer) as container:
        stream = container.add_stream(recipe.codec, rate=30, options=recipe.options)
        stream.width, stream.height = (recipe.height, recipe.width) if turned else (recipe.width, recipe.height)
        stream.pix_fmt = recipe.pix_fmt
        stream.codec_context.time_base = Fraction(1, 30)
        if recipe.full_range:
            stream.codec_context.color_range = 2
        if recipe.colorspace is not None:
            stream.codec_context.colorspace = recipe.colorspace
        if recipe.rotation or recipe.hflip:
            stream.set_display_rotation(-recipe.rotation, hflip=recipe.hflip)
        for number in range(recipe.num_frames):
            frame = _encoded_frame(draw_number(number, recipe.width, recipe.height), recipe)
            frame.pts = recipe.pts[number] if recipe.pts else number
            frame.time_base = Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _encoded_frame(displayed: NDArray[np.uint8], recipe: Recipe) -> av.VideoFrame:
    picture = np.ascontiguousarray(np.rot90(displayed[:, ::-1] if recipe.hflip else displayed, recipe.rotation // 90))
    return av.VideoFrame.from_ndarray(picture, "rgb24").reformat(
        format=recipe.pix_fmt,
        dst_colorspace=recipe.colorspace,
        dst_color_range=2 if recipe.full_range else 1,
    )
