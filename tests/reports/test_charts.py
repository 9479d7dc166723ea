from __future__ import annotations

import numpy as np
import pytest

from prelabel.reports.render import MAX_BINS, bin_edges, timeline_of
from tests.reports.building import labelled


@pytest.mark.parametrize("num_frames", [1, 5, MAX_BINS, 1001])
@pytest.mark.parametrize("stride", [1, 7])
def test_every_part_of_a_chart_has_frames_and_every_frame_one_part(num_frames: int, stride: int):
    inferred = np.arange(0, num_frames, stride)
    edges = bin_edges(num_frames, inferred)
    counts = np.histogram(inferred, edges)[0]
    assert (edges[0], edges[-1]) == (0, num_frames)
    assert counts.sum() == len(inferred)
    assert counts.min() >= 1


def test_a_video_without_boxes_has_an_empty_timeline():
    timeline = timeline_of(labelled())
    assert (timeline.areas, timeline.mean, timeline.spread) == ((), "", "")
    assert timeline.description == "No boxes."


def test_a_timeline_shows_means_over_the_inferred_frames():
    rows = [(frame, (0, 0, 9, 9), 0.5, 0) for frame in (0, 0, 2, 4)]
    timeline = timeline_of(labelled(rows, inferred=[0, 2, 4]))
    assert timeline.most == 2
    assert timeline.description == "1.0 to 2.0 boxes a frame, mean confidence 0.50 to 0.50."
