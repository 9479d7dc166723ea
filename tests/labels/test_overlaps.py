"""Non-maximum suppression over all classes, and the most boxes that a frame may have."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prelabel.data.boxes import iou_matrix
from prelabel.labels.filter import over_max_per_frame, overlapping
from tests.labelling import detections

corner = st.integers(0, 12)
boxes = st.lists(
    st.tuples(st.integers(0, 2), corner, corner, st.integers(2, 8), st.sampled_from([0.2, 0.4, 0.4001, 0.8])),
    max_size=14,
)


def found_of(rows):
    return detections(
        *[(frame, (x, y, x + side, y + side), conf, n % 2) for n, (frame, x, y, side, conf) in enumerate(sorted(rows))]
    )


@given(boxes)
def test_what_stays_does_not_overlap_and_what_goes_is_overlapped_by_a_surer_box_that_stays(rows):
    found = found_of(rows)
    gone = overlapping(found, 0.3)
    same_frame = found.frame_index[:, None] == found.frame_index[None]
    overlap = (iou_matrix(found.xyxy, found.xyxy) > 0.3) & same_frame & ~np.eye(len(found), dtype=bool)
    assert not overlap[np.ix_(~gone, ~gone)].any()
    surer = found.confidence[None] >= found.confidence[:, None]
    assert (overlap & surer & ~gone[None])[gone].any(axis=1).all()


def test_a_box_that_only_a_suppressed_one_overlaps_stays():
    found = detections((0, (0, 0, 10, 10), 0.9, 0), (0, (4, 0, 14, 10), 0.8, 0), (0, (8, 0, 18, 10), 0.7, 1))
    assert overlapping(found, 0.4).tolist() == [False, True, False]


@given(boxes, st.integers(1, 4))
def test_each_frame_keeps_its_most_confident_boxes(rows, most):
    found = found_of(rows)
    over = over_max_per_frame(found, most)
    for frame in set(found.frame_index.tolist()):
        of_frame = found.frame_index == frame
        kept = sorted(found.confidence[of_frame & ~over].tolist())
        assert kept == sorted(found.confidence[of_frame].tolist())[-most:]
