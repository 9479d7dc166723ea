"""A Triton kernel from decoded frames to a network's input: one step, which reads each pixel once when it scales down.

`preprocess.letterbox_frames` computes the same values in torch, to the bit, and says how OpenCV's arithmetic works.
"""

# Triton compiles the functions below from their source, and fixes the types of their arguments at each call.
# ruff: noqa: ANN001, ANN202, N803
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl

from prelabel.data.boxes import Letterbox
from prelabel.data.surfaces import P010_SHIFT, Orientation, Surfaces
from prelabel.models.detectors.bilinear import bilinear_taps
from prelabel.models.detectors.host import PAD_VALUE

_BLOCK = 512  # pixels of the input per program


def letterbox_in_kernel(
    frames: torch.Tensor | Surfaces, box: Letterbox, dtype: torch.dtype, *, channels_last: bool
) -> torch.Tensor:
    """Returns frames scaled and padded: (N, 3, box.height, box.width), or (N, box.height, box.width, 3).

    Args:
        frames: on a GPU: uint8 RGB (N, H, W, 3), or surfaces.
        box: letterbox made for H and W.
        dtype: of the result: 0..255 for uint8, otherwise 0..1.
        channels_last: whether channels are the last dimension.
    """
    num, _, _, channels = frames.shape
    if isinstance(frames, Surfaces):
        source, (height, width) = frames.planes.contiguous(), frames.stored_size
        orientation, matrix = frames.orientation, tuple(frames.matrix)
        strides = ((width, 1), (width, 2))  # of brightness and of colours, which follow after all rows of brightness
        chroma, shift = height * width, P010_SHIFT if frames.is_p010 else 0
    else:
        source, (height, width) = frames.contiguous(), frames.shape[1:3]
        orientation, matrix = Orientation(), ()
        strides = ((width * channels, channels), (0, 0))
        chroma, shift = 0, 0
    rows, columns = _offsets(height, width, strides, orientation, box, source.device)
    shape = (num, box.height, box.width, channels) if channels_last else (num, channels, box.height, box.width)
    target = torch.empty(shape, dtype=dtype, device=source.device)
    num_pixels = box.height * box.width
    with torch.cuda.device_of(source):  # Triton launches on the current device
        _letterbox[(triton.cdiv(num_pixels, _BLOCK), num)](
            source,
            target,
            rows,
            columns,
            source[0].numel(),
            chroma,
            box.width,
            num_pixels,
            channels if channels_last else 1,
            1 if channels_last else num_pixels,
            MATRIX=matrix,
            SHIFT=shift,
            PAD_VALUE=PAD_VALUE,
            DIVISOR=1 if dtype == torch.uint8 else 255,
            BLOCK=_BLOCK,
        )
    return target


@lru_cache(maxsize=64)  # without the cache, every batch would copy them to the GPU, and the thread would wait
def _offsets(
    height: int,
    width: int,
    strides: tuple[tuple[int, int], tuple[int, int]],
    orientation: Orientation,
    box: Letterbox,
    device: torch.device,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns what each row and each column of the input reads, int32 (6, box.height) and (6, box.width).

    For both pixels that it blends: the offset of its brightness (or of its RGB), that of its colours, and the weight.
    An offset in the source is the sum of a row's and a column's, so rotation and mirrors are in the tables. The first
    value is -1 in the padding.

    Args:
        height: of a frame as stored, in pixels.
        width: of a frame as stored, in pixels.
        strides: from row to row and from column to column of stored brightness; then of colours.
        orientation: how a stored frame is shown.
        box: letterbox made for the displayed frame.
        device: where the tables are needed.
    """
    shown_width, shown_height = orientation.displayed_size(width, height)
    (row, column), (color_row, color_column) = strides
    if orientation.transpose:
        row, column, color_row, color_column = column, row, color_column, color_row
    rows = _axis(shown_height, box.scaled_height, row, color_row, mirror=orientation.mirror_y, is_row=True)
    columns = _axis(shown_width, box.scaled_width, column, color_column, mirror=orientation.mirror_x, is_row=False)
    bottom, right = box.height - box.top - box.scaled_height, box.width - box.left - box.scaled_width
    pad = torch.nn.functional.pad
    return pad(rows, (box.top, bottom), value=-1).to(device), pad(columns, (box.left, right), value=-1).to(device)


def _axis(num_in: int, num_out: int, stride: int, color_stride: int, *, mirror: bool, is_row: bool) -> torch.Tensor:
    first, second, *weights = bilinear_taps(num_in, num_out, torch.device("cpu"), edge_is_one_pixel=not is_row)
    if mirror:
        first, second = num_in - 1 - first, num_in - 1 - second
    colors = [first // 2 * color_stride, second // 2 * color_stride]
    return torch.stack([first * stride, second * stride, *colors, *weights]).int()


@triton.jit
def _letterbox(
    source,
    target,
    rows,
    columns,
    frame_stride,
    chroma,
    width,
    num_pixels,
    pixel_stride,
    channel_stride,
    MATRIX: tl.constexpr,
    SHIFT: tl.constexpr,
    PAD_VALUE: tl.constexpr,
    DIVISOR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    number = tl.program_id(1).to(tl.int64)  # a batch may have more than 2**31 bytes
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_pixel = pixel < num_pixels
    height = num_pixels // width
    row, column = rows + pixel // width, columns + pixel % width
    above, below = tl.load(row, is_pixel, -1), tl.load(row + height, is_pixel, -1)
    left, right = tl.load(column, is_pixel, -1), tl.load(column + width, is_pixel, -1)
    is_frame = (above >= 0) & (left >= 0)
    color_above = chroma + tl.load(row + 2 * height, is_pixel, 0)
    color_below = chroma + tl.load(row + 3 * height, is_pixel, 0)
    color_left, color_right = tl.load(column + 2 * width, is_pixel, 0), tl.load(column + 3 * width, is_pixel, 0)
    above_weight, below_weight = tl.load(row + 4 * height, is_pixel, 0), tl.load(row + 5 * height, is_pixel, 0)
    left_weight, right_weight = tl.load(column + 4 * width, is_pixel, 0), tl.load(column + 5 * width, is_pixel, 0)

    frame = source + number * frame_stride
    red_1, green_1, blue_1 = _read(frame, above + left, color_above + color_left, is_frame, MATRIX, SHIFT)
    red_2, green_2, blue_2 = _read(frame, above + right, color_above + color_right, is_frame, MATRIX, SHIFT)
    red_3, green_3, blue_3 = _read(frame, below + left, color_below + color_left, is_frame, MATRIX, SHIFT)
    red_4, green_4, blue_4 = _read(frame, below + right, color_below + color_right, is_frame, MATRIX, SHIFT)
    red = _blend(red_1, red_2, red_3, red_4, left_weight, right_weight, above_weight, below_weight)
    green = _blend(green_1, green_2, green_3, green_4, left_weight, right_weight, above_weight, below_weight)
    blue = _blend(blue_1, blue_2, blue_3, blue_4, left_weight, right_weight, above_weight, below_weight)

    place = target + number * 3 * num_pixels + pixel * pixel_stride
    _write(place, tl.where(is_frame, red, PAD_VALUE), is_pixel, DIVISOR)
    _write(place + channel_stride, tl.where(is_frame, green, PAD_VALUE), is_pixel, DIVISOR)
    _write(place + 2 * channel_stride, tl.where(is_frame, blue, PAD_VALUE), is_pixel, DIVISOR)


@triton.jit
def _read(frame, pixel, color, mask, MATRIX: tl.constexpr, SHIFT: tl.constexpr):
    """Returns red, green and blue of a pixel, int32, 0..255."""
    if len(MATRIX) == 0:
        red = tl.load(frame + pixel, mask, 0).to(tl.int32)
        green = tl.load(frame + pixel + 1, mask, 0).to(tl.int32)
        blue = tl.load(frame + pixel + 2, mask, 0).to(tl.int32)
    else:
        bits, black, neutral, brightness, red_cr, green_cb, green_cr, blue_cb = MATRIX
        y = ((tl.load(frame + pixel, mask, 0).to(tl.int32) >> SHIFT) - black) * brightness >> bits
        cb = (tl.load(frame + color, mask, 0).to(tl.int32) >> SHIFT) - neutral
        cr = (tl.load(frame + color + 1, mask, 0).to(tl.int32) >> SHIFT) - neutral
        red = _clamp(y + (cr * red_cr >> bits))
        green = _clamp(y + (cb * green_cb >> bits) + (cr * green_cr >> bits))
        blue = _clamp(y + (cb * blue_cb >> bits))
    return red, green, blue


@triton.jit
def _clamp(value):
    return tl.minimum(tl.maximum(value, 0), 255)


@triton.jit
def _blend(above_left, above_right, below_left, below_right, left_weight, right_weight, above_weight, below_weight):
    above = ((above_left * left_weight + above_right * right_weight) >> 4) * above_weight
    below = ((below_left * left_weight + below_right * right_weight) >> 4) * below_weight
    return ((above >> 16) + (below >> 16) + 2) >> 2


@triton.jit
def _write(place, value, mask, DIVISOR: tl.constexpr):
    if DIVISOR != 1:
        value = tl.math.div_rn(value.to(tl.float32), DIVISOR)  # `/` is not rounded as torch's is
    tl.store(place, value.to(place.dtype.element_ty), mask)
