"""Counts the actions that labels take in an editor that interpolates, from scratch or as corrections of pre-labels.

In an editor, one action deletes, re-classes, splits or joins a whole instance. A few kept boxes represent all boxes of
a stretch of frames. So this module counts:

- 1 for each written instance that is gone as a whole, and 1 for each stretch that is gone from another instance;
- 1 for each new class of an instance;
- 1 for each further thing that a written instance covers (a split), and 1 for each further written instance of a thing
  (a join);
- for each stretch of a thing whose boxes were moved or added: the number of boxes to draw. Straight lines between kept
  boxes must overlap every box of the stretch by the acceptance. An accepted box is a kept box too: a line may begin or
  end there without a new box. A stretch between two accepted boxes still takes 1, to interpolate it again.

From scratch, somebody draws every stretch of every thing, with as many boxes as the straight lines need.
"""

from __future__ import annotations

from collections import Counter, deque

import numpy as np
from numpy.typing import NDArray

from prelabel.evaluate.compare import DELETED, RECLASSED, Boxes, Compared
from prelabel.labels.keyframes import farthest_ends, line_holds


def count_corrections(compared: Compared, frames: NDArray[np.int64], accept_iou: float) -> Counter[str]:
    """Returns the number of actions that correct the written boxes, by class.

    Boxes to draw and joins count for the current class of the thing, all other actions for the written class.

    Args:
        compared: the boxes of a video before and after.
        frames: the compared frames, rising; consecutive ones belong to the same stretch.
        accept_iou: overlap from which a box on a line is good enough.
    """
    written, current, row = compared.written, compared.current, compared.current_row
    is_there = row >= 0
    is_right = ~compared.is_added
    is_right[row[compared.is_moved]] = False
    shown = current.corners.copy()
    shown[row[is_there]] = written.corners[is_there]
    actions = _boxes_to_draw(current, shown, is_right, frames, accept_iou)

    instance, now = written.instance_number, current.instance_number
    pairs = np.column_stack([instance[is_there], now[row[is_there]]])
    pairs, times = np.unique(pairs, axis=0, return_counts=True)
    class_of, class_now = _class_of_instances(written), _class_of_instances(current)
    actions.update(class_of[number] for number in np.setdiff1d(instance, pairs[:, 0]))
    actions.update(class_of[number] for number in _repeated(pairs[:, 0]))
    actions.update(class_now[number] for number in _repeated(pairs[:, 1]))
    renamed = np.flatnonzero(compared.change == RECLASSED)
    for number, _ in {(int(instance[place]), str(compared.became[place])) for place in renamed}:
        actions[class_of[number]] += 1

    # Drawing a thing's boxes on a stretch replaces the boxes that it had there, so nobody deletes them first.
    became = {int(pairs[place, 0]): int(pairs[place, 1]) for place in np.argsort(times, kind="stable")}
    drawn = set(zip(now[compared.is_added].tolist(), current.frame_index[compared.is_added].tolist(), strict=True))
    is_gone = [
        change == DELETED and number in became and (became[number], frame) not in drawn
        for change, number, frame in zip(compared.change, instance.tolist(), written.frame_index.tolist(), strict=True)
    ]
    order, bounds = _stretches(instance, written.frame_index, frames, np.flatnonzero(is_gone))
    actions.update(class_of[number] for number in instance[order[bounds[:-1]]].tolist())
    return actions


def count_from_scratch(current: Boxes, frames: NDArray[np.int64], accept_iou: float) -> Counter[str]:
    """Returns the number of actions that draw all boxes, by class.

    `frames` and `accept_iou` are as in `count_corrections`.
    """
    return _boxes_to_draw(current, current.corners, np.zeros(len(current), np.bool_), frames, accept_iou)


def fewest_drawn(
    frame_index: NDArray[np.int64],
    wanted: NDArray[np.int64],
    shown: NDArray[np.int64],
    is_right: NDArray[np.bool_],
    accept_iou: float,
) -> int:
    """Returns the smallest number of boxes of a stretch that somebody must draw.

    Straight lines between the drawn boxes and the right ones then reproduce the whole stretch.

    Args:
        frame_index: (N,), rising.
        wanted: (N, 4), corners of the thing.
        shown: (N, 4), corners of the written boxes; only those of right boxes are read.
        is_right: (N,), whether a written box may stay as it is.
        accept_iou: least overlap of a line with the wanted boxes.

    >>> wanted = np.array([[x, 0, x + 10, 10] for x in (0, 1, 2, 3, 2, 1, 0)])
    >>> none_right = np.zeros(7, np.bool_)
    >>> fewest_drawn(np.arange(7), wanted, wanted, none_right, 0.9)
    3
    >>> fewest_drawn(np.arange(7), wanted, wanted, np.array([1, 0, 0, 1, 1, 1, 1], np.bool_), 0.9)
    1
    """
    if is_right.all():
        return 0
    num = len(frame_index)
    frames = frame_index.astype(np.float64)
    goal = wanted.astype(np.float64)
    ends_at = np.where(is_right[:, None], shown, wanted).astype(np.float64)
    reach = farthest_ends(frames, ends_at, goal, accept_iou)
    # This is a breadth-first search with steps that cost 0 or 1. Steps of cost 0 go to the front of the queue, the
    # others to its end, so the queue is ordered by cost.
    cost = np.full(num, num + 1)
    cost[0] = not is_right[0]
    waiting, is_done = deque([0]), np.zeros(num, np.bool_)
    while waiting:
        row = waiting.popleft()
        if is_done[row]:
            continue
        is_done[row] = True
        ends = np.arange(row + 1, reach[row] + 1)
        is_step = is_right[ends] & (ends == row + 1)
        step = np.where(is_right[ends] & ~is_right[row] | is_step, 0, 1)
        is_better = cost[row] + step < cost[ends]
        ends, step = ends[is_better], step[is_better]
        holds = line_holds(frames, ends_at, goal, row, ends, accept_iou)
        ends, step = ends[holds], step[holds]
        cost[ends] = cost[row] + step
        waiting.extendleft(ends[step == 0].tolist())
        waiting.extend(ends[step == 1][::-1].tolist())
    return int(cost[-1])


def _boxes_to_draw(
    current: Boxes, shown: NDArray[np.int64], is_right: NDArray[np.bool_], frames: NDArray[np.int64], accept_iou: float
) -> Counter[str]:
    """Returns the number of boxes to draw by class, summed over all stretches."""
    order, bounds = _stretches(current.instance_number, current.frame_index, frames, np.arange(len(current)))
    num_boxes, class_name = np.diff(bounds), current.class_name[order[bounds[:-1]]]
    num_right = np.diff(np.append(0, np.cumsum(is_right[order]))[bounds])
    # Most stretches are one box if each box is an instance.
    actions = Counter(class_name[(num_boxes == 1) & (num_right == 0)].tolist())
    for n in np.flatnonzero((num_boxes > 1) & (num_right < num_boxes)).tolist():
        rows = order[bounds[n] : bounds[n + 1]]
        columns = (current.frame_index[rows], current.corners[rows], shown[rows], is_right[rows])
        actions[str(class_name[n])] += fewest_drawn(*columns, accept_iou)
    return actions


def _stretches(
    instance: NDArray[np.int64], frame_index: NDArray[np.int64], frames: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the given rows ordered by stretch, and where each of the S stretches begins and ends, int64 (S + 1,).

    A stretch ends where the instance changes, and where a compared frame lies between two rows.
    """
    order = rows[np.lexsort((frame_index[rows], instance[rows]))]
    place = np.searchsorted(frames, frame_index[order])
    ends = (np.diff(instance[order]) != 0) | (np.diff(place) != 1)
    begins = np.append(np.zeros(min(len(order), 1), np.int64), np.flatnonzero(ends) + 1)
    return order, np.append(begins, len(order))


def _class_of_instances(boxes: Boxes) -> list[str]:
    """Returns the class of each instance's first box."""
    _, first = np.unique(boxes.instance_number, return_index=True)
    names: list[str] = boxes.class_name[first].tolist()
    return names


def _repeated(numbers: NDArray[np.int64]) -> list[int]:
    """Returns each number as often as it occurs after its first time.

    >>> _repeated(np.array([3, 5, 3, 3]))
    [3, 3]
    """
    return [number for number, times in Counter(numbers.tolist()).items() for _ in range(times - 1)]
