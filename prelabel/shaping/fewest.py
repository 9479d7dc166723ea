"""The fewest boxes of a track between which straight lines reproduce the rest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prelabel.boxes import paired_iou

MAX_SPAN = 300
"""Boxes from one that is kept to the next: bounds the work and costs a third of a percent of the boxes at most."""


def fewest_boxes(frame_index: NDArray[np.int64], xyxy: NDArray[np.float32], min_iou: float) -> NDArray[np.int64]:
    """Returns the rows, int64 (K,), rising, of a smallest set that reproduces all boxes; first and last are of it.

    A line may go from one box to another if each box between them overlaps it, at its frame, by `min_iou` or more.
    Boxes are reached level by level, as in any breadth-first search: those that one line reaches from the first box,
    those that two lines reach, and so on. The level on which the last box is reached is thus the least number of lines.
    A greedy choice of the farthest box keeps some 3 % more, since where a line may end depends on where it begins.

    Args:
        frame_index: (N,), rising.
        xyxy: (N, 4), corners of one thing's boxes in pixels.
        min_iou: 0..1.

    >>> boxes = np.array([[x, 0, x + 10, 10] for x in (0, 1, 2, 3, 2, 1, 0)], np.float32)
    >>> fewest_boxes(np.arange(7), boxes, 0.9).tolist()
    [0, 3, 6]
    """
    num = len(frame_index)
    frames, boxes = frame_index.astype(np.float64), xyxy.astype(np.float64)
    reach = _farthest(frames, boxes, min_iou)
    before = np.full(num, -1)
    level = [0]
    while level and before[-1] < 0 and num > 1:
        reached: list[int] = []
        for row in reversed(level):  # the farthest first: it mostly leaves little to the others
            ahead = np.arange(row + 1, reach[row] + 1)
            ends = ahead[before[ahead] < 0]
            ends = ends[_line_holds(frames, boxes, row, ends, min_iou)]
            before[ends] = row
            reached += ends.tolist()
        level = sorted(reached)
    return _way_back(before, num - 1)


def _way_back(before: NDArray[np.int64], last: int) -> NDArray[np.int64]:
    rows = [last]
    while rows[-1] > 0:
        rows.append(int(before[rows[-1]]))
    return np.array(rows[::-1], np.int64)


def _line_holds(
    frames: NDArray[np.float64], boxes: NDArray[np.float64], row: int, ends: NDArray[np.int64], min_iou: float
) -> NDArray[np.bool_]:
    """Returns whether the line from `row` to each of `ends` (rising) meets the boxes between, bool (len(ends),)."""
    if not len(ends):
        return np.zeros(0, np.bool_)
    between = np.arange(row + 1, ends[-1])
    part = (frames[between] - frames[row]) / (frames[ends] - frames[row])[:, None]
    lines = boxes[row] + part[..., None] * (boxes[ends] - boxes[row])[:, None]
    holds = (paired_iou(lines, boxes[between]) >= min_iou) | (between >= ends[:, None])
    all_hold: NDArray[np.bool_] = np.all(holds, axis=1)
    return all_hold


def _farthest(frames: NDArray[np.float64], boxes: NDArray[np.float64], min_iou: float) -> NDArray[np.int64]:
    """Returns the last row that a line from each row could end at, int64 (N,): past it, none does.

    An overlap of `min_iou` leaves each side of a box a way to go: (1 - min_iou) of the box's length inwards, or it lost
    more of the intersection, and (1 / min_iou - 1) of it outwards, or it added more to the union. So a line's slope is
    held in a cone from its first box, which each box that it passes narrows; once a cone is empty no line goes farther.
    """
    num = len(frames)
    lengths = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    inwards, outwards = (1 - min_iou) * lengths, (1 / min_iou - 1) * lengths
    is_first_corner = np.array([True, True, False, False])
    lowest = boxes - np.where(is_first_corner, outwards, inwards)
    highest = boxes + np.where(is_first_corner, inwards, outwards)
    low, high = np.full((num, 4), -np.inf), np.full((num, 4), np.inf)
    farthest = np.arange(num)
    open_rows = np.arange(num)
    for span in range(1, MAX_SPAN + 1):
        open_rows = open_rows[open_rows + span < num]
        if not len(open_rows):
            break
        ends = open_rows + span
        farthest[open_rows] = ends
        time = (frames[ends] - frames[open_rows])[:, None]
        low[open_rows] = np.maximum(low[open_rows], (lowest[ends] - boxes[open_rows]) / time)
        high[open_rows] = np.minimum(high[open_rows], (highest[ends] - boxes[open_rows]) / time)
        open_rows = open_rows[(low[open_rows] <= high[open_rows]).all(axis=1)]
    return farthest
