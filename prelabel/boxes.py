"""Boxes between spaces: pixels, fractions of the frame, and the letterboxed input of a network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


def clip_boxes(xyxy: NDArray[np.float32], sizes: NDArray[np.int64]) -> NDArray[np.float32]:
    """Returns boxes cut to their frames.

    Args:
        xyxy: (N, 4) corners in pixels of the displayed frame.
        sizes: (N, 2) or (2,), width and height of each box's frame in pixels.

    >>> clip_boxes(np.array([[-5, 2, 12, 8]], np.float32), np.array([10, 6])).tolist()
    [[0.0, 2.0, 10.0, 6.0]]
    """
    return np.clip(xyxy, 0, np.tile(np.asarray(sizes, np.float32), 2))


def xyxy_to_xywh_norm(xyxy: NDArray[np.float32], sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns boxes as x, y of the top left corner, width and height, in fractions of their frames.

    Args:
        xyxy: (N, 4) corners in pixels of the displayed frame.
        sizes: (N, 2) or (2,), width and height of each box's frame in pixels.

    >>> xyxy_to_xywh_norm(np.array([[10, 20, 60, 40]], np.float32), np.array([100, 200])).tolist()
    [[0.1, 0.1, 0.5, 0.1]]
    """
    corners = np.asarray(xyxy, np.float64).reshape(-1, 4) / np.tile(np.asarray(sizes, np.float64), 2)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def box_areas(xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the areas, (N,), in square pixels."""
    return (xyxy[:, 2] - xyxy[:, 0]) * (xyxy[:, 3] - xyxy[:, 1])


def iou_matrix(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the intersection over union of every box of `a` with every box of `b`, (len(a), len(b)).

    >>> box = np.array([[0, 0, 2, 2]], np.float32)
    >>> round(float(iou_matrix(box, np.array([[1, 0, 3, 2]], np.float32))[0, 0]), 4)
    0.3333
    """
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = np.clip(bottom_right - top_left, 0, None)
    overlap = sides[..., 0] * sides[..., 1]
    union = box_areas(a)[:, None] + box_areas(b)[None, :] - overlap
    return np.where(union > 0, overlap / np.where(union > 0, union, 1), 0).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Letterbox:
    """How a frame is scaled and padded into a network's input: centred, aspect kept.

    Attributes:
        height: pixels of the network's input.
        width: pixels of the network's input.
        scaled_height: pixels that the scaled frame takes in it.
        scaled_width: pixels that the scaled frame takes in it.
        top: pixels of padding above.
        left: pixels of padding at the left.
        scale: input pixels a frame pixel.
    """

    height: int
    width: int
    scaled_height: int
    scaled_width: int
    top: int
    left: int
    scale: float

    @classmethod
    def fit(cls, height: int, width: int, imgsz: int, stride: int = 32, *, square: bool = False) -> Letterbox:
        """Returns the smallest input of multiples of `stride` that holds the frame scaled to `imgsz`.

        The arithmetic is that of Ultralytics' `LetterBox` (auto=True), so that boxes agree to the pixel.

        Args:
            height: pixels of the frame.
            width: pixels of the frame.
            imgsz: longest side of the scaled frame, in pixels.
            stride: sides of the input are multiples of this.
            square: pad to `imgsz` x `imgsz`, as engines of a fixed shape want it.

        >>> box = Letterbox.fit(1080, 1920, 640)
        >>> box.height, box.width, box.scaled_height, box.top
        (384, 640, 360, 12)
        """
        scale = min(imgsz / height, imgsz / width)
        scaled_height, scaled_width = round(height * scale), round(width * scale)
        pad_height, pad_width = imgsz - scaled_height, imgsz - scaled_width
        if not square:
            pad_height, pad_width = pad_height % stride, pad_width % stride
        return cls(
            height=scaled_height + pad_height,
            width=scaled_width + pad_width,
            scaled_height=scaled_height,
            scaled_width=scaled_width,
            top=round(pad_height / 2 - 0.1),
            left=round(pad_width / 2 - 0.1),
            scale=scale,
        )
