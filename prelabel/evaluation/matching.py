"""Which box that was written is which box that stands now."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from prelabel.boxes import iou_matrix
from prelabel.evaluation.boxes import Boxes


def match_boxes(written: Boxes, current: Boxes, min_iou: float) -> NDArray[np.int64]:
    """Returns the current row that each written box has become, int64 (N,); -1: it is gone.

    First by object hash and frame, wherever the box is now. What is left is assigned frame by frame so that the sum of
    overlaps is largest (Kuhn 1955), first among boxes of one class, then among all.

    Args:
        written: what was there.
        current: what is there.
        min_iou: overlap from which boxes of different hashes may be the same thing.
    """
    matched = _by_instance(written, current)
    for same_class in (True, False):
        taken = np.zeros(len(current), np.bool_)
        taken[matched[matched >= 0]] = True
        for before, after in _frames_with_both(written, current, np.flatnonzero(matched < 0), np.flatnonzero(~taken)):
            overlap = _overlaps(written.corners[before], current.corners[after])
            allowed = overlap >= min_iou
            if same_class:
                allowed &= written.class_name[before][:, None] == current.class_name[after][None, :]
            rows, columns = _assign(np.where(allowed, overlap, 0.0))
            matched[before[rows]] = after[columns]
    return matched


def _by_instance(written: Boxes, current: Boxes) -> NDArray[np.int64]:
    place = {
        key: row
        for row, key in enumerate(zip(current.instance.tolist(), current.frame_index.tolist(), strict=True))
        if key[0]
    }
    keys = zip(written.instance.tolist(), written.frame_index.tolist(), strict=True)
    return np.array([place.get(key, -1) for key in keys], np.int64)


def _frames_with_both(
    written: Boxes, current: Boxes, written_rows: NDArray[np.int64], current_rows: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yields, for each frame that has some of both, which rows they are."""
    before, after = written.frame_index[written_rows], current.frame_index[current_rows]
    for frame_index in np.intersect1d(before, after).tolist():
        yield (
            written_rows[slice(*np.searchsorted(before, [frame_index, frame_index + 1]).tolist())],
            current_rows[slice(*np.searchsorted(after, [frame_index, frame_index + 1]).tolist())],
        )


def _overlaps(before: NDArray[np.int64], after: NDArray[np.int64]) -> NDArray[np.float64]:
    return iou_matrix(before.astype(np.float32), after.astype(np.float32)).astype(np.float64)


def _assign(overlap: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns rows and columns of the pairs with the largest sum of overlaps; pairs without any are none."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(overlap, maximize=True)
    real = overlap[rows, columns] > 0
    return rows[real], columns[real]
