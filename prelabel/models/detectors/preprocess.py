"""Turns frames into a network's input, with the same pixels as Ultralytics' `predict`."""

from __future__ import annotations

import logging
from functools import cache

import torch

from prelabel.data.boxes import Letterbox
from prelabel.data.surfaces import Surfaces
from prelabel.models.detectors.bilinear import bilinear_taps
from prelabel.models.detectors.host import PAD_VALUE, resize_pixels

_GREY_WEIGHTS, _GREY_BITS = (9798, 19235, 3735), 15  # OpenCV's RY15, GY15, BY15 (imgproc/src/color.simd_helpers.hpp)
_log = logging.getLogger(__name__)


def letterbox_frames(
    frames: torch.Tensor | Surfaces, box: Letterbox, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Returns frames scaled and padded as network input: (N, C, box.height, box.width), 0..1, on the same device.

    Args:
        frames: uint8 (N, H, W, C), or surfaces of RGB frames.
        box: letterbox made for H and W.
        dtype: type of the result; for uint8, the result is (N, box.height, box.width, C), 0..255.
    """
    if dtype != torch.uint8 and _fits_kernel(frames):
        from prelabel.models.detectors.letterbox_kernel import letterbox_in_kernel

        return letterbox_in_kernel(frames, box, dtype, channels_last=False)
    return _as_input(pad_frames(frames, box), dtype)


def pad_frames(frames: torch.Tensor | Surfaces, box: Letterbox) -> torch.Tensor:
    """Returns frames scaled and padded, uint8 (N, box.height, box.width, C), on the same device.

    Args:
        frames: uint8 (N, H, W, C), or surfaces of RGB frames.
        box: letterbox made for H and W.
    """
    if _fits_kernel(frames):
        from prelabel.models.detectors.letterbox_kernel import letterbox_in_kernel

        return letterbox_in_kernel(frames, box, torch.uint8, channels_last=True)
    return _pad_in_torch(frames, box)


def _pad_in_torch(frames: torch.Tensor | Surfaces, box: Letterbox) -> torch.Tensor:
    if (box.scaled_height, box.scaled_width) == (box.height, box.width):
        return resize_frames(frames, box.height, box.width)
    shape = (len(frames), box.height, box.width, frames.shape[3])
    pixels = torch.full(shape, PAD_VALUE, dtype=torch.uint8, device=frames.device)
    rows, columns = slice(box.top, box.top + box.scaled_height), slice(box.left, box.left + box.scaled_width)
    pixels[:, rows, columns] = resize_frames(frames, box.scaled_height, box.scaled_width)
    return pixels


def stretch_frames(
    frames: torch.Tensor | Surfaces, height: int, width: int, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Returns frames stretched to network input: (N, C, height, width), 0..1, on the same device.

    The aspect ratio is not preserved.

    Args:
        frames: uint8 (N, H, W, C), or surfaces of RGB frames.
        height: height of the result, in pixels.
        width: width of the result, in pixels.
        dtype: type of the result; for uint8, the result is (N, height, width, C), 0..255.
    """
    return letterbox_frames(frames, Letterbox(height, width, height, width, top=0, left=0), dtype)


def boxes_from_fractions(table: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Returns a table (..., 6 or more) with its boxes converted from fractions of the frame to pixels."""
    corners = torch.stack([table[..., 0:4:2] * width, table[..., 1:4:2] * height], dim=-1).flatten(-2)
    return torch.cat([corners, table[..., 4:]], dim=-1)


def grey_frames(frames: torch.Tensor) -> torch.Tensor:
    """Converts RGB frames, uint8 (N, H, W, 3), to grey, (N, H, W, 1), bit for bit like `cv2.cvtColor`."""
    red, green, blue = (frames[..., channel].int() * weight for channel, weight in enumerate(_GREY_WEIGHTS))
    half = 1 << (_GREY_BITS - 1)
    return ((red + green + blue + half) >> _GREY_BITS).to(torch.uint8)[..., None]


def resize_frames(frames: torch.Tensor | Surfaces, height: int, width: int) -> torch.Tensor:
    """Returns frames scaled like OpenCV's INTER_LINEAR, uint8 (N, height, width, C), on their device.

    Ultralytics trains and predicts on OpenCV's pixels. If they differ by one level of 255, confidences change by
    several hundredths. So every device returns OpenCV's pixels bit for bit; `torch.nn.functional.interpolate` does not.

    Args:
        frames: uint8 (N, H, W, C), or surfaces of RGB frames.
        height: height of the result, in pixels.
        width: width of the result, in pixels.
    """
    if isinstance(frames, Surfaces):
        return resize_in_integers(frames, height, width)
    if frames.shape[1:3] == (height, width):
        return frames
    if frames.device.type == "cpu":
        return torch.from_numpy(resize_pixels(frames.numpy(), height, width))
    return resize_in_integers(frames, height, width)


def resize_smoothly(frames: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Returns frames scaled like Pillow's BILINEAR, uint8 (N, height, width, C): each pixel is a mean of all it covers.

    Args:
        frames: uint8 (N, H, W, C).
        height: height of the result, in pixels.
        width: width of the result, in pixels.
    """
    pixels = frames.permute(0, 3, 1, 2)
    if frames.device.type != "cpu":  # torch 2.15 scales uint8 on the CPU only
        pixels = pixels.float()
    pixels = torch.nn.functional.interpolate(pixels, (height, width), mode="bilinear", antialias=True)
    if pixels.is_floating_point():
        pixels = pixels.round_().clamp_(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1)


def resize_in_integers(frames: torch.Tensor | Surfaces, height: int, width: int) -> torch.Tensor:
    """Returns the result of `cv2.resize` with INTER_LINEAR, bit for bit, on any device.

    OpenCV computes with integers here. Weights have 11 bits. The sum along a row is shifted right by 4 bits, its
    product with a column's weight by 16, and the sum of both rows by 2. A scale of exactly one half is the mean of four
    pixels. Source: OpenCV 4, imgproc/src/resize.cpp, HResizeLinear and VResizeLinear for uchar.

    Args:
        frames: uint8 (N, H, W, C), or surfaces of RGB frames, of which only the pixels that are needed become RGB.
        height: height of the result, in pixels.
        width: width of the result, in pixels.
    """
    num, frame_height, frame_width, channels = frames.shape
    if isinstance(frames, torch.Tensor) and (frame_height, frame_width) == (2 * height, 2 * width):
        blocks = frames.reshape(num, height, 2, width, 2, channels)
        return ((blocks.sum(dim=(2, 4), dtype=torch.int16) + 2) >> 2).to(torch.uint8)
    left, right, left_weight, right_weight = bilinear_taps(frame_width, width, frames.device, edge_is_one_pixel=True)
    above, below, above_weight, below_weight = bilinear_taps(
        frame_height, height, frames.device, edge_is_one_pixel=False
    )

    def pixels(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        if isinstance(frames, Surfaces):
            return frames.pixels(rows, columns)
        return frames.index_select(1, rows).index_select(2, columns)

    def blend_columns(rows: torch.Tensor) -> torch.Tensor:
        first, second = pixels(rows, left), pixels(rows, right)
        return (first * left_weight[:, None] + second * right_weight[:, None]) >> 4

    first = (blend_columns(above) * above_weight[:, None, None]) >> 16
    second = (blend_columns(below) * below_weight[:, None, None]) >> 16
    return ((first + second + 2) >> 2).to(torch.uint8)


def _as_input(pixels: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if dtype == torch.uint8:  # the engine divides by 255
        return pixels
    channels_first = pixels.permute(0, 3, 1, 2)
    if pixels.device.type != "cpu":  # CPU networks use the channels-last format, which these pixels already have
        channels_first = channels_first.contiguous()
    return channels_first.to(dtype).div_(255)


def _fits_kernel(frames: torch.Tensor | Surfaces) -> bool:
    return frames.device.type == "cuda" and frames.shape[3] == 3 and is_kernel_right(frames.device)


@cache
def is_kernel_right(device: torch.device) -> bool:
    """Returns whether the Triton kernel runs on a device and gives torch's pixels there. It is tried once, on noise."""
    try:
        from prelabel.models.detectors.letterbox_kernel import letterbox_in_kernel

        box = Letterbox.fit(60, 90, 64)
        samples = torch.arange(2 * 90 * 90, device=device) * 7919 % 251
        surfaces = Surfaces(samples.to(torch.uint8).view(2, 90, 90), "bt709", is_full_range=False)
        for frames in (surfaces, surfaces.rgb()):
            expected = _as_input(_pad_in_torch(frames, box), torch.float16)
            if not torch.equal(letterbox_in_kernel(frames, box, torch.float16, channels_last=False), expected):
                raise ValueError("its pixels differ from torch's")
    except Exception as error:  # compiling can fail in many ways; torch does the same, slower
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        _log.warning("the Triton kernel for the network's input is not used on %s: %s", device, reason)
        return False
    return True
