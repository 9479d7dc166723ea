"""What each threshold would have cost, against what it costs when the labels are made with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prelabel.evaluate.compare import UNKNOWN_GEOMETRY, Boxes, compare_boxes
from prelabel.evaluate.edits import Edits
from prelabel.evaluate.thresholds import ThresholdCurve, threshold_curves, weigh_boxes
from tests.evaluate.plans import Plan, compare, edits_of, plans

NOTHING = Boxes(
    *(np.zeros(shape, kind) for shape, kind in [(0, int), ((0, 4), int), *[(0, "U1")] * 2, (0, float), (0, np.uint64)])
)


def boxes(*rows: tuple[int, float, str]) -> Boxes:
    """Rows are (place, confidence, class); places do not overlap."""
    return Boxes(
        frame_index=np.zeros(len(rows), np.int64),
        corners=np.array([(place * 1000, 0, place * 1000 + 900, 900) for place, _, _ in rows]).reshape(-1, 4),
        class_name=np.array([name for _, _, name in rows], np.str_),
        instance=np.full(len(rows), "", np.str_),
        confidence=np.array([confidence for _, confidence, _ in rows], np.float64),
        geometry=np.full(len(rows), UNKNOWN_GEOMETRY, np.uint64),
    )


def curve_of(written: Boxes, current: Boxes, unwritten: Boxes = NOTHING, in_force: float = 0.25) -> ThresholdCurve:
    overlaps = {"min_iou": 0.5, "accept_iou": 0.9}
    evidence = weigh_boxes(compare_boxes(written, current, **overlaps), unwritten, **overlaps)
    return threshold_curves([evidence], {"car": in_force}, {"car": 0.1})["car"]


def actions_said(plan: Plan, threshold: float) -> float:
    evidence = weigh_boxes(compare(plan), NOTHING, min_iou=0.5, accept_iou=1.0)
    curves = threshold_curves([evidence], {}, {})
    of_classes_without_a_box = sum(num for name, num in evidence.never_found.items() if name not in curves)
    return sum(curve.actions_at(threshold) for curve in curves.values()) + of_classes_without_a_box


@settings(max_examples=40)
@given(plans(tracks=False), st.sampled_from([0.5, 0.55, 0.6, 0.65, 0.8, 0.95]))
def test_the_curve_says_what_labels_made_with_that_threshold_cost(plan: Plan, threshold: float):
    compared = compare(plan)
    written = compared.written.where(compared.written.confidence >= threshold)
    again = compare_boxes(written, compared.current, min_iou=0.5, accept_iou=1.0)
    assert actions_said(plan, threshold) == pytest.approx(sum(edits_of(again).values(), Edits()).actions)


@settings(max_examples=40)
@given(plans(tracks=True))
def test_below_all_boxes_the_curve_says_what_people_did(plan: Plan):
    assert actions_said(plan, 0.0) == pytest.approx(sum(edits_of(compare(plan)).values(), Edits()).actions)


def test_false_boxes_below_true_ones_raise_the_threshold_between_them():
    written = boxes((1, 0.9, "car"), (2, 0.8, "car"), (3, 0.4, "car"), (4, 0.3, "car"))
    curve = curve_of(written, boxes((1, 1, "car"), (2, 1, "car")))
    assert curve.actions_at(0.25) == 2
    assert 0.4 < curve.suggested <= 0.8
    assert curve.suggested == 0.41  # of those without any action the nearest to the one in force
    assert curve.actions_at(curve.suggested) == 0


def test_a_found_but_unwritten_box_that_people_drew_lowers_the_threshold():
    curve = curve_of(boxes((1, 0.9, "car")), boxes((1, 1, "car"), (2, 1, "car")), boxes((2, 0.2, "car")))
    assert (curve.actions_at(0.25), curve.actions_at(0.2)) == (1, 0)
    assert curve.suggested == 0.2
    assert curve.thresholds[0] == 0.1


def test_a_threshold_that_nothing_betters_stays():
    curve = curve_of(boxes((1, 0.9, "car")), boxes((1, 1, "car")), in_force=0.333)
    assert curve.suggested == 0.333


def test_a_threshold_that_gains_less_than_a_hundredth_is_not_suggested():
    drawn = [(place, 1.0, "car") for place in range(1, 202)]  # of these, 200 are missing at every threshold
    for num_false, suggested in ((1, 0.25), (3, 0.41)):
        false = [(-place, 0.4, "car") for place in range(1, num_false + 1)]
        assert curve_of(boxes((1, 0.9, "car"), *false), boxes(*drawn)).suggested == suggested


def test_what_was_never_found_costs_the_same_at_every_threshold():
    curve = curve_of(boxes((1, 0.5, "car")), boxes((1, 1, "car"), (7, 1, "car")))
    assert set(curve.actions) == {1, 2}


@pytest.mark.parametrize("filled_in", [0.0, 0.99])
def test_a_box_that_was_filled_in_goes_with_its_instance(filled_in: float):
    written = boxes((1, 0.9, "car"), (2, filled_in, "car"))
    track = replace(written, instance=np.array(["a", "a"]))
    curve = curve_of(track, NOTHING)
    assert curve.actions_at(0.25) == pytest.approx(1)  # one deletion for the whole instance
    assert curve.actions_at(0.95) == 0
