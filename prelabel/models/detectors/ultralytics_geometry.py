"""Masks, rotated boxes and keypoints of Ultralytics' heads, equal to those of its `predict`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from prelabel.data.boxes import Letterbox
from prelabel.data.geometry import Keypoints, RotatedBox
from prelabel.models.detectors.host import NmsConfig, Rows
from prelabel.models.detectors.postprocess import PixelWindow, masks_of_windows, table_of_frames

_PROTOTYPE_STRIDE = 4  # pixels of the network's input per pixel of a mask prototype


def nms_rotated(prediction: torch.Tensor, num_classes: int, config: NmsConfig) -> torch.Tensor:
    """Returns the rotated boxes that Ultralytics' NMS keeps, image by image. It waits for the device.

    Args:
        prediction: (N, 4 + num_classes + 1, A): centre x, centre y, width, height, confidence of each class, angle.
        num_classes: number of classes in the prediction.
        config: which boxes are kept.

    Returns:
        (N, max_det, 7): centre x, centre y, width, height, confidence, class id, angle in radians, highest confidence
        first.
    """
    from ultralytics.utils.nms import non_max_suppression

    kept = non_max_suppression(
        prediction.float(),
        config.conf,
        config.iou,
        classes=None if config.class_ids is None else list(config.class_ids),
        agnostic=config.agnostic,
        max_det=config.max_det,
        nc=num_classes,
        rotated=True,
        max_time_img=math.inf,  # after this time, NMS returns the remaining images empty and only logs a line
    )
    return table_of_frames(kept, config.max_det)


def rotated_from_letterbox(table: torch.Tensor, box: Letterbox, height: int, width: int) -> torch.Tensor:
    """Converts rotated boxes from pixels of a letterboxed input to pixels of the frame.

    Args:
        table: (..., 7), as `nms_rotated` returns it.
        box: as given to `letterbox_frames`.
        height: height of the frame, in pixels.
        width: width of the frame, in pixels.
    """
    scale_x, scale_y = box.scaled_width / width, box.scaled_height / height
    table = table.clone()
    table[..., 0:2] -= table.new_tensor([box.left, box.top])
    table[..., 0:4] /= table.new_tensor([scale_x, scale_y, scale_x, scale_y])
    return table


def upright_table(table: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Returns a table of the upright boxes around rotated boxes, clipped to the frame.

    Args:
        table: (N, K, 7): centre x, centre y, width, height, confidence, class id, angle in radians; on the host.
        height: height of the frame, in pixels.
        width: width of the frame, in pixels.

    Returns:
        (N, K, 11): a table that holds the rotated box from the seventh column on: centre x, centre y, width, height,
        angle in degrees.
    """
    centre, sides, angle = table[..., :2], table[..., 2:4], table[..., 6:7]
    across, down = np.abs(np.cos(angle)), np.abs(np.sin(angle))
    reach = (sides * across + sides[..., ::-1] * down) / 2
    corners = np.concatenate([centre - reach, centre + reach], axis=-1)
    corners = corners.clip(0, np.array([width, height, width, height], np.float32))
    corners[(sides <= 0).any(axis=-1)] = 0  # heads may output negative sides; a box without area is dropped later
    return np.concatenate([corners, table[..., 4:6], centre, sides, np.rad2deg(angle)], axis=-1).astype(np.float32)


def read_rotated(rows: Rows) -> NDArray[np.object_]:
    """Returns the rotated boxes of one frame's rows, object (n,). The rows come from an `upright_table`."""
    column = np.full(len(rows), None, object)
    for row, values in enumerate(rows[:, 6:11].astype(np.float64).tolist()):
        column[row] = RotatedBox(*values)
    return column


def read_keypoints(rows: Rows, num_values: int, box: Letterbox, height: int, width: int) -> NDArray[np.object_]:
    """Returns the keypoints of one frame's rows, object (n,), in pixels of the frame and clipped to it.

    Args:
        rows: rows with keypoints from the seventh column on, in pixels of the network's input.
        num_values: numbers per keypoint: x, y and, for most heads, a confidence. Without it, the confidence is 1.
        box: as given to `letterbox_frames`.
        height: height of the frame, in pixels.
        width: width of the frame, in pixels.
    """
    points = rows[:, 6:].reshape(len(rows), -1, num_values)
    offset = np.array([box.left, box.top], np.float32)
    scale = np.array([box.scaled_width / width, box.scaled_height / height], np.float32)
    xy = ((points[..., :2] - offset) / scale).clip(0, np.array([width, height], np.float32))
    confidence = points[..., 2].clip(0, 1) if num_values > 2 else np.ones(points.shape[:2], np.float32)
    column = np.full(len(rows), None, object)
    for row, values in enumerate(zip(xy, confidence, strict=True)):
        column[row] = Keypoints(*values)
    return column


def read_masks(frames: Sequence[Rows], prototypes: torch.Tensor, height: int, width: int) -> list[NDArray[np.object_]]:
    """Returns the masks of each frame's rows, object (n,); None for a mask without a set pixel.

    They equal those of Ultralytics' `process_mask_native` (`predict` with `retina_masks`). A mask is the sum of the
    prototypes, weighted by the columns from the seventh on, scaled up to the frame and clipped to the box. Ultralytics
    computes whole frames. This function computes only the pixels in a box, which saves most of the time.

    Args:
        frames: rows of each frame.
        prototypes: (N, C, h, w).
        height: height of the frames, in pixels.
        width: width of the frames, in pixels.
    """
    return masks_of_windows(
        [list(_windows(rows, basis, height, width)) for rows, basis in zip(frames, prototypes, strict=True)]
    )


def _windows(rows: Rows, basis: torch.Tensor, height: int, width: int) -> Iterator[PixelWindow]:
    """Yields the mask of each row: the pixels whose upper left corner is in the box."""
    if not len(rows):
        return
    num, *size = basis.shape
    down, across = _scalings(tuple(size), (height, width), basis.device)
    weights = torch.from_numpy(np.ascontiguousarray(rows[:, 6:])).to(basis.device, non_blocking=basis.is_cuda)
    small = (weights @ basis.float().reshape(num, -1)).reshape(-1, *size)
    for mask, (x1, y1, x2, y2) in zip(small, np.ceil(rows[:, :4]).astype(np.int64).tolist(), strict=True):
        yield PixelWindow(x1, y1, down[y1:y2] @ mask @ across[x1:x2].T > 0)


@lru_cache(maxsize=16)  # frames of a run have few different sizes
def _scalings(size: tuple[int, int], frame: tuple[int, int], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns matrices (H, h) and (W, w) that scale a prototype of a letterboxed input up to the frame.

    Ultralytics scales up bilinearly, removes the padding, and scales again. Each of these steps is linear in the rows
    and in the columns. So one matrix per side does all three, and it can be restricted to the rows and columns of a
    box.

    Args:
        size: height and width of the prototypes.
        frame: height and width of the frame, in pixels.
        device: device of the result.
    """
    inputs = [_PROTOTYPE_STRIDE * side for side in size]
    gain = min(inputs[0] / frame[0], inputs[1] / frame[1])
    padding = [side - max(round(length * gain), 1) for side, length in zip(inputs, frame, strict=True)]
    either = padding[0] | padding[1]
    factor = _PROTOTYPE_STRIDE // math.gcd(_PROTOTYPE_STRIDE, either | either // 2)
    gain = min(factor * size[0] / frame[0], factor * size[1] / frame[1])
    down, across = (_scaling(side, length, factor, gain).to(device) for side, length in zip(size, frame, strict=True))
    return down, across


def _scaling(side: int, length: int, factor: int, gain: float) -> torch.Tensor:
    scaled = max(round(length * gain), 1)
    begin = round((factor * side - scaled) / 2 - 0.1)
    basis = torch.eye(side)[None]
    if factor > 1:
        basis = torch.nn.functional.interpolate(basis, scale_factor=factor, mode="linear")
    basis = torch.nn.functional.interpolate(basis[..., begin : begin + scaled], size=length, mode="linear")
    return basis[0].T.contiguous()
