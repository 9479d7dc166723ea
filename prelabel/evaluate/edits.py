"""Counts what annotators changed about pre-labels.

**Changes.** A written box is *untouched* (same class, same geometry), *moved* (same class, other geometry), *reclassed*
(other class, any geometry) or *deleted*. A current box that no written box became is *added*.

**Actions box by box.** 1 for each moved box, each new class of an instance, each drawn box, and each deleted box. If a
whole instance is gone, deleting it counts 1 for all of its boxes. From scratch, each current box is drawn.

**Actions in an editor.** An annotator edits instances as a whole, and few kept boxes represent many. See
`prelabel.evaluate.editor`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from prelabel.evaluate.compare import BOX_CHANGES, DELETED, MOVED, RECLASSED, UNTOUCHED, Compared
from prelabel.evaluate.editor import count_corrections, count_from_scratch

NUM_IOU_BINS = 20
"""Number of bins for the overlap before and after a move; each is 0.05 wide."""


@dataclass(frozen=True, slots=True)
class Edits:
    """The counts of one class, or of several classes together.

    Attributes:
        untouched: boxes that are as they were written.
        moved: boxes with the same class and another geometry.
        reclassed: boxes that were written as this class and now have another class.
        deleted: boxes that are gone.
        added: boxes of this class that no written box became.
        reclassed_to: boxes that were written as another class and now have this class.
        instances_untouched: written instances whose boxes are all untouched, and to which no box was added.
        instances_edited: written instances that changed but still have boxes.
        instances_deleted: written instances without any box left.
        instances_added: instances of this class that contain no written box.
        actions: actions that the corrections took, box by box.
        from_scratch: actions that the current labels would have taken without pre-labels, box by box.
        actions_in_editor: actions that the corrections took in an editor.
        from_scratch_in_editor: actions that the current labels would have taken without pre-labels in an editor.
        moved_iou: moved boxes by the overlap before and after, in 20 equal bins from 0 to 1.
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
    actions_in_editor: int = 0
    from_scratch_in_editor: int = 0
    moved_iou: tuple[int, ...] = field(default=(0,) * NUM_IOU_BINS)

    def __add__(self, other: Edits) -> Edits:
        counts = (part.name for part in fields(self) if part.name != "moved_iou")
        sums = {name: getattr(self, name) + getattr(other, name) for name in counts}
        return Edits(**sums, moved_iou=tuple(a + b for a, b in zip(self.moved_iou, other.moved_iou, strict=True)))

    @property
    def written(self) -> int:
        """The number of boxes that prelabel wrote."""
        return self.untouched + self.moved + self.reclassed + self.deleted

    @property
    def current(self) -> int:
        """The number of boxes that are there now."""
        return self.untouched + self.moved + self.added + self.reclassed_to

    @property
    def precision(self) -> float | None:
        """The share of the written boxes that still have their class; None if no box was written."""
        return (self.untouched + self.moved) / self.written if self.written else None

    @property
    def recall(self) -> float | None:
        """The share of the current boxes that were written with their class; None if there is no current box."""
        return (self.untouched + self.moved) / self.current if self.current else None

    @property
    def f1(self) -> float | None:
        """The harmonic mean of precision and recall; None if there is no box at all."""
        num = self.written + self.current
        return 2 * (self.untouched + self.moved) / num if num else None

    @property
    def saved(self) -> float | None:
        """The share of the actions from scratch that pre-labels saved, box by box; below 0 if they cost more."""
        return 1 - self.actions / self.from_scratch if self.from_scratch else None

    @property
    def saved_in_editor(self) -> float | None:
        """The share of the actions from scratch that pre-labels saved in an editor; below 0 if they cost more."""
        return 1 - self.actions_in_editor / self.from_scratch_in_editor if self.from_scratch_in_editor else None


def count_edits(compared: Compared, frames: NDArray[np.int64], accept_iou: float) -> dict[str, Edits]:
    """Returns the counts by class.

    Written boxes count for the class that was written, added boxes for their current class.

    Args:
        compared: the boxes of a video before and after.
        frames: the compared frames, rising.
        accept_iou: overlap from which an interpolated box is good enough.
    """
    written, current, change = compared.written, compared.current, compared.change
    names = np.union1d(written.class_name, current.class_name)
    comes_from_other = np.zeros(len(current), np.bool_)
    comes_from_other[compared.current_row[change == RECLASSED]] = True
    classes: dict[str, NDArray[np.str_]] = {
        **{name: written.class_name[change == number] for number, name in enumerate(BOX_CHANGES)},
        "added": current.class_name[compared.is_added],
        "reclassed_to": current.class_name[comes_from_other],
        "from_scratch": current.class_name,
        "actions": _boxes_acted_on(compared),
        **_instances_by_change(compared),
    }
    counts = {
        key: np.bincount(np.searchsorted(names, each), minlength=len(names)).tolist() for key, each in classes.items()
    }
    corrections = count_corrections(compared, frames, accept_iou)
    from_scratch = count_from_scratch(current, frames, accept_iou)
    return {
        name: Edits(
            **{key: column[place] for key, column in counts.items()},
            actions_in_editor=corrections[name],
            from_scratch_in_editor=from_scratch[name],
            moved_iou=_moved_iou(compared, name),
        )
        for place, name in enumerate(names.tolist())
    }


def add_edits(parts: Iterable[Mapping[str, Edits]]) -> dict[str, Edits]:
    """Returns the sums of counts by class, in the order of the class names."""
    sums: dict[str, Edits] = {}
    for part in parts:
        for name, edits in part.items():
            sums[name] = sums.get(name, Edits()) + edits
    return dict(sorted(sums.items()))


def _instances_by_change(compared: Compared) -> dict[str, NDArray[np.str_]]:
    """Returns the classes of the instances that are untouched, edited, deleted and added."""
    written, current = compared.written, compared.current
    instance, now = written.instance_number, current.instance_number
    _, first = np.unique(instance, return_index=True)
    _, first_now = np.unique(now, return_index=True)
    is_there = compared.change != DELETED
    has_added = _any_by(now, compared.is_added)
    is_changed = compared.change != UNTOUCHED
    is_changed[is_there] |= has_added[now[compared.current_row[is_there]]]
    is_left, is_edited = _any_by(instance, is_there), _any_by(instance, is_changed)
    class_of = written.class_name[first]
    return {
        "instances_untouched": class_of[~is_edited],
        "instances_edited": class_of[is_edited & is_left],
        "instances_deleted": class_of[~is_left],
        "instances_added": current.class_name[first_now[~_any_by(now, ~compared.is_added)]],
    }


def _boxes_acted_on(compared: Compared) -> NDArray[np.str_]:
    """Returns the class of each action, box by box."""
    written = compared.written
    instance = written.instance_number
    _, first = np.unique(instance, return_index=True)
    is_gone = compared.change == DELETED
    is_left = _any_by(instance, ~is_gone)
    renamed = np.flatnonzero(compared.change == RECLASSED)
    new_class = np.unique(compared.became[renamed], return_inverse=True)[1].reshape(-1)
    _, once = np.unique(np.column_stack([instance[renamed], new_class]), axis=0, return_index=True)
    rows = [
        np.flatnonzero(compared.is_moved),
        renamed[once],
        np.flatnonzero(is_gone & is_left[instance]),
        first[~is_left],
    ]
    return np.concatenate([written.class_name[np.concatenate(rows)], compared.current.class_name[compared.is_added]])


def _moved_iou(compared: Compared, name: str) -> tuple[int, ...]:
    iou = compared.iou[(compared.change == MOVED) & (compared.written.class_name == name)]
    bins = np.minimum((iou * NUM_IOU_BINS).astype(np.int64), NUM_IOU_BINS - 1)
    return tuple(np.bincount(bins, minlength=NUM_IOU_BINS).tolist())


def _any_by(group: NDArray[np.int64], holds: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Returns for each group, numbered from 0, whether `holds` is true for one of its members."""
    return np.bincount(group, weights=holds, minlength=int(group.max(initial=-1)) + 1) > 0
