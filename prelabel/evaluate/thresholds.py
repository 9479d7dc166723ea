"""Which confidence threshold would have cost people the fewest corrections, class by class.

A box that is written costs what people did to it; one that is not costs a drawing where there is something to draw.
What boxes above the threshold in force cost is known. For those below it, which were found but not written, it is
estimated: by whether they meet a box that somebody added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prelabel.evaluate.boxes import Boxes
from prelabel.evaluate.compare import DELETED, RECLASSED, Compared, compare_boxes
from prelabel.labels.row.own import INTERPOLATED_CONFIDENCE

GRID = np.round(np.linspace(0, 1, 101), 2)
"""Thresholds that are tried."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What writing each box costs, against leaving it out; one row a box that was found.

    Attributes:
        class_name: str (N,), that it was, or would have been, written as.
        confidence: float64 (N,).
        written_cost: float64 (N,), actions if it is written. What is one action for a whole instance is shared by its
            boxes.
        omitted_cost: float64 (N,), actions if it is not: 1 where it would have to be drawn.
        never_found: by class, boxes that had to be drawn whatever the threshold.
    """

    class_name: NDArray[np.str_]
    confidence: NDArray[np.float64]
    written_cost: NDArray[np.float64]
    omitted_cost: NDArray[np.float64]
    never_found: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ThresholdCurve:
    """What people's corrections cost at each threshold of one class.

    Attributes:
        thresholds: rising; the first is the lowest of which something is known.
        actions: as many, at each.
        in_force: the threshold that the labels were written with.
        suggested: the one with the fewest actions; of equals the one nearest to `in_force`.
        num_boxes: boxes of the class that were found, written or not.
    """

    thresholds: tuple[float, ...]
    actions: tuple[float, ...]
    in_force: float
    suggested: float
    num_boxes: int

    def actions_at(self, threshold: float) -> float:
        """Returns the actions at the threshold of the curve nearest to this one."""
        return self.actions[int(np.abs(np.array(self.thresholds) - threshold).argmin())]


def weigh_boxes(compared: Compared, unwritten: Boxes, *, min_iou: float, accept_iou: float) -> Evidence:
    """Returns what each box costs.

    Args:
        compared: what was written and what became of it.
        unwritten: found in the same frames, but below the threshold.
        min_iou: overlap from which an unwritten box and one that was added are the same thing.
        accept_iou: overlap from which nobody would have moved it.
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
        omitted_cost=np.concatenate([(part.outcome != DELETED).astype(np.float64) for part in parts]),
        never_found=dict(zip(names.tolist(), counts.tolist(), strict=True)),
    )


def measured_confidence(boxes: Boxes) -> NDArray[np.float64]:
    """Returns the confidence of each box; of one that was filled in, the mean of those measured in its instance.

    One that was measured as what stands for filled in, 0 or 0.99, takes the mean of its instance as well.
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
    """Returns the curve of each class of which a box was found.

    Args:
        evidence: of each video.
        in_force: threshold by class with which the labels were written.
        lowest: threshold by class below which nothing was kept.
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
        actions = _actions_at(tried, confidence[ours], written[ours], omitted[ours]) + never_found
        curves[name] = _curve(tried, actions, in_force.get(name, 0.0), int(ours.sum()))
    return curves


def _curve(tried: NDArray[np.float64], actions: NDArray[np.float64], in_force: float, num_boxes: int) -> ThresholdCurve:
    fewest = np.flatnonzero(actions <= actions.min() + 1e-9)
    suggested = tried[fewest[np.abs(tried[fewest] - in_force).argmin()]]
    # Between two of the thresholds tried there may be no box: then the one in force is as good.
    is_as_good = abs(suggested - in_force) <= 0.5 * (GRID[1] - GRID[0])
    return ThresholdCurve(
        thresholds=tuple(tried.tolist()),
        actions=tuple(np.round(actions, 3).tolist()),
        in_force=in_force,
        suggested=in_force if is_as_good else float(suggested),
        num_boxes=num_boxes,
    )


def _actions_at(
    tried: NDArray[np.float64],
    confidence: NDArray[np.float64],
    written: NDArray[np.float64],
    omitted: NDArray[np.float64],
) -> NDArray[np.float64]:
    order = np.argsort(confidence, kind="stable")
    below = np.searchsorted(confidence[order], tried - 1e-9, side="left")
    omitted_below = np.concatenate([[0.0], np.cumsum(omitted[order])])
    written_from = np.concatenate([np.cumsum(written[order][::-1])[::-1], [0.0]])
    actions: NDArray[np.float64] = omitted_below[below] + written_from[below]
    return actions


def _written_cost(compared: Compared) -> NDArray[np.float64]:
    number, outcome = compared.written.instance_number, compared.outcome
    cost = compared.is_moved.astype(np.float64)
    size = int(number.max(initial=-1)) + 1
    is_gone = outcome == DELETED
    num, num_gone = np.bincount(number, minlength=size), np.bincount(number, weights=is_gone, minlength=size)
    whole = num_gone == num
    cost += np.where(is_gone, np.where(whole[number], 1 / np.maximum(num[number], 1), 1.0), 0.0)
    renamed = outcome == RECLASSED
    pairs = np.column_stack([number, np.unique(compared.became, return_inverse=True)[1].reshape(-1)])[renamed]
    _, which, times = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
    cost[renamed] += 1 / times[which.reshape(-1)]
    return cost
