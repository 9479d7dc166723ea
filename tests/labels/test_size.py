"""Limits of size and aspect, through the whole filter: on the box clipped to the frame."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from prelabel.data.frames import VideoInfo
from prelabel.data.label_map import build_label_map
from prelabel.data.ontology import Ontology
from prelabel.labels.filter import FilterRules, filter_detections
from prelabel.labels.size_and_zones import SizeLimits
from tests.labelling import detections

INFO = VideoInfo(width=100, height=50, num_frames=10)
LABEL_MAP = build_label_map(["thing"], Ontology.from_classes(["thing"]), {})


def reasons(box, **limits) -> list[str]:
    rules = FilterRules(size=SizeLimits(**limits))
    return list(filter_detections(detections((0, box, 0.9, 0)), INFO, LABEL_MAP, rules).dropped)


@pytest.mark.parametrize(
    ("limits", "box", "reason"),
    [
        ({"min_side_px": 10}, (0, 0, 30, 10), []),
        ({"min_side_px": 10}, (0, 0, 30, 9.5), ["too_small"]),
        ({"min_area": 0.1}, (0, 0, 25, 20), []),
        ({"min_area": 0.1}, (0, 0, 24, 20), ["too_small"]),
        ({"max_side_px": 60}, (0, 0, 60, 40), []),
        ({"max_side_px": 60}, (0, 0, 61, 40), ["too_large"]),
        ({"max_area": 0.5}, (0, 0, 100, 25), []),
        ({"max_area": 0.5}, (0, 0, 100, 26), ["too_large"]),
        ({"min_aspect": 0.5, "max_aspect": 2}, (0, 0, 20, 10), []),
        ({"min_aspect": 0.5}, (0, 0, 9, 20), ["aspect"]),
        ({"max_aspect": 2}, (0, 0, 21, 10), ["aspect"]),
    ],
)
def test_a_limit_itself_is_let_through_and_what_is_past_it_is_not(limits, box, reason):
    assert reasons(box, **limits) == reason


def test_size_is_that_of_the_part_within_the_frame():
    assert reasons((-50, 0, 5, 30), min_side_px=10) == ["too_small"]


def test_an_area_is_a_fraction_of_the_boxs_own_picture():
    info = VideoInfo(width=100, height=50, num_frames=2, frame_sizes=((100, 50), (20, 20)))
    found = detections((0, (0, 0, 10, 10), 0.9, 0), (1, (0, 0, 10, 10), 0.9, 0))
    filtered = filter_detections(found, info, LABEL_MAP, FilterRules(size=SizeLimits(min_area=0.1)))
    assert filtered.detections.frame_index.tolist() == [1]


def test_limits_the_wrong_way_round_are_an_error():
    with pytest.raises(ValidationError, match=r"min_area: got 0\.5, expected max_area or less, which is 0\.1"):
        SizeLimits(min_area=0.5, max_area=0.1)
