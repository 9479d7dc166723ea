"""The confidence threshold with the fewest corrections, class by class, a box each.

A written box costs what annotators did to it. A box that is not written costs a drawing if there is something to draw.
For boxes above the current threshold this is known. Boxes below it were detected but not written: they count as right
if they overlap a box that somebody added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prelabel.evaluate.compare import DELETED, RECLASSED, Boxes, Compared, compare_boxes
from prelabel.labels.row.own import INTERPOLATED_CONFIDENCE

GRID = np.round(np.linspace(0, 1, 101), 2)
"""The thresholds to try."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What each detected box costs if it is written, and if it is not.

    Attributes:
        class_name: str (N,), the class that it was or would have been written as.
        confidence: float64 (N,).
        written_cost: float64 (N,), actions if it is written; the boxes of an instance share its action.
        omitted_cost: float64 (N,), actions if it is not written: 1 if somebody would have to draw it.
        never_found: by class, boxes to draw whatever the threshold.
    """

    class_name: NDArray[np.str_]
    confidence: NDArray[np.float64]
    written_cost: NDArray[np.float64]
    omitted_cost: NDArray[np.float64]
    never_found: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ThresholdCurve:
    """The corrections of one class at each threshold.

    Attributes:
        thresholds: rising; the first is the lowest that the raw detections allow.
        actions: the actions at each threshold.
        in_force: the threshold that the labels were written with.
        suggested: the threshold with the fewest actions; of equals the one nearest to `in_force`.
        num_boxes: detected boxes of the class, written or not.
    """

    thresholds: tuple[float, ...]
    actions: tuple[float, ...]
    in_force: float
    suggested: float
    num_boxes: int

    def actions_at(self, threshold: float) -> float:
        """Returns the actions at the nearest threshold of the curve."""
        return self.actions[int(np.abs(np.array(self.thresholds) - threshold).argmin())]


def weigh_boxes(compared: Compared, unwritten: Boxes, *, min_iou: float, accept_iou: float) -> Evidence:
    """Returns what each box costs.

    Args:
        compared: the boxes before and after.
        unwritten: boxes detected on the same frames, but below the threshold.
        min_iou: overlap from which an unwritten and an added box are the same thing.
        accept_iou: overlap from which nobody would have moved the box.
    """
    added = compared.current.where(compared.is_added)
    guessed = compare_boxes(unwritten, added, min_iou=min_iou, accept_iou=accept_iou)
    missed = added.class_name[guessed.is_added]
    names, counts = np.unique(missed, return_counts=True)
    parts = (compared, guessed)
    return Evidence(
        class_name=np.concatenate([part.written.class_name for part in parts]),
        confidence=np.concatenate([measured_confidence(part.written) for part in parts]),
        written_cost=np.concatenate([_written_cost(part) for part in parts]),
        omitted_cost=np.concatenate([(part.change != DELETED).astype(np.float64) for part in parts]),
        never_found=dict(zip(names.tolist(), counts.tolist(), strict=True)),
    )


def measured_confidence(boxes: Boxes) -> NDArray[np.float64]:
    """Returns the confidence of each box; a filled-in box gets the mean of the measured ones of its instance.

    A confidence of 0 or 0.99 means filled in, so a box that was measured at just that gets the mean as well.
    """
    number = boxes.instance_number
    measured = ~np.isin(boxes.confidence, (0.0, INTERPOLATED_CONFIDENCE))
    size = int(number.max(initial=-1)) + 1
    sums = np.bincount(number, weights=boxes.confidence * measured, minlength=size)
    counts = np.bincount(number, weights=measured, minlength=size)
    means = sums / np.maximum(counts, 1)
    return np.where(measured | (counts[number] == 0), boxes.confidence, means[number])


def threshold_curves(
    evidence: Sequence[Evidence], in_force: Mapping[str, float], lowest: Mapping[str, float]
) -> dict[str, ThresholdCurve]:
    """Returns the curve of each class that has a detected box.

    Args:
        evidence: of each video.
        in_force: by class, the threshold that the labels were written with.
        lowest: by class, the threshold below which nothing was stored.
    """
    if not evidence:
        return {}
    class_name = np.concatenate([part.class_name for part in evidence])
    confidence = np.concatenate([part.confidence for part in evidence])
    written = np.concatenate([part.written_cost for part in evidence])
    omitted = np.concatenate([part.omitted_cost for part in evidence])
    curves = {}
    for name in np.unique(class_name).tolist():
        ours = class_name == name
        never_found = sum(part.never_found.get(name, 0) for part in evidence)
        tried = GRID[lowest.get(name, 0.0) - 1e-9 <= GRID]
        order = np.flatnonzero(ours)[np.argsort(confidence[ours], kind="stable")]
        below = np.searchsorted(confidence[order], tried - 1e-9, side="left")
        omitted_below = np.concatenate([[0.0], np.cumsum(omitted[order])])
        written_from = np.concatenate([np.cumsum(written[order][::-1])[::-1], [0.0]])
        actions = omitted_below[below] + written_from[below] + never_found
        fewest = tried[actions <= actions.min() + 1e-9]
        now = in_force.get(name, 0.0)
        suggested = float(fewest[np.abs(fewest - now).argmin()])
        # No box may lie between two neighbouring thresholds: then the current one is as good.
        is_as_good = abs(suggested - now) <= 0.5 * (GRID[1] - GRID[0])
        curves[name] = ThresholdCurve(
            thresholds=tuple(tried.tolist()),
            actions=tuple(np.round(actions, 3).tolist()),
            in_force=now,
            suggested=now if is_as_good else suggested,
            num_boxes=len(order),
        )
    return curves


def _written_cost(compared: Compared) -> NDArray[np.float64]:
    """Returns what annotators did to each written box, (N,), in actions."""
    number, change = compared.written.instance_number, compared.change
    size = int(number.max(initial=-1)) + 1
    cost = compared.is_moved.astype(np.float64)
    is_gone = change == DELETED
    num, num_gone = np.bincount(number, minlength=size), np.bincount(number, weights=is_gone, minlength=size)
    is_whole = (num_gone == num)[number]
    cost[is_gone] += np.where(is_whole, 1 / np.maximum(num[number], 1), 1.0)[is_gone]
    renamed = change == RECLASSED
    pairs = np.column_stack([number, np.unique(compared.became, return_inverse=True)[1].reshape(-1)])[renamed]
    _, which, times = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
    cost[renamed] += 1 / times[which.reshape(-1)]
    return cost
