"""What Ultralytics' heads tell beyond boxes: masks, turned boxes and poses, equal to those of its `predict`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from prelabel.data.boxes import Letterbox
from prelabel.data.geometry import Keypoints, RotatedBox
from prelabel.models.detectors.nms import Rule
from prelabel.models.detectors.rows import PixelWindow, masks_on_host, pad_rows

Rows = NDArray[np.float32]
"""Of one frame, (n, 6 or more), boxes in its pixels; then the columns that the head gives besides."""

_PROTOTYPE_STRIDE = 4  # a prototype's pixel is so many of the network's input


def suppress_turned(prediction: torch.Tensor, num_classes: int, rule: Rule) -> torch.Tensor:
    """Returns the turned boxes that are kept, by Ultralytics' own NMS on one image after the other.

    Args:
        prediction: (N, 4 + num_classes + 1, A): centre x, centre y, width, height, confidences by class, angle.
        num_classes: in the prediction.
        rule: what is kept.

    Returns:
        (N, max_det, 7): centre x, centre y, width, height, confidence, class id, angle in radians, the surest first.
    """
    from ultralytics.utils.nms import non_max_suppression

    kept = non_max_suppression(
        prediction.float(),
        rule.conf,
        rule.iou,
        classes=None if rule.class_ids is None else rule.class_ids.tolist(),
        agnostic=rule.agnostic,
        max_det=rule.max_det,
        nc=num_classes,
        rotated=True,
        max_time_img=math.inf,  # past it, images would come back empty, with a line in the log
    )
    return pad_rows(kept, rule.max_det)


def turned_from_letterbox(table: torch.Tensor, box: Letterbox, height: int, width: int) -> torch.Tensor:
    """Returns rows of turned boxes of a letterboxed input in pixels of the frame.

    Args:
        table: (..., 7), as `suppress_turned` gives it.
        box: as given to `letterbox_frames`.
        height: pixels of the frame.
        width: pixels of the frame.
    """
    scale_x, scale_y = box.scaled_width / width, box.scaled_height / height
    table = table.clone()
    table[..., 0:2] -= table.new_tensor([box.left, box.top])
    table[..., 0:4] /= table.new_tensor([scale_x, scale_y, scale_x, scale_y])
    return table


def upright_table(table: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Returns a table of the upright boxes around turned ones, cut to the frame; from the seventh column on the latter.

    Args:
        table: (N, K, 7): centre x, centre y, width, height, confidence, class id, angle in radians; on the host.
        height: pixels of the frame.
        width: pixels of the frame.
    """
    centre, sides, angle = table[..., :2], table[..., 2:4], table[..., 6:7]
    across, down = np.abs(np.cos(angle)), np.abs(np.sin(angle))
    reach = (sides * across + sides[..., ::-1] * down) / 2
    corners = np.concatenate([centre - reach, centre + reach], axis=-1)
    corners = corners.clip(0, np.array([width, height, width, height], np.float32))
    corners[(sides <= 0).any(axis=-1)] = 0  # untrained heads give such: boxes of no area are left out
    return np.concatenate([corners, table[..., 4:6], centre, sides, np.rad2deg(angle)], axis=-1).astype(np.float32)


def read_turned(rows: Rows) -> NDArray[np.object_]:
    """Returns the turned boxes of one frame's rows, object (n,), from columns as `upright_table` gives them."""
    column = np.full(len(rows), None, object)
    for row, values in enumerate(rows[:, 6:11].astype(np.float64).tolist()):
        column[row] = RotatedBox(*values)
    return column


def read_keypoints(rows: Rows, num_values: int, box: Letterbox, height: int, width: int) -> NDArray[np.object_]:
    """Returns the keypoints of one frame's rows, object (n,), in its pixels and cut to it.

    Args:
        rows: of which the columns from the seventh on are points, in pixels of the network's input.
        num_values: numbers a point: x, y and, of most heads, how sure it is; of others a point counts as seen.
        box: as given to `letterbox_frames`.
        height: pixels of the frame.
        width: pixels of the frame.
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
    """Returns the masks of each frame's rows, object (n,); None of one that sets no pixel.

    They are those of Ultralytics' `process_mask_native` (`predict` with `retina_masks`): prototypes, weighted by the
    columns from the seventh on, scaled up to the frame and cut to the box. Only the boxes' own pixels are computed, and
    all of a batch's come to the host in one copy.

    Args:
        frames: rows of each frame.
        prototypes: (N, C, h, w).
        height: pixels of the frames.
        width: pixels of the frames.
    """
    return masks_on_host(
        [list(_windows(rows, basis, height, width)) for rows, basis in zip(frames, prototypes, strict=True)]
    )


def _windows(rows: Rows, basis: torch.Tensor, height: int, width: int) -> Iterator[PixelWindow]:
    """Yields which pixels of each row's box are set: those whose left upper corner lies in it."""
    if not len(rows):
        return
    num, *size = basis.shape
    down, across = _scalings(tuple(size), (height, width), basis.device)
    weights = torch.from_numpy(np.ascontiguousarray(rows[:, 6:])).to(basis.device, non_blocking=True)
    small = (weights @ basis.float().reshape(num, -1)).reshape(-1, *size)
    for mask, (x1, y1, x2, y2) in zip(small, np.ceil(rows[:, :4]).astype(np.int64).tolist(), strict=True):
        yield PixelWindow(x1, y1, down[y1:y2] @ mask @ across[x1:x2].T > 0)


@lru_cache(maxsize=16)  # frames of few sizes come again and again
def _scalings(size: tuple[int, int], frame: tuple[int, int], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns matrices (H, h) and (W, w), which scale a prototype of a letterboxed input up to the frame.

    Ultralytics scales up bilinearly, cuts the padding off, and scales again; along one side each step is linear.

    Args:
        size: height and width of the prototypes.
        frame: height and width of the frame in pixels.
        device: of the result.
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
