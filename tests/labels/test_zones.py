"""Zones: polygons in fractions of the frame, met with a box's centre or with a part of its area."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from prelabel.labels.size_and_zones import Zones, is_out_of_zone, overlap_areas, points_in_polygon

SIZES = np.array([[200, 100]])
LEFT = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))
NOTCHED = np.array([[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.5, 0.3], [0.1, 0.9]])
"""A square whose lower side is pushed in to a point: not convex; its area is 0.64 - 0.8 * 0.6 / 2 = 0.4."""

unit = st.floats(0, 1).map(lambda value: round(value, 4))


def is_out(box, **zones) -> bool:
    return bool(is_out_of_zone(np.array([box], np.float32), SIZES, Zones(**zones))[0])


def test_the_centre_decides_where_nothing_else_is_said():
    assert not is_out((80, 40, 118, 60), include=(LEFT,))
    assert is_out((82, 40, 120, 60), include=(LEFT,))


def test_a_part_of_the_area_decides_where_one_is_given():
    three_quarters_left = (70, 40, 110, 60)
    assert not is_out(three_quarters_left, include=(LEFT,), min_overlap=0.75)
    assert is_out(three_quarters_left, include=(LEFT,), min_overlap=0.76)
    assert not is_out((0, 0, 100, 100), include=(LEFT,), min_overlap=1)


def test_one_zone_of_several_is_enough_and_an_excluded_one_weighs_more():
    corner = ((0.9, 0.9), (1.0, 0.9), (1.0, 1.0))
    assert not is_out((10, 10, 20, 20), include=(corner, LEFT))
    assert is_out((10, 10, 20, 20), include=(LEFT,), exclude=(((0, 0), (0.2, 0), (0, 0.4)),))
    assert is_out((10, 10, 20, 20), exclude=(LEFT,))
    assert not is_out((10, 10, 20, 20))


def test_what_lies_in_a_notch_is_not_in_the_polygon():
    points = np.array([[0.5, 0.2], [0.5, 0.5], [0.15, 0.7], [0.05, 0.5]])
    assert points_in_polygon(points, NOTCHED).tolist() == [True, False, True, False]


def test_overlap_with_the_whole_frame_is_the_polygons_area_whichever_way_round_it_goes():
    for polygon in (NOTCHED, NOTCHED[::-1]):
        assert overlap_areas(np.array([[0, 0, 1.0, 1.0]]), polygon) == pytest.approx([0.4])


@given(x=unit, y=unit)
def test_overlaps_of_boxes_that_fill_the_frame_sum_to_the_polygons_area(x, y):
    boxes = np.array([[0, 0, x, y], [x, 0, 1, y], [0, y, x, 1], [x, y, 1, 1]])
    areas = overlap_areas(boxes, NOTCHED)
    assert areas.sum() == pytest.approx(0.4)
    assert (areas <= np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) + 1e-9).all()


@given(st.lists(unit, min_size=4, max_size=4), st.lists(unit, min_size=4, max_size=4))
def test_overlap_with_an_upright_rectangle_is_that_of_two_boxes(one, other):
    (x1, x2), (y1, y2) = sorted(one[:2]), sorted(one[2:])
    (u1, u2), (v1, v2) = sorted(other[:2]), sorted(other[2:])
    rectangle = np.array([[u1, v1], [u2, v1], [u2, v2], [u1, v2]])
    expected = max(0, min(x2, u2) - max(x1, u1)) * max(0, min(y2, v2) - max(y1, v1))
    assert overlap_areas(np.array([[x1, y1, x2, y2]]), rectangle) == pytest.approx([expected], abs=1e-9)


@pytest.mark.parametrize("polygon", [((0, 0), (1, 1)), ((0, 0), (1, 0), (0, 1.5))])
def test_a_polygon_needs_three_corners_within_the_frame(polygon):
    with pytest.raises(ValidationError):
        Zones(include=(polygon,))
