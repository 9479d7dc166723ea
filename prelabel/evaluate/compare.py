"""What changed about each written box."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prelabel.data.boxes import iou_matrix, paired_iou
from prelabel.evaluate.boxes import UNKNOWN_GEOMETRY, Boxes

BoxChange = Literal["untouched", "moved", "reclassed", "deleted"]
BOX_CHANGES: tuple[BoxChange, ...] = ("untouched", "moved", "reclassed", "deleted")
UNTOUCHED, MOVED, RECLASSED, DELETED = range(4)


@dataclass(frozen=True, slots=True)
class Compared:
    """The boxes of one video before and after.

    Attributes:
        written: the N boxes that prelabel wrote.
        current: the M boxes that are there now.
        current_row: int64 (N,), the current box that each written box became; -1: none.
        change: int64 (N,), index into `BOX_CHANGES`.
        iou: float64 (N,), overlap of each written box with what it became; 0 if it is gone.
        is_moved: bool (N,), whether the geometry changed, of reclassed boxes too.
        is_added: bool (M,), whether no written box became this current box.
    """

    written: Boxes
    current: Boxes
    current_row: NDArray[np.int64]
    change: NDArray[np.int64]
    iou: NDArray[np.float64]
    is_moved: NDArray[np.bool_]
    is_added: NDArray[np.bool_]

    @property
    def became(self) -> NDArray[np.str_]:
        """Class of what each written box became, str (N,); empty if it is gone."""
        if not len(self.current):
            return np.full(len(self.written), "", np.str_)
        return np.where(self.current_row < 0, "", self.current.class_name[self.current_row])

    def without_added(self, drop: NDArray[np.bool_]) -> Compared:
        """Returns the comparison without some added boxes, bool (M,)."""
        if (drop & ~self.is_added).any():
            raise ValueError("drop: got a box that a written box became, expected added boxes only")
        place = np.cumsum(~drop) - 1
        return replace(
            self,
            current=self.current.where(~drop),
            current_row=np.array([place[row] if row >= 0 else -1 for row in self.current_row.tolist()], np.int64),
            is_added=self.is_added[~drop],
        )


def compare_boxes(written: Boxes, current: Boxes, *, min_iou: float, accept_iou: float) -> Compared:
    """Returns what changed about each box.

    Args:
        written: what prelabel wrote.
        current: what is there now.
        min_iou: overlap from which boxes of different instances may be the same thing.
        accept_iou: overlap from which a box counts as untouched if the exact geometry of either is unknown. If both are
            known, only the same geometry does.
    """
    row = match_boxes(written, current, min_iou)
    is_there = row >= 0
    iou, is_same, same_class = np.zeros(len(row)), np.zeros(len(row), np.bool_), np.zeros(len(row), np.bool_)
    iou[is_there] = paired_iou(written.corners[is_there], current.corners[row[is_there]])
    same_class[is_there] = written.class_name[is_there] == current.class_name[row[is_there]]
    before, after = written.geometry[is_there], current.geometry[row[is_there]]
    is_near = np.abs(written.corners[is_there] - current.corners[row[is_there]]).max(axis=1, initial=0) <= 1
    is_same[is_there] = np.select(
        # Another class may be drawn in another shape, whose exact geometry is never the same.
        [(before == UNKNOWN_GEOMETRY) | (after == UNKNOWN_GEOMETRY), ~same_class[is_there]],
        [iou[is_there] >= accept_iou, is_near],
        before == after,
    )
    is_added = np.ones(len(current), np.bool_)
    is_added[row[is_there]] = False
    return Compared(
        written=written,
        current=current,
        current_row=row,
        change=np.select([~is_there, ~same_class, ~is_same], [DELETED, RECLASSED, MOVED], UNTOUCHED).astype(np.int64),
        iou=iou,
        is_moved=is_there & ~is_same,
        is_added=is_added,
    )


def link_unknown_instances(compared: Compared) -> Compared:
    """Returns the comparison in which current boxes of unknown instance belong to the written instance they come from.

    So a ground truth without tracks neither splits nor joins what was written.
    """
    current, row = compared.current, compared.current_row
    names = current.instance.astype(object)
    is_there = row >= 0
    names[row[is_there]] = compared.written.instance[is_there]
    linked = np.where(current.instance == "", names, current.instance).astype(np.str_)
    return replace(compared, current=replace(current, instance=linked))


def match_boxes(written: Boxes, current: Boxes, min_iou: float) -> NDArray[np.int64]:
    """Returns the current row that each written box became, int64 (N,); -1: it is gone.

    Boxes match by object hash and frame first, wherever the box is now. The rest is assigned frame by frame so that the
    sum of overlaps is largest (Kuhn 1955), first among boxes of one class, then among all.

    Args:
        written: what was there.
        current: what is there.
        min_iou: overlap from which boxes of different hashes may be the same thing.
    """
    from scipy.optimize import linear_sum_assignment

    keys = zip(current.instance.tolist(), current.frame_index.tolist(), strict=True)
    place = {key: row for row, key in enumerate(keys) if key[0]}
    keys = zip(written.instance.tolist(), written.frame_index.tolist(), strict=True)
    matched = np.array([place.get(key, -1) for key in keys], np.int64)
    for same_class in (True, False):
        is_taken = np.zeros(len(current), np.bool_)
        is_taken[matched[matched >= 0]] = True
        open_written, open_current = np.flatnonzero(matched < 0), np.flatnonzero(~is_taken)
        before, after = written.frame_index[open_written], current.frame_index[open_current]
        for frame_index in np.intersect1d(before, after).tolist():
            on_frame = [frame_index, frame_index + 1]
            rows = open_written[slice(*np.searchsorted(before, on_frame).tolist())]
            others = open_current[slice(*np.searchsorted(after, on_frame).tolist())]
            corners = written.corners[rows].astype(np.float32), current.corners[others].astype(np.float32)
            overlap = iou_matrix(*corners).astype(np.float64)
            overlap[overlap < min_iou] = 0
            if same_class:
                overlap[written.class_name[rows][:, None] != current.class_name[others][None, :]] = 0
            chosen, partner = linear_sum_assignment(overlap, maximize=True)
            is_pair = overlap[chosen, partner] > 0
            matched[rows[chosen[is_pair]]] = others[partner[is_pair]]
    return matched
