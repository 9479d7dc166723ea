"""A detector's work before and after its network, on arrays on the host.

Nothing here needs torch, whose import takes longer than labelling a short video.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prelabel.data.boxes import Letterbox
from prelabel.data.detections import Detections

if TYPE_CHECKING:
    import torch

Pixels = NDArray[np.uint8]
Array: TypeAlias = "NDArray[Any] | torch.Tensor"
"""An array on the host, or a tensor on any device."""
Rows = NDArray[np.float32]
"""The boxes of one frame: (n, 6 or more): x1, y1, x2, y2, confidence, class id, then columns of the head."""
Table = TypeVar("Table", bound=Any)

PAD_VALUE = 114  # grey of the border in training (Ultralytics' LetterBox)
CLASS_OFFSET = 7680.0
"""Ultralytics' `max_wh`: boxes are shifted by this times their class id, so only boxes of one class overlap."""
MAX_CANDIDATES = 30_000
"""Ultralytics' `max_nms`: the most boxes per image that NMS compares, highest confidence first."""
_BLOCK = 64  # candidates that NMS compares at once


@dataclass(frozen=True, slots=True)
class NmsConfig:
    """Decides which boxes are kept.

    Attributes:
        conf: boxes with a confidence above this are kept.
        iou: a box is dropped if it overlaps a box of its class with a higher confidence by more than this.
        max_det: the most boxes per image.
        class_ids: classes to keep; None: all classes.
        agnostic: whether boxes of different classes are compared too.
    """

    conf: float
    iou: float
    max_det: int
    class_ids: tuple[int, ...] | None = None
    agnostic: bool = False

    def accepts(self, confidence: NDArray[np.float32], class_id: NDArray[Any]) -> NDArray[np.bool_]:
        """Returns which boxes pass `conf` and `class_ids`, for arrays of the same shape."""
        passes: NDArray[np.bool_] = confidence > self.conf
        return passes if self.class_ids is None else passes & np.isin(class_id, self.class_ids)


def on_host(array: Array) -> NDArray[Any]:
    """Returns the values as an array on the host."""
    return array if isinstance(array, np.ndarray) else array.numpy(force=True)


# Before the network


def letterbox_pixels(frames: Pixels, box: Letterbox, *, smooth: bool = False) -> Pixels:
    """Returns frames scaled and padded, uint8 (N, box.height, box.width, C).

    Args:
        frames: uint8 (N, H, W, C).
        box: letterbox made for H and W.
        smooth: scale like Pillow, where each pixel is a mean of all it covers; otherwise like OpenCV.
    """
    pixels = np.full((len(frames), box.height, box.width, frames.shape[3]), PAD_VALUE, np.uint8)
    rows, columns = slice(box.top, box.top + box.scaled_height), slice(box.left, box.left + box.scaled_width)
    resize = resize_pixels_smoothly if smooth else resize_pixels
    pixels[:, rows, columns] = resize(frames, box.scaled_height, box.scaled_width)
    return pixels


def resize_pixels(frames: Pixels, height: int, width: int) -> Pixels:
    """Returns frames scaled by OpenCV's INTER_LINEAR, uint8 (N, height, width, C)."""
    if frames.shape[1:3] == (height, width):
        return frames
    import cv2

    scaled = np.empty((len(frames), height, width, frames.shape[3]), np.uint8)
    for frame, target in zip(np.ascontiguousarray(frames), scaled, strict=True):
        cv2.resize(frame, (width, height), dst=target, interpolation=cv2.INTER_LINEAR)
    return scaled


def resize_pixels_smoothly(frames: Pixels, height: int, width: int) -> Pixels:
    """Returns frames scaled by Pillow's BILINEAR, uint8 (N, height, width, C)."""
    images = (Image.fromarray(frame.squeeze(-1) if frame.shape[2] == 1 else frame) for frame in frames)
    scaled = [np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)) for image in images]
    return np.stack(scaled).reshape(len(frames), height, width, frames.shape[3])


def grey_pixels(frames: Pixels) -> Pixels:
    """Returns RGB frames, uint8 (N, H, W, 3), as grey ones, (N, H, W, 1), by OpenCV's `cvtColor`."""
    import cv2

    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])[..., None]


# After the network


def nms_rows(prediction: NDArray[np.float32], num_classes: int, config: NmsConfig) -> Rows:
    """Returns the rows of one image that NMS keeps, highest confidence first, as Ultralytics and torchvision do.

    Args:
        prediction: (4 + num_classes + E, A): centre x, centre y, width, height, confidence of each class, then E
            further values of the head.
        num_classes: number of classes in the prediction.
        config: which boxes are kept.
    """
    scores = prediction[4 : 4 + num_classes]
    candidates = np.flatnonzero(scores.max(axis=0) > config.conf)
    columns = prediction[:, candidates]
    class_id = columns[4 : 4 + num_classes].argmax(axis=0)
    confidence = columns[4 + class_id, np.arange(len(candidates))]
    centre, half = columns[:2], columns[2:4] / 2
    rows = np.concatenate([centre - half, centre + half, [confidence, class_id], columns[4 + num_classes :]]).T
    rows = rows[config.accepts(rows[:, 4], rows[:, 5])]
    rows = rows[np.argsort(-rows[:, 4], kind="stable")[:MAX_CANDIDATES]].astype(np.float32, copy=False)
    boxes = rows[:, :4] if config.agnostic else rows[:, :4] + rows[:, 5:6] * np.float32(CLASS_OFFSET)
    return rows[_suppress(boxes, config.iou, config.max_det)]


def _suppress(boxes: NDArray[np.float32], iou: float, most: int) -> NDArray[np.int64]:
    """Returns the first `most` boxes that greedy NMS keeps.

    Boxes are compared block by block: with those that are kept already, then with each other.

    Args:
        boxes: (N, 4) corners, highest confidence first.
        iou: the largest overlap of two kept boxes.
        most: number of boxes after which NMS ends.
    """
    kept = np.zeros(0, np.int64)
    for start in range(0, len(boxes), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(boxes)))
        block = block[~_overlap(boxes[kept], boxes[block], iou).any(axis=0)]
        hides = np.triu(_overlap(boxes[block], boxes[block], iou), k=1)
        keep = np.ones(len(block), np.bool_)
        for row in np.flatnonzero(hides.any(axis=1)).tolist():
            if keep[row]:
                keep &= ~hides[row]
        kept = np.concatenate([kept, block[keep]])
        if len(kept) >= most:
            break
    return kept[:most]


def _overlap(first: NDArray[np.float32], second: NDArray[np.float32], iou: float) -> NDArray[np.bool_]:
    """Returns which boxes overlap by more than `iou`, bool (len(first), len(second)).

    The order of operations and their precision are those of torchvision's NMS kernel, so rounding is the same too.
    """
    a, b = first.T[:, :, None], second.T
    sides = np.maximum(np.minimum(a[2:], b[2:, None]) - np.maximum(a[:2], b[:2, None]), 0)
    shared = sides[0] * sides[1]
    areas = [(corners[2] - corners[0]) * (corners[3] - corners[1]) for corners in (a, b)]
    with np.errstate(invalid="ignore"):  # 0 / 0 for boxes without area, which overlap nothing
        over: NDArray[np.bool_] = shared / (areas[0] + areas[1] - shared) > np.float64(iou)
    return over


def filter_sorted(rows: Rows, config: NmsConfig) -> Rows:
    """Returns the rows of one image that pass, for heads that need no NMS.

    Args:
        rows: (K, 6 or more), highest confidence first.
        config: its `iou` is not used.
    """
    return rows[config.accepts(rows[:, 4], rows[:, 5])][: config.max_det]


def move_to_frame(rows: Table, box: Letterbox, height: int, width: int) -> Table:
    """Moves boxes from a letterboxed input to the frame, clips them to it, and returns them.

    Args:
        rows: array or tensor (..., 4 or more), changed in place; the first four columns are corners in pixels of the
            input.
        box: the letterbox of the input.
        height: height of the frame, in pixels.
        width: width of the frame, in pixels.

    >>> box = Letterbox.fit(1080, 1920, 640)
    >>> move_to_frame(np.array([[0.0, 12.0, 320.0, 192.0]]), box, 1080, 1920).tolist()
    [[0.0, 0.0, 960.0, 540.0]]
    """
    rows[..., 0:4:2] = ((rows[..., 0:4:2] - box.left) / (box.scaled_width / width)).clip(0, width)
    rows[..., 1:4:2] = ((rows[..., 1:4:2] - box.top) / (box.scaled_height / height)).clip(0, height)
    return rows


def with_area(rows: Rows) -> Rows:
    """Returns the rows whose boxes have an area. A box outside the frame has none after clipping."""
    return rows[(rows[:, 2] > rows[:, 0]) & (rows[:, 3] > rows[:, 1])]


def detections_of_rows(rows: Rows, geometry: NDArray[np.object_] | None = None) -> Detections:
    """Returns the detections of one frame.

    Args:
        rows: rows of the frame.
        geometry: object (n,), the mask, keypoints or rotated box of each row; None: boxes only.
    """
    column = np.full(len(rows), None, object) if geometry is None else geometry
    return Detections(rows[:, :4], rows[:, 4].clip(0, 1), rows[:, 5].astype(np.int64), column)
