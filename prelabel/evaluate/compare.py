"""What became of each box that was written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prelabel.data.boxes import iou_matrix, paired_iou
from prelabel.evaluate.boxes import UNKNOWN_GEOMETRY, Boxes


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


Outcome = Literal["untouched", "moved", "reclassed", "deleted"]
OUTCOMES: tuple[Outcome, ...] = ("untouched", "moved", "reclassed", "deleted")
UNTOUCHED, MOVED, RECLASSED, DELETED = range(4)


@dataclass(frozen=True, slots=True)
class Compared:
    """The boxes of one video, before and after.

    Attributes:
        written: what prelabel wrote, N boxes.
        current: what stands there now, M boxes.
        current_row: int64 (N,), which of them each written box has become; -1: none.
        outcome: int64 (N,), index into `OUTCOMES`.
        iou: float64 (N,), of each written box with what it has become; 0 where it is gone.
        is_moved: bool (N,), whether the geometry is another, of reclassed boxes too.
        is_added: bool (M,), whether a current box comes from none that was written.
    """

    written: Boxes
    current: Boxes
    current_row: NDArray[np.int64]
    outcome: NDArray[np.int64]
    iou: NDArray[np.float64]
    is_moved: NDArray[np.bool_]
    is_added: NDArray[np.bool_]

    @property
    def became(self) -> NDArray[np.str_]:
        """Class of what each written box has become, str (N,); empty where it is gone."""
        if not len(self.current):
            return np.full(len(self.written), "", np.str_)
        return np.where(self.current_row < 0, "", self.current.class_name[self.current_row])

    def without_added(self, drop: NDArray[np.bool_]) -> Compared:
        """Returns the comparison without those current boxes, bool (M,); only such as come from none may go."""
        if (drop & ~self.is_added).any():
            raise ValueError("drop: got a box that comes from one that was written")
        place = np.cumsum(~drop) - 1
        return replace(
            self,
            current=self.current.where(~drop),
            current_row=np.array([place[row] if row >= 0 else -1 for row in self.current_row.tolist()], np.int64),
            is_added=self.is_added[~drop],
        )

    @property
    def corrections_by_frame(self) -> dict[int, int]:
        """Boxes that were moved, reclassed, deleted or added, by frame."""
        touched = self.written.frame_index[self.outcome != UNTOUCHED]
        frames = np.concatenate([touched, self.current.frame_index[self.is_added]])
        numbers, counts = np.unique(frames, return_counts=True)
        return dict(zip(numbers.tolist(), counts.tolist(), strict=True))


def compare_boxes(written: Boxes, current: Boxes, *, min_iou: float, accept_iou: float) -> Compared:
    """Returns what became of each box.

    Args:
        written: what prelabel wrote.
        current: what stands there now.
        min_iou: overlap from which boxes of different instances may be the same thing.
        accept_iou: overlap from which a box counts as untouched where the exact geometry of either is not known. Else
            only the same geometry does.
    """
    row = match_boxes(written, current, min_iou)
    there = row >= 0
    iou, is_same, same_class = np.zeros(len(row)), np.zeros(len(row), np.bool_), np.zeros(len(row), np.bool_)
    iou[there] = paired_iou(written.corners[there], current.corners[row[there]])
    same_class[there] = written.class_name[there] == current.class_name[row[there]]
    before, after = written.geometry[there], current.geometry[row[there]]
    is_near = np.abs(written.corners[there] - current.corners[row[there]]).max(axis=1, initial=0) <= 1
    is_same[there] = np.select(
        # Another class may be drawn in another shape, whose geometry is never the same to the letter.
        [(before == UNKNOWN_GEOMETRY) | (after == UNKNOWN_GEOMETRY), ~same_class[there]],
        [iou[there] >= accept_iou, is_near],
        before == after,
    )
    is_added = np.ones(len(current), np.bool_)
    is_added[row[there]] = False
    return Compared(
        written=written,
        current=current,
        current_row=row,
        outcome=np.select([~there, ~same_class, ~is_same], [DELETED, RECLASSED, MOVED], UNTOUCHED).astype(np.int64),
        iou=iou,
        is_moved=there & ~is_same,
        is_added=is_added,
    )
