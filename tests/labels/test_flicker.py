"""Things that are seen on too few frames around."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from prelabel.data.frames import VideoInfo
from prelabel.data.label_map import build_label_map
from prelabel.data.ontology import Ontology
from prelabel.labels.filter import FilterRules, filter_detections
from prelabel.labels.flicker import Flicker, flickering
from tests.labelling import detections

NAMES = ("car", "truck", "person")
LABEL_MAP = build_label_map(NAMES, Ontology.from_classes(["Vehicle", "person"]), {"car": "Vehicle", "truck": "Vehicle"})


def box(x: float):
    return (x, 0, x + 10, 10)


def kept_frames(*frames, seen, of, num_frames=20, step=1):
    found = detections(*[(frame, box(0), 0.9, 0) for frame in frames], inferred_frames=range(0, num_frames, step))
    gone = flickering(found, found.class_id, Flicker(seen=seen, of=of))
    return found.frame_index[~gone].tolist()


def test_a_thing_stays_on_all_its_frames_at_both_ends_and_across_a_gap():
    assert kept_frames(3, 4, 6, 7, seen=3, of=5) == [3, 4, 6, 7]
    assert kept_frames(0, 1, 2, 17, 18, 19, seen=3, of=5) == [0, 1, 2, 17, 18, 19]


def test_what_is_seen_too_seldom_goes():
    assert kept_frames(3, 9, 10, seen=2, of=3) == [9, 10]
    assert kept_frames(3, 6, seen=2, of=3) == []


def test_frames_that_were_looked_at_count_not_those_between():
    assert kept_frames(0, 5, 10, seen=3, of=3, step=5) == [0, 5, 10]
    assert kept_frames(0, 5, 15, seen=3, of=3, step=5) == []


def test_a_thing_may_move_and_change_its_class_but_not_its_object():
    moving = detections((0, box(0), 0.9, 0), (1, box(4), 0.9, 1), (2, box(8), 0.9, 2))
    category = np.array(LABEL_MAP.category_index)[moving.class_id]
    assert flickering(moving, category, Flicker(seen=2, of=2)).tolist() == [False, False, True]


def test_pictures_do_not_follow_each_other():
    found = detections((0, box(0), 0.9, 0), (2, box(50), 0.9, 0))
    rules = FilterRules(flicker=Flicker())
    pictures = VideoInfo(width=100, height=50, num_frames=3)
    video = VideoInfo(width=100, height=50, num_frames=3, average_fps=10.0, duration_seconds=0.3)
    assert len(filter_detections(found, pictures, LABEL_MAP, rules).detections) == 2
    assert filter_detections(found, video, LABEL_MAP, rules).dropped == {"flicker": {"car": 2}}


def test_more_frames_than_there_are_is_an_error():
    with pytest.raises(ValidationError, match="seen: got 4, expected 3 or less"):
        Flicker(seen=4, of=3)
