"""Tracks as wholes: merged and judged, on boxes made by hand."""

from __future__ import annotations

import pytest

from prelabel.data.frames import VideoInfo
from prelabel.labels.whole_tracks import TrackLimits, is_short, is_unsure, merge_duplicates
from tests.labelling import detections

VIDEO = VideoInfo(width=640, height=360, num_frames=200, average_fps=25.0, duration_seconds=8.0)


def box(x, y=100.0):
    return (x, y, x + 60, y + 120)


def tracks(*rows, num_frames=40):
    """Rows are (frame, corners, confidence, track)."""
    rows = sorted(rows, key=lambda row: row[0])
    boxes = [(frame, corners, confidence, 0) for frame, corners, confidence, _ in rows]
    return detections(*boxes, track_id=[row[3] for row in rows], inferred_frames=range(num_frames))


def test_a_duplicate_goes_on_as_the_surer_track_where_that_has_no_box():
    rows = [(n, box(100), 0.9, 1) for n in range(10)] + [(n, box(104), 0.5, 2) for n in range(4, 14)]
    found = tracks(*rows)
    track_id, is_dropped = merge_duplicates(found, 0.5)
    assert track_id[~is_dropped].tolist() == [1] * 14
    assert found.frame_index[~is_dropped].tolist() == list(range(14))
    assert is_dropped.sum() == 6


def test_three_tracks_on_one_thing_become_one():
    found = tracks(*[(n, box(100 + 2 * k), 0.9 - 0.1 * k, k) for n in range(10) for k in range(3)])
    track_id, is_dropped = merge_duplicates(found, 0.5)
    assert track_id[~is_dropped].tolist() == [0] * 10


def test_things_that_pass_each_other_are_not_merged():
    rows = [(n, box(10 * n), 0.9, 1) for n in range(30)] + [(n, box(300 - 10 * n), 0.8, 2) for n in range(30)]
    track_id, is_dropped = merge_duplicates(tracks(*rows), 0.5)
    assert not is_dropped.any()
    assert sorted(track_id.tolist()) == [1] * 30 + [2] * 30


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (TrackLimits(min_mean_conf=0.6), [2]),
        (TrackLimits(min_mean_conf=0.5), []),
        (TrackLimits(min_peak_conf=0.6), [2]),
        (TrackLimits(min_peak_conf=0.91), [1, 2, 3]),
        (TrackLimits(max_filled=0.4), [3]),
        (TrackLimits(max_filled=0.5), []),
        (TrackLimits(), []),
    ],
)
def test_an_unsure_track_is_one_of_low_confidence_or_with_many_holes(limits, expected):
    sure = [(n, box(0), 0.9, 1) for n in range(10)]
    unsure = [(n, box(200), 0.5, 2) for n in range(10)]
    sparse = [(n, box(400), 0.9, 3) for n in (0, 4, 8, 9, 10)] + [(n, box(400), 0.9, 3) for n in (11,)]
    found = tracks(*sure, *unsure, *sparse)
    assert sorted(set(found.track_id[is_unsure(found, VIDEO, limits)].tolist())) == expected


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (TrackLimits(min_length=5), [2]),
        (TrackLimits(min_length=4), []),
        (TrackLimits(min_seconds=0.4), []),
        (TrackLimits(min_seconds=0.41), [1, 2]),
    ],
)
def test_a_short_track_has_few_boxes_or_lasts_a_short_time(limits, expected):
    found = tracks(*[(n, box(0), 0.9, 1) for n in range(10)], *[(n, box(200), 0.9, 2) for n in (0, 3, 6, 9)])
    assert sorted(set(found.track_id[is_short(found, VIDEO, limits)].tolist())) == expected


def test_in_a_short_video_half_of_it_is_long_enough():
    short = VideoInfo(width=640, height=360, num_frames=10, average_fps=25.0, duration_seconds=0.4)
    found = tracks(*[(n, box(0), 0.9, 1) for n in range(5)], num_frames=10)
    assert not is_short(found, short, TrackLimits(min_seconds=0.4)).any()
