"""Converts boxes between pixels, fractions of the frame, and the letterboxed input of a network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GRID = 100_000
"""Number of steps along a side of the frame; label rows carry five decimals."""


def clip_boxes(xyxy: NDArray[np.float32], sizes: NDArray[np.int64]) -> NDArray[np.float32]:
    """Returns boxes clipped to their frames.

    Args:
        xyxy: (N, 4) corners in pixels of the displayed frame.
        sizes: (N, 2) or (2,), width and height of each box's frame in pixels.

    >>> clip_boxes(np.array([[-5, 2, 12, 8]], np.float32), np.array([10, 6])).tolist()
    [[0.0, 2.0, 10.0, 6.0]]
    """
    return np.clip(xyxy, 0, np.tile(np.asarray(sizes, np.float32), 2))


def xyxy_to_xywh_norm(xyxy: NDArray[np.float32], sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns boxes as x and y of the top left corner, width and height, in fractions of their frames, (N, 4).

    Args:
        xyxy: (N, 4) corners in pixels of the displayed frame.
        sizes: (N, 2) or (2,), width and height of each box's frame in pixels.

    >>> xyxy_to_xywh_norm(np.array([[10, 20, 60, 40]], np.float32), np.array([100, 200])).tolist()
    [[0.1, 0.1, 0.5, 0.1]]
    """
    corners = _fractions(xyxy, sizes)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def corners_on_grid(xyxy: NDArray[np.float32], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns corners in hundred-thousandths of their frames, (N, 4) int64.

    That is the precision of label rows.

    Args:
        xyxy: (N, 4) corners in pixels of the displayed frame.
        sizes: (N, 2) or (2,), width and height of each box's frame in pixels.

    >>> corners_on_grid(np.array([[10, 20, 60, 40]], np.float32), np.array([100, 200])).tolist()
    [[10000, 10000, 60000, 20000]]
    """
    return np.rint(_fractions(xyxy, sizes) * GRID).astype(np.int64)


def has_area(xyxy: NDArray[np.float32], sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Returns which boxes have an area at the five decimals of label rows, (N,) bool.

    Args:
        xyxy: (N, 4) corners in pixels of the displayed frame.
        sizes: (N, 2) or (2,), width and height of each box's frame in pixels.

    >>> has_area(np.array([[0, 0, 9, 9], [5, 5, 5.001, 9]], np.float32), np.array([1000, 1000])).tolist()
    [True, False]
    """
    grid = corners_on_grid(xyxy, sizes)
    has: NDArray[np.bool_] = np.all(grid[:, 2:] > grid[:, :2], axis=1)
    return has


def _fractions(xyxy: NDArray[np.float32], sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(xyxy, np.float64).reshape(-1, 4) / np.tile(np.asarray(sizes, np.float64), 2)


def box_areas(xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the areas of boxes in square pixels, (N,)."""
    return (xyxy[:, 2] - xyxy[:, 0]) * (xyxy[:, 3] - xyxy[:, 1])


def iou_matrix(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the intersection over union of every box of `a` with every box of `b`, (len(a), len(b)).

    >>> box = np.array([[0, 0, 2, 2]], np.float32)
    >>> round(float(iou_matrix(box, np.array([[1, 0, 3, 2]], np.float32))[0, 0]), 4)
    0.3333
    """
    return paired_iou(a[:, None], b[None]).astype(np.float32)


def paired_iou(a: NDArray[np.floating | np.integer], b: NDArray[np.floating | np.integer]) -> NDArray[np.floating]:
    """Returns the intersection over union of each box of `a` with the box of `b` at the same index.

    The result is float32 for float32 corners, otherwise float64.

    Args:
        a: (..., 4) corners.
        b: (..., 4) corners; its shape broadcasts with that of `a`.

    >>> paired_iou(np.array([[0, 0, 2, 2], [0, 0, 1, 1.0]]), np.array([1, 0, 3, 2.0])).round(4).tolist()
    [0.3333, 0.0]
    """
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None)
    overlap = sides[..., 0] * sides[..., 1]
    areas = [(box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1]) for box in (a, b)]
    union = areas[0] + areas[1] - overlap
    ious: NDArray[np.floating] = np.where(union > 0, overlap / np.where(union > 0, union, 1), 0.0)
    return ious


def overlapping_pairs(frame_index: NDArray[np.int64], xyxy: NDArray[np.float32], min_iou: float) -> NDArray[np.int64]:
    """Returns the pairs of boxes on the same frame that overlap, int64 (K, 2), in order; the lower row comes first.

    Args:
        frame_index: (N,), not falling.
        xyxy: (N, 4) corners.
        min_iou: overlap from which a pair counts.

    >>> boxes = np.array([[0, 0, 2, 2], [9, 9, 10, 10], [0, 0, 2, 2], [0, 0, 2, 2]], np.float32)
    >>> overlapping_pairs(np.array([0, 0, 0, 1]), boxes, 0.5).tolist()
    [[0, 2]]
    """
    pairs = [np.zeros((0, 2), np.int64)]
    for shift in range(1, len(frame_index)):
        first = np.flatnonzero(frame_index[shift:] == frame_index[:-shift])
        if not len(first):
            break
        first = first[paired_iou(xyxy[first], xyxy[first + shift]) >= min_iou]
        pairs.append(np.column_stack([first, first + shift]))
    found = np.concatenate(pairs)
    return found[np.lexsort(found.T[::-1])]


@dataclass(frozen=True, slots=True)
class Letterbox:
    """The place of a scaled frame in a network's input.

    Attributes:
        height: of the network's input in pixels.
        width: of the network's input in pixels.
        scaled_height: of the scaled frame in pixels.
        scaled_width: of the scaled frame in pixels.
        top: height of the padding above the frame, in pixels.
        left: width of the padding on the left, in pixels.
    """

    height: int
    width: int
    scaled_height: int
    scaled_width: int
    top: int
    left: int

    @classmethod
    def fit(cls, height: int, width: int, imgsz: int, stride: int = 32) -> Letterbox:
        """Returns the smallest input that holds the frame scaled to `imgsz`.

        The arithmetic is the same as in Ultralytics' `LetterBox` (auto=True), so that boxes agree to the pixel.

        Args:
            height: of the frame in pixels.
            width: of the frame in pixels.
            imgsz: longest side of the scaled frame, in pixels.
            stride: sides of the input are multiples of this.

        >>> box = Letterbox.fit(1080, 1920, 640)
        >>> box.height, box.width, box.scaled_height, box.top
        (384, 640, 360, 12)
        """
        scaled_height, scaled_width = _scaled_size(height, width, imgsz, imgsz)
        return cls._centred(
            scaled_height, scaled_width, (imgsz - scaled_height) % stride, (imgsz - scaled_width) % stride
        )

    @classmethod
    def fit_fixed(cls, height: int, width: int, input_height: int, input_width: int) -> Letterbox:
        """Returns the frame scaled and centred in an input of a fixed shape, as exported engines need it.

        Args:
            height: of the frame in pixels.
            width: of the frame in pixels.
            input_height: of the network's input in pixels.
            input_width: of the network's input in pixels.

        >>> box = Letterbox.fit_fixed(1080, 1920, 640, 640)
        >>> box.height, box.width, box.scaled_height, box.top
        (640, 640, 360, 140)
        """
        scaled_height, scaled_width = _scaled_size(height, width, input_height, input_width)
        return cls._centred(scaled_height, scaled_width, input_height - scaled_height, input_width - scaled_width)

    @classmethod
    def fit_top_left(cls, height: int, width: int, input_height: int, input_width: int) -> Letterbox:
        """Returns the frame scaled into the top left corner of an input of a fixed shape, as in YOLOX's `preproc`.

        Args:
            height: of the frame in pixels.
            width: of the frame in pixels.
            input_height: of the network's input in pixels.
            input_width: of the network's input in pixels.

        >>> box = Letterbox.fit_top_left(1080, 1920, 416, 416)
        >>> box.scaled_height, box.scaled_width, box.top
        (234, 416, 0)
        """
        scale = min(input_height / height, input_width / width)
        scaled_height, scaled_width = max(int(height * scale), 1), max(int(width * scale), 1)
        return cls(input_height, input_width, scaled_height, scaled_width, top=0, left=0)

    @classmethod
    def _centred(cls, scaled_height: int, scaled_width: int, pad_height: int, pad_width: int) -> Letterbox:
        # As in `LetterBox`, an odd padding gets its extra pixel at the bottom and at the right.
        return cls(
            height=scaled_height + pad_height,
            width=scaled_width + pad_width,
            scaled_height=scaled_height,
            scaled_width=scaled_width,
            top=round(pad_height / 2 - 0.1),
            left=round(pad_width / 2 - 0.1),
        )


def _scaled_size(height: int, width: int, max_height: int, max_width: int) -> tuple[int, int]:
    scale = min(max_height / height, max_width / width)
    return max(round(height * scale), 1), max(round(width * scale), 1)
