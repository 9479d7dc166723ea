"""Computes the confidence threshold that needs the fewest corrections, class by class.

Corrections are counted box by box. A written box costs the actions that annotators took to correct it. A box that is
not written costs 1 if somebody has to draw it. For boxes above the current threshold, this is known. Boxes below it
were detected but not written: they count as right if they overlap a box that somebody added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prelabel.evaluate.compare import DELETED, RECLASSED, Boxes, Compared, compare_boxes
from prelabel.labels.row.own import INTERPOLATED_CONFIDENCE

GRID = np.round(np.linspace(0, 1, 101), 2)
"""The thresholds to compare."""

MIN_GAIN = 0.01
"""Least share of the actions that another threshold must save to be suggested."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """The number of actions that each detected box costs if it is written, and if it is not.

    Attributes:
        class_name: str (N,), the class with which the box was or would have been written.
        confidence: float64 (N,), 0..1.
        written_cost: float64 (N,), actions if the box is written; the boxes of an instance share its actions.
        omitted_cost: float64 (N,), actions if the box is not written: 1 if somebody would have to draw it, else 0.
        never_found: number of boxes to draw at every threshold, by class.
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
        actions: number of actions at each threshold.
        in_force: the threshold with which the labels were written.
        suggested: the threshold with the fewest actions; of several, the one nearest to `in_force`. It is `in_force`
            itself if no other saves an action and `MIN_GAIN`.
        num_boxes: number of detected boxes of the class, written or not.
    """

    thresholds: tuple[float, ...]
    actions: tuple[float, ...]
    in_force: float
    suggested: float
    num_boxes: int

    def actions_at(self, threshold: float) -> float:
        """Returns the number of actions at the nearest threshold of the curve."""
        return self.actions[int(np.abs(np.array(self.thresholds) - threshold).argmin())]


def weigh_boxes(compared: Compared, unwritten: Boxes, *, min_iou: float, accept_iou: float) -> Evidence:
    """Returns the number of actions that each box costs.

    Args:
        compared: the boxes before and after.
        unwritten: boxes that were detected on the same frames, but below the threshold.
        min_iou: overlap from which an unwritten box and an added one are the same thing.
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
    """Returns the confidence of each box, float64 (N,).

    A filled-in box gets the mean of the measured confidences of its instance. A confidence of 0 or 0.99 means filled
    in, so a box with exactly that measured confidence gets the mean too.
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
        in_force: by class, the threshold with which the labels were written.
        lowest: by class, the lowest threshold to compare, such as that below which no boxes were stored.
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
        # The current threshold may lie between two of the grid. Its nearest neighbour there is no better suggestion.
        is_near = abs(suggested - now) <= 0.5 * (GRID[1] - GRID[0])
        cost_now = actions[np.abs(tried - now).argmin()]
        gains = cost_now - actions.min() >= max(1, MIN_GAIN * cost_now) - 1e-9
        curves[name] = ThresholdCurve(
            thresholds=tuple(tried.tolist()),
            actions=tuple(np.round(actions, 3).tolist()),
            in_force=now,
            suggested=suggested if gains and not is_near else now,
            num_boxes=len(order),
        )
    return curves


def _written_cost(compared: Compared) -> NDArray[np.float64]:
    """Returns the number of actions that annotators took on each written box, float64 (N,)."""
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
