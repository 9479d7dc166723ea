from __future__ import annotations

import numpy as np
import pytest

from prelabel.reports.charts import MAX_BINS, Bins
from prelabel.reports.video_page import timeline_of
from tests.reports.test_previews import labelled


@pytest.mark.parametrize("num_frames", [1, 5, MAX_BINS, 1001])
@pytest.mark.parametrize("stride", [1, 7])
def test_every_frame_is_in_one_part(num_frames: int, stride: int):
    seen = np.arange(0, num_frames, stride)
    bins = Bins.of(num_frames, seen)
    assert bins.num_frames.sum() == len(seen)
    assert bins.num_frames.min() >= 1
    assert bins.count(seen).tolist() == bins.num_frames.tolist()


def test_a_video_without_boxes_has_an_empty_timeline():
    timeline = timeline_of(labelled())
    assert (timeline.areas, timeline.mean, timeline.spread) == ((), "", "")
    assert timeline.description == "No boxes."


def test_parts_are_means_over_the_frames_that_were_looked_at():
    rows = [(frame, (0, 0, 9, 9), 0.5, 0) for frame in (0, 0, 2, 4)]
    timeline = timeline_of(labelled(rows, inferred=[0, 2, 4]))
    assert timeline.most == 2
    assert timeline.description == "1.0 to 2.0 boxes a frame, mean confidence 0.50 to 0.50."
