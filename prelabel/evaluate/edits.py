"""What people did to pre-labels: each box's outcome, and the counts that follow from them.

**Outcomes.** A box that was written is *untouched* (same class, same geometry), *moved* (same class, other geometry),
*reclassed* (other class, wherever it is), or *deleted*. A box that stands there and comes from none is *added*.

**Actions.** What the corrections took: 1 for each box moved, for each new class given to an instance, for each box
drawn, for each box deleted, or once for all of them where a whole instance went. From scratch, each box that stands now
would have been drawn. Both sides count an editor's interpolation as if every frame were drawn by hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from prelabel.evaluate.boxes import Boxes
from prelabel.evaluate.compare import DELETED, MOVED, OUTCOMES, RECLASSED, UNTOUCHED, Compared

NUM_IOU_BINS = 20
"""Of the overlap before and after a move: steps of 0.05."""


@dataclass(frozen=True, slots=True)
class Edits:
    """Counts of one class, or of several added up.

    Attributes:
        untouched: boxes left as they were written.
        moved: boxes of the same class and another geometry.
        reclassed: boxes that were written as this class and are of another now.
        deleted: boxes that are gone.
        added: boxes of this class that come from none.
        reclassed_to: boxes of this class now that were written as another.
        instances_untouched: written instances all of whose boxes are untouched, with none added.
        instances_edited: written instances of which something is left, and something changed.
        instances_deleted: written instances of which nothing is left.
        instances_added: instances of this class, none of whose boxes comes from a written one.
        actions: what the corrections took.
        from_scratch: what the labels that stand now would have taken without pre-labels.
        moved_iou: boxes moved by the overlap before and after: 20 equal bins from 0 to 1.
    """

    untouched: int = 0
    moved: int = 0
    reclassed: int = 0
    deleted: int = 0
    added: int = 0
    reclassed_to: int = 0
    instances_untouched: int = 0
    instances_edited: int = 0
    instances_deleted: int = 0
    instances_added: int = 0
    actions: int = 0
    from_scratch: int = 0
    moved_iou: tuple[int, ...] = field(default=(0,) * NUM_IOU_BINS)

    def __add__(self, other: Edits) -> Edits:
        sums = {
            name: getattr(self, name) + getattr(other, name)
            for name in (part.name for part in fields(self))
            if name != "moved_iou"
        }
        return Edits(**sums, moved_iou=tuple(a + b for a, b in zip(self.moved_iou, other.moved_iou, strict=True)))

    @property
    def written(self) -> int:
        """Boxes that prelabel wrote."""
        return self.untouched + self.moved + self.reclassed + self.deleted

    @property
    def current(self) -> int:
        """Boxes that stand there now."""
        return self.untouched + self.moved + self.added + self.reclassed_to

    @property
    def precision(self) -> float | None:
        """Share of the written boxes that stayed, in their class; None if none was written."""
        return (self.untouched + self.moved) / self.written if self.written else None

    @property
    def recall(self) -> float | None:
        """Share of the boxes that stand now which were written, in their class; None if there is none."""
        return (self.untouched + self.moved) / self.current if self.current else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall; None if there is neither box."""
        num = self.written + self.current
        return 2 * (self.untouched + self.moved) / num if num else None

    @property
    def saved(self) -> float | None:
        """Share of the actions from scratch that the pre-labels saved; below 0 where they cost more than they gave."""
        return 1 - self.actions / self.from_scratch if self.from_scratch else None


def count_edits(compared: Compared) -> dict[str, Edits]:
    """Returns the counts by class: of what was written by the class it was written as, of the rest by the class now."""
    names = np.union1d(compared.written.class_name, compared.current.class_name)
    boxes, instances, actions = (
        _box_counts(compared, names),
        _instance_counts(compared, names),
        _actions(compared, names),
    )
    return {
        name: Edits(
            **{key: int(column[place]) for key, column in {**boxes, **instances, "actions": actions}.items()},
            moved_iou=_moved_iou(compared, name),
        )
        for place, name in enumerate(names.tolist())
    }


def add_edits(parts: Iterable[Mapping[str, Edits]]) -> dict[str, Edits]:
    """Returns the sums by class, in the order of their names."""
    sums: dict[str, Edits] = {}
    for part in parts:
        for name, edits in part.items():
            sums[name] = sums.get(name, Edits()) + edits
    return dict(sorted(sums.items()))


def _box_counts(compared: Compared, names: NDArray[np.str_]) -> dict[str, NDArray[np.int64]]:
    written, current, outcome = compared.written, compared.current, compared.outcome
    comes_from_other = np.zeros(len(current), np.bool_)
    comes_from_other[compared.current_row[outcome == RECLASSED]] = True
    by_outcome: dict[str, NDArray[np.int64]] = {
        name: _count(written.class_name[outcome == number], names) for number, name in enumerate(OUTCOMES)
    }
    return {
        **by_outcome,
        "added": _count(current.class_name[compared.is_added], names),
        "reclassed_to": _count(current.class_name[comes_from_other], names),
        "from_scratch": _count(current.class_name, names),
    }


def _instance_counts(compared: Compared, names: NDArray[np.str_]) -> dict[str, NDArray[np.int64]]:
    first, instance = _instances(compared.written)
    first_now, now = _instances(compared.current)
    there = compared.outcome != DELETED
    grown = _any_by(now, compared.is_added)
    changed = compared.outcome != UNTOUCHED
    changed[there] |= grown[now[compared.current_row[there]]]
    is_left, is_changed = _any_by(instance, there), _any_by(instance, changed)
    class_of = compared.written.class_name[first]
    is_new = ~_any_by(now, ~compared.is_added)
    return {
        "instances_untouched": _count(class_of[~is_changed], names),
        "instances_edited": _count(class_of[is_changed & is_left], names),
        "instances_deleted": _count(class_of[~is_left], names),
        "instances_added": _count(compared.current.class_name[first_now[is_new]], names),
    }


def _actions(compared: Compared, names: NDArray[np.str_]) -> NDArray[np.int64]:
    written = compared.written
    first, instance = _instances(written)
    is_gone = compared.outcome == DELETED
    is_left = _any_by(instance, ~is_gone)
    renamed = np.flatnonzero(compared.outcome == RECLASSED)
    new_class = np.searchsorted(names, compared.became[renamed])
    _, once = np.unique(np.column_stack([instance[renamed], new_class]), axis=0, return_index=True)
    return (
        _count(written.class_name[compared.is_moved], names)
        + _count(written.class_name[renamed[once]], names)
        + _count(written.class_name[is_gone & is_left[instance]], names)
        + _count(written.class_name[first[~is_left]], names)
        + _count(compared.current.class_name[compared.is_added], names)
    )


def _moved_iou(compared: Compared, name: str) -> tuple[int, ...]:
    iou = compared.iou[(compared.outcome == MOVED) & (compared.written.class_name == name)]
    bins = np.minimum((iou * NUM_IOU_BINS).astype(np.int64), NUM_IOU_BINS - 1)
    return tuple(np.bincount(bins, minlength=NUM_IOU_BINS).tolist())


def _instances(boxes: Boxes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the first box of each instance, and the instance of each box."""
    _, first, number = np.unique(boxes.instance_number, return_index=True, return_inverse=True)
    return first, number.reshape(-1)


def _any_by(group: NDArray[np.int64], holds: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Returns, for each group from 0, whether it holds for one of its members."""
    return np.bincount(group, weights=holds, minlength=int(group.max(initial=-1)) + 1) > 0


def _count(found: NDArray[np.str_], names: NDArray[np.str_]) -> NDArray[np.int64]:
    """Returns how often each of the rising names comes."""
    return np.bincount(np.searchsorted(names, found), minlength=len(names)).astype(np.int64)
