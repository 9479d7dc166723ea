"""How many frames a batch should have: as many as make a frame cheaper, and as fit."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch

from prelabel.data.boxes import Letterbox
from prelabel.data.frames import FrameBatch
from prelabel.errors import DeviceMemoryError

PAD_VALUE = 114  # Ultralytics' LetterBox: the grey that its networks were trained to see as border

_WEIGHT_ONE = 2048  # OpenCV's INTER_RESIZE_COEF_SCALE: weights are whole numbers of 1 / 2048


def letterbox_frames(frames: torch.Tensor, box: Letterbox, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Returns frames scaled and padded into a network's input: (N, 3, box.height, box.width), RGB, 0..1, same device.

    Args:
        frames: uint8 (N, H, W, 3), RGB.
        box: made for H and W.
        dtype: of the result.
    """
    pixels = frames.new_full((len(frames), box.height, box.width, 3), PAD_VALUE)
    rows, columns = slice(box.top, box.top + box.scaled_height), slice(box.left, box.left + box.scaled_width)
    pixels[:, rows, columns] = resize_frames(frames, box.scaled_height, box.scaled_width)
    return _as_input(pixels, dtype)


def stretch_frames(frames: torch.Tensor, height: int, width: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Returns frames scaled to `height` x `width` whatever their aspect: (N, 3, height, width), RGB, 0..1, same device.

    Args:
        frames: uint8 (N, H, W, 3), RGB.
        height: pixels.
        width: pixels.
        dtype: of the result.
    """
    return _as_input(resize_frames(frames, height, width), dtype)


def table_from_letterbox(table: torch.Tensor, box: Letterbox, height: int, width: int) -> torch.Tensor:
    """Returns rows with boxes of a letterboxed input in pixels of the frame, cut to it.

    Args:
        table: (..., 4 or more): corners in pixels of the input first.
        box: as given to `letterbox_frames`.
        height: pixels of the frame.
        width: pixels of the frame.

    >>> box = Letterbox.fit(1080, 1920, 640)
    >>> table_from_letterbox(torch.tensor([[0.0, 12.0, 320.0, 192.0]]), box, 1080, 1920).tolist()
    [[0.0, 0.0, 960.0, 540.0]]
    """
    x = (table[..., 0:4:2] - box.left) / (box.scaled_width / width)
    y = (table[..., 1:4:2] - box.top) / (box.scaled_height / height)
    corners = torch.stack([x.clamp_(0, width), y.clamp_(0, height)], dim=-1).flatten(-2)
    return torch.cat([corners, table[..., 4:]], dim=-1)


def scale_table(table: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Returns rows (..., 6 or more) with boxes in fractions of the frame in its pixels."""
    corners = torch.stack([table[..., 0:4:2] * width, table[..., 1:4:2] * height], dim=-1).flatten(-2)
    return torch.cat([corners, table[..., 4:]], dim=-1)


def resize_frames(frames: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Returns frames scaled as OpenCV's INTER_LINEAR scales them, uint8 (N, height, width, 3), on their device.

    A network's confidences move by several hundredths when pixels differ by one level of 255, so on every device each
    pixel is OpenCV's.

    Args:
        frames: uint8 (N, H, W, 3).
        height: pixels.
        width: pixels.
    """
    if frames.shape[1:3] == (height, width):
        return frames
    if frames.device.type == "cpu":
        return _resize_with_opencv(frames, height, width)
    return resize_in_whole_numbers(frames, height, width)


def resize_in_whole_numbers(frames: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Returns what `cv2.resize` with INTER_LINEAR returns, bit for bit, on any device.

    Its arithmetic (OpenCV 4, imgproc/src/resize.cpp, HResizeLinear and VResizeLinear for uchar): weights of 11 bits,
    sums shifted down by 4, 16 and 2 bits; a scale of exactly one half is a mean of four pixels.

    Args:
        frames: uint8 (N, H, W, 3).
        height: pixels.
        width: pixels.
    """
    num, frame_height, frame_width, _ = frames.shape
    if (frame_height, frame_width) == (2 * height, 2 * width):
        blocks = frames.reshape(num, height, 2, width, 2, 3)
        return ((blocks.sum(dim=(2, 4), dtype=torch.int16) + 2) >> 2).to(torch.uint8)
    left, right, left_weight, right_weight = _taps(frame_width, width, frames.device, edge_is_one_pixel=True)
    above, below, above_weight, below_weight = _taps(frame_height, height, frames.device, edge_is_one_pixel=False)

    def blend_columns(rows: torch.Tensor) -> torch.Tensor:
        lines = frames.index_select(1, rows)
        first, second = lines.index_select(2, left), lines.index_select(2, right)
        return (first * left_weight[:, None] + second * right_weight[:, None]) >> 4

    first = (blend_columns(above) * above_weight[:, None, None]) >> 16
    second = (blend_columns(below) * below_weight[:, None, None]) >> 16
    return ((first + second + 2) >> 2).to(torch.uint8)


@lru_cache(maxsize=64)  # made anew, they would be copied to the GPU for every batch, and wait for it
def _taps(
    num_in: int, num_out: int, device: torch.device, *, edge_is_one_pixel: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns for each pixel of the result the indices and the int32 weights of the two that it is made of."""
    position = ((torch.arange(num_out, dtype=torch.float64) + 0.5) * (num_in / num_out) - 0.5).float()
    first = position.floor()
    fraction = position - first
    if edge_is_one_pixel:
        fraction[(first < 0) | (first >= num_in - 1)] = 0
    indices = [index.long().clamp(0, num_in - 1).to(device) for index in (first, first + 1)]
    weights = [(weight * _WEIGHT_ONE).round().int().to(device) for weight in (1 - fraction, fraction)]
    return indices[0], indices[1], weights[0], weights[1]


def _resize_with_opencv(frames: torch.Tensor, height: int, width: int) -> torch.Tensor:
    import cv2

    scaled = np.empty((len(frames), height, width, 3), np.uint8)
    for frame, target in zip(frames.contiguous().numpy(), scaled, strict=True):
        cv2.resize(frame, (width, height), dst=target, interpolation=cv2.INTER_LINEAR)
    return torch.from_numpy(scaled)


def _as_input(pixels: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    channels_first = pixels.permute(0, 3, 1, 2)
    if pixels.device.type != "cpu":  # on a CPU the networks are laid out channels last, as pixels are
        channels_first = channels_first.contiguous()
    return channels_first.to(dtype).div_(255)


SMALLEST, LARGEST = 8, 32
LEAST_GAIN = 1.05
"""A batch twice as large must be quicker, a frame, by this much; larger ones only hold frames back."""
_REPEATS = 3


def fit_batch_size(seconds_of: Callable[[int], float], smallest: int = SMALLEST, largest: int = LARGEST) -> int:
    """Returns the batch size, doubling it for as long as that pays.

    Args:
        seconds_of: how long a batch of so many frames takes.
        smallest: to begin with.
        largest: to end with.

    >>> fit_batch_size(lambda size: 1 + size / 16)  # a start-up of as much as 16 frames
    32
    >>> fit_batch_size(lambda size: float(size))
    8
    """
    best, best_rate, size = smallest, 0.0, smallest
    while size <= largest:
        try:
            rate = size / seconds_of(size)
        except DeviceMemoryError:
            return best
        if rate < LEAST_GAIN * best_rate:
            return best
        best, best_rate = size, rate
        size *= 2
    return best


def time_batch(
    start: Callable[[FrameBatch], Callable[[], object]], height: int, width: int, device: torch.device, num_frames: int
) -> float:
    """Returns how many seconds a batch of blank frames takes on a device, one begun while the last is awaited."""
    data = torch.zeros((num_frames, height, width, 3), dtype=torch.uint8, device=device)
    numbers = np.arange(num_frames)
    batch = FrameBatch(data, numbers, numbers / 25.0)
    start(batch)()  # kernels are chosen and memory is taken on the first
    began = time.perf_counter()
    awaited = start(batch)
    for _ in range(_REPEATS - 1):
        begun = start(batch)
        awaited()
        awaited = begun
    awaited()
    return (time.perf_counter() - began) / _REPEATS
