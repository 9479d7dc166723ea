"""What is left of detections to label, and the count of the rest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prelabel.data.boxes import GRID, corners_on_grid
from prelabel.data.frames import VideoInfo
from prelabel.data.label_map import build_label_map
from prelabel.data.ontology import Ontology
from prelabel.errors import DetectError, OntologyError
from prelabel.labels.filter import FilterRules, filter_detections
from prelabel.labels.size_and_zones import SizeLimits
from tests.labelling import detections

INFO = VideoInfo(width=100, height=50, num_frames=10)
CLASSES = ["person", "car", "truck", "dog"]
LABEL_MAP = build_label_map(
    CLASSES, Ontology.from_classes(["person", "Vehicle"]), {"car": "Vehicle", "truck": "Vehicle", "dog": None}
)
BOX = (10, 10, 20, 20)


def test_boxes_are_cut_to_their_frame():
    filtered = filter_detections(detections((0, (-5, -5, 200, 20), 0.5, 0)), INFO, LABEL_MAP)
    assert filtered.detections.xyxy.tolist() == [[0, 0, 100, 20]]


def test_boxes_are_cut_to_the_size_of_their_own_picture():
    info = VideoInfo(width=100, height=50, num_frames=2, frame_sizes=((100, 50), (15, 12)))
    filtered = filter_detections(detections((0, BOX, 0.5, 0), (1, BOX, 0.5, 0)), info, LABEL_MAP)
    assert filtered.detections.xyxy.tolist() == [[10, 10, 20, 20], [10, 10, 15, 12]]


def test_box_without_an_area_at_five_decimals_is_dropped():
    found = detections((0, (110, 10, 120, 20), 0.5, 0), (0, (10, 10, 10.0001, 20), 0.5, 0), (0, (5, 5, 5, 9), 0.5, 1))
    filtered = filter_detections(found, INFO, LABEL_MAP)
    assert len(filtered.detections) == 0
    assert filtered.dropped == {"empty": {"person": 2, "car": 1}}


def test_thresholds_go_by_object_name_after_mapping():
    found = detections((0, BOX, 0.4, 0), (1, BOX, 0.4, 1), (2, BOX, 0.4, 2))
    filtered = filter_detections(found, INFO, LABEL_MAP, FilterRules(conf={"Vehicle": 0.5}))
    assert filtered.detections.class_id.tolist() == [0]
    assert filtered.dropped == {"low_confidence": {"car": 1, "truck": 1}}


@pytest.mark.parametrize("conf", [0.1, 0.3, 0.7, 0.9])
def test_confidence_at_the_threshold_is_kept(conf):
    filtered = filter_detections(detections((0, BOX, conf, 0)), INFO, LABEL_MAP, FilterRules(conf=conf))
    assert len(filtered.detections) == 1


def test_threshold_for_an_object_that_no_class_becomes_is_an_error():
    with pytest.raises(OntologyError, match="no class is mapped to an object 'vehicles': did you mean 'Vehicle'"):
        filter_detections(detections(), INFO, LABEL_MAP, FilterRules(conf={"vehicles": 0.5}))


def test_ignored_and_unmapped_classes_are_counted_apart():
    label_map = build_label_map(CLASSES, Ontology.from_classes(["person"]), {"dog": None})
    filtered = filter_detections(detections((0, BOX, 0.5, 3), (0, BOX, 0.5, 1), (0, BOX, 0.5, 0)), INFO, label_map)
    assert filtered.dropped == {"ignored": {"dog": 1}, "unmapped": {"car": 1}}
    assert sum(sum(by_class.values()) for by_class in filtered.dropped.values()) == 2


def test_of_equal_boxes_of_one_object_on_one_frame_the_most_confident_stays():
    found = detections((0, BOX, 0.5, 1), (0, BOX, 0.9, 2), (0, BOX, 0.5, 0), (1, BOX, 0.5, 1))
    filtered = filter_detections(found, INFO, LABEL_MAP)
    assert filtered.detections.class_id.tolist() == [2, 0, 1]
    assert filtered.dropped == {"duplicate": {"car": 1}}


def test_class_id_past_the_detectors_names_is_the_detectors_fault():
    with pytest.raises(DetectError, match="got 4, expected an index into the detector's 4 class_names"):
        filter_detections(detections((0, BOX, 0.5, 4)), INFO, LABEL_MAP)


def test_frames_that_were_looked_at_stay_known():
    filtered = filter_detections(
        detections((2, BOX, 0.1, 0), inferred_frames=range(5)), INFO, LABEL_MAP, FilterRules(conf=0.5)
    )
    assert filtered.detections.inferred_frames.tolist() == [0, 1, 2, 3, 4]


CORNER = st.floats(-30, 130, width=32)


@given(
    st.lists(
        st.tuples(st.integers(0, 9), CORNER, CORNER, CORNER, CORNER, st.floats(0, 1, width=32), st.integers(0, 3)),
        max_size=20,
    ),
    st.floats(0, 1),
)
def test_every_detection_is_kept_or_counted_and_what_is_kept_can_be_written(values, conf):
    rows = [
        (frame, (min(a, c), min(b, d), max(a, c), max(b, d)), confidence, class_id)
        for frame, a, b, c, d, confidence, class_id in sorted(values)
    ]
    filtered = filter_detections(detections(*rows), INFO, LABEL_MAP, FilterRules(conf=conf))
    kept = filtered.detections
    assert len(kept) + sum(sum(by_class.values()) for by_class in filtered.dropped.values()) == len(rows)
    grid = corners_on_grid(kept.xyxy, INFO.sizes(kept.frame_index))
    assert ((grid >= 0) & (grid <= GRID)).all()
    assert (grid[:, 2:] > grid[:, :2]).all()
    places = {
        (f, LABEL_MAP.objects[c].name, *box)
        for f, c, box in zip(kept.frame_index, kept.class_id, grid.tolist(), strict=True)
    }
    assert len(places) == len(kept)
    assert np.array_equal(filter_detections(kept, INFO, LABEL_MAP, FilterRules(conf=conf)).detections.xyxy, kept.xyxy)


def test_of_several_reasons_the_first_in_order_counts():
    rules = FilterRules(conf=0.5, size=SizeLimits(min_side_px=9), nms_iou=0.5, max_per_frame=1)
    found = detections(
        (0, (1, 1, 5, 5), 0.4, 0),  # unsure, and small
        (0, (1, 1, 5, 5), 0.6, 0),
        (0, BOX, 0.9, 0),
        (0, BOX, 0.8, 1),
        (0, (60, 10, 70, 20), 0.7, 2),
    )
    filtered = filter_detections(found, INFO, LABEL_MAP, rules)
    assert filtered.detections.confidence.tolist() == pytest.approx([0.9])
    assert filtered.dropped == {
        "low_confidence": {"person": 1},
        "too_small": {"person": 1},
        "overlapping": {"car": 1},
        "over_max_per_frame": {"truck": 1},
    }
