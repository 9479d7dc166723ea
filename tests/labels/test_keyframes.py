"""Few boxes of a track: the smallest set there is, what stands between them, and what is lost."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prelabel.data.boxes import paired_iou
from prelabel.data.frames import VideoInfo
from prelabel.labels import keyframes as kept_boxes
from prelabel.labels.keyframes import (
    AUTO_MEAN_IOU,
    MAX_SPAN,
    Keyframes,
    KeyframeStats,
    Smoothing,
    fit_locally,
    keep_keyframes,
    runs,
    select_keyframes,
    smooth_boxes,
)
from tests.labelling import detections

VIDEO = VideoInfo(width=640, height=360, num_frames=400, average_fps=25.0, duration_seconds=16.0)


def box(x, side=40.0):
    return (x, 100.0, x + side, 100.0 + side)


def track(xs, frames=None, looked_at=None, number=1):
    """Returns a track whose boxes stand at `xs`, by default on every frame."""
    frames = range(len(xs)) if frames is None else frames
    rows = [(frame, box(x), 0.9, 0) for frame, x in zip(frames, xs, strict=True)]
    return detections(*rows, inferred_frames=looked_at or frames, track_id=number)


def thin(tracked, **keyframes):
    return keep_keyframes(tracked, VIDEO, Keyframes(**keyframes), tracked.xyxy)


def on_lines(frames, boxes, kept):
    return np.stack([np.interp(frames, frames[kept], side) for side in boxes[kept].T], axis=1)


walks = st.lists(
    st.tuples(st.integers(1, 3), st.floats(-6, 6), st.floats(-6, 6), st.floats(20, 40), st.floats(20, 40)),
    min_size=1,
    max_size=9,
)


@settings(max_examples=60)
@given(walks, st.sampled_from([0.5, 0.8, 0.9]))
def test_no_smaller_set_reproduces_the_track_and_this_one_does(walk, min_iou):
    steps = np.array(walk)
    frames = np.cumsum(steps[:, 0]).astype(int)
    corner = np.cumsum(steps[:, 1:3], axis=0) + 100
    boxes = np.concatenate([corner, corner + steps[:, 3:]], axis=1)
    kept = select_keyframes(frames, boxes, min_iou)
    assert paired_iou(on_lines(frames, boxes, kept), boxes).min() >= min_iou - 1e-9
    last = len(frames) - 1
    for size in range(len(kept) - 2):
        for between in combinations(range(1, last), size):
            smaller = np.array([0, *between, last])
            assert paired_iou(on_lines(frames, boxes, smaller), boxes).min() < min_iou + 1e-9


def test_a_thing_that_stands_still_has_a_box_every_so_often():
    num = 2 * MAX_SPAN + 2
    boxes = np.tile(np.array(box(50), np.float32), (num, 1))
    assert len(select_keyframes(np.arange(num), boxes, 0.9)) == 4


def test_lines_checked_at_few_boxes_first_are_those_that_hold_at_all(monkeypatch):
    rng = np.random.default_rng(0)
    corner = np.cumsum(rng.normal(0, 0.3, (120, 2)), axis=0) + rng.normal(0, 0.8, (120, 2))
    boxes = np.concatenate([corner, corner + np.array([60, 120])], axis=1).astype(np.float32)
    kept = select_keyframes(np.arange(120), boxes, 0.9)
    monkeypatch.setattr(kept_boxes, "COARSE_STEP", 300)
    assert kept.tolist() == select_keyframes(np.arange(120), boxes, 0.9).tolist()


def test_frames_between_are_filled_on_the_line_marked_and_without_confidence():
    few, thinning = thin(track([0, 10, 20, 30, 20, 10, 0]))
    assert few.frame_index.tolist() == list(range(7))
    assert few.xyxy[:, 0].tolist() == pytest.approx([0, 10, 20, 30, 20, 10, 0])
    assert few.interpolated.tolist() == [False, True, True, False, True, True, False]
    assert few.confidence.tolist() == pytest.approx([0.9, 0, 0, 0.9, 0, 0, 0.9])
    assert thinning == KeyframeStats(num_found=7, num_kept=3, mean_iou=pytest.approx(1), min_iou=pytest.approx(1))


def test_frames_that_were_not_looked_at_get_boxes_too():
    few, thinning = thin(track([0, 10, 20], frames=[0, 5, 10]))
    assert few.frame_index.tolist() == list(range(11))
    assert few.xyxy[:, 0].tolist() == pytest.approx([2 * frame for frame in range(11)])
    assert (thinning.num_found, thinning.num_kept) == (3, 2)


def test_what_is_lost_is_told_against_the_boxes_that_were_found():
    tracked = track([0, 1, 0])
    few, thinning = thin(tracked)
    assert few.interpolated.tolist() == [False, True, False]
    assert thinning.min_iou == pytest.approx(39 / 41)
    assert thinning.mean_iou == pytest.approx((2 + 39 / 41) / 3)


def test_with_nothing_between_only_what_was_found_is_left():
    few, _ = thin(track([0, 10, 20, 30, 20, 10, 0]), between="empty")
    assert few.frame_index.tolist() == [0, 3, 6]
    assert not few.interpolated.any()
    assert few.track_id.tolist() == [1, 1, 1]


def test_a_gap_is_not_joined_and_with_nothing_between_it_parts_the_track():
    frames = [0, 1, 2, 20, 21, 22]
    gapped = track([0, 1, 2, 20, 21, 22], frames=frames, looked_at=range(30))
    filled, _ = thin(gapped)
    assert (filled.frame_index.tolist(), set(filled.track_id.tolist())) == (frames, {1})
    empty, _ = thin(gapped, between="empty")
    assert (empty.frame_index.tolist(), empty.track_id.tolist()) == ([0, 2, 20, 22], [1, 1, 2, 2])


def test_frame_ranges_far_apart_are_not_joined():
    frames = [0, 1, 2, 3, 40, 41, 42, 43]
    few, _ = thin(track([0] * 8, frames=frames))
    assert few.frame_index.tolist() == frames


def test_tracks_beside_each_other_keep_to_themselves():
    both = detections(
        *[(frame, box(x + offset), 0.9, 0) for frame, x in enumerate((0, 1, 2)) for offset in (0, 300)],
        track_id=[1, 2] * 3,
    )
    few, thinning = thin(both)
    assert few.xyxy[few.track_id == 2, 0].tolist() == [300, 301, 302]
    assert (few.track_id.tolist(), thinning.num_kept) == ([1, 2] * 3, 4)


def test_nothing_found_is_nothing_lost():
    assert thin(track([]))[1] == KeyframeStats(0, 0, 1.0, 1.0)


def test_smoothing_leaves_a_steady_motion_and_takes_jitter_away():
    steady = track([3 * n for n in range(20)])
    assert smooth_boxes(steady, VIDEO, Smoothing(0.2)) == pytest.approx(steady.xyxy, abs=1e-3)
    jitter = np.random.default_rng(0).normal(0, 2, 100)
    smooth = smooth_boxes(track([3 * n + 50 + off for n, off in enumerate(jitter)]), VIDEO, Smoothing(0.2))[:, 0]
    left = smooth - np.array([3 * n + 50 for n in range(100)])
    assert left.std() < jitter.std() / 2


def test_smoothing_stops_at_a_gap_and_within_the_frame():
    jump = track([0] * 5 + [200] * 5, frames=[*range(5), *range(20, 25)], looked_at=range(30))
    assert smooth_boxes(jump, VIDEO, Smoothing(1.0)) == pytest.approx(jump.xyxy, abs=1e-3)
    at_the_edge = track([600, 600, 600, 580])
    assert smooth_boxes(at_the_edge, VIDEO, Smoothing(0.04))[:, 2].max() <= VIDEO.width


def test_no_smoothing_is_none():
    jittery = track([0, 5, 1, 7])
    assert smooth_boxes(jittery, VIDEO, Smoothing(0)) is jittery.xyxy


def test_smoothed_values_are_those_of_weighted_lines():
    """The corners of one jump, computed by numpy's weighted least squares over all boxes within three sigmas."""
    jumps = track([0.0] * 10 + [20.0] * 10)
    sigma = 0.1
    smooth = smooth_boxes(jumps, VIDEO, Smoothing(sigma))[:, 0]
    seconds, xs = jumps.frame_index / VIDEO.average_fps, jumps.xyxy[:, 0].astype(float)
    for row, at in enumerate(seconds):
        near = np.abs(seconds - at) <= 3 * sigma + 1e-9
        weight = np.exp(-0.25 * ((seconds[near] - at) / sigma) ** 2)  # polyfit squares its weights
        line = np.polyfit(seconds[near] - at, xs[near], 1, w=weight)
        assert smooth[row] == pytest.approx(max(line[1], 0), abs=1e-3)


def test_a_box_exactly_three_sigmas_away_still_counts():
    places, values = np.arange(8.0), np.array([0.0] * 4 + [10.0] * 4)
    smooth = fit_locally(places, values[:, None], sigma=1.0)[:, 0]
    near = np.arange(1, 8)  # from place 4
    line = np.polyfit(places[near] - 4, values[near], 1, w=np.exp(-0.25 * (places[near] - 4) ** 2))
    assert smooth[4] == pytest.approx(line[1])


def test_a_box_that_smoothing_would_move_out_of_the_frame_stays():
    leaving = track([0, 300, 600, 600])
    smooth = smooth_boxes(leaving, VIDEO, Smoothing(0.08))  # its line ends at 669 of 640 pixels
    assert smooth[3].tolist() == leaving.xyxy[3].tolist()
    assert smooth[1].tolist() != leaving.xyxy[1].tolist()


def test_a_frame_without_the_thing_ends_a_run_however_near_the_next_is():
    tracked = track([0, 0], frames=[0, 2], looked_at=[0, 1, 2, 4, 6, 8])
    assert [rows.tolist() for rows in runs(tracked)] == [[0], [1]]


def test_auto_smooths_as_much_as_the_detected_boxes_allow():
    jitter = np.random.default_rng(0).normal(0, 1, 100)
    jittery = track([3 * n + 50 + off for n, off in enumerate(jitter)])
    smooth = smooth_boxes(jittery, VIDEO, Smoothing("auto"))
    off = smooth[:, 0] - np.array([3 * n + 50 for n in range(100)])
    overlaps = paired_iou(smooth, jittery.xyxy)
    assert off.std() < 0.7 * jitter.std()
    assert overlaps.mean() >= AUTO_MEAN_IOU
    assert overlaps.min() >= 0.9


def test_auto_keeps_each_box_close_to_its_detected_box():
    jump = track([0] * 30 + [15] + [0] * 30)  # the mean allows more than this one box does
    for min_iou in (0.9, 0.95):
        smooth = smooth_boxes(jump, VIDEO, Smoothing("auto", min_iou=min_iou))
        assert paired_iou(smooth, jump.xyxy).min() >= min_iou
        assert (smooth != jump.xyxy).any()


def test_auto_leaves_a_sharp_motion_that_it_would_lose():
    turns = track([200 + (40 if n % 2 else 0) for n in range(20)])
    assert smooth_boxes(turns, VIDEO, Smoothing("auto")).tolist() == turns.xyxy.tolist()


def test_smoothing_continues_over_a_gap_that_is_filled_in():
    moved = track([0] * 8 + [10] * 8, frames=[*range(8), *range(12, 20)], looked_at=range(20))
    assert smooth_boxes(moved, VIDEO, Smoothing(0.3)) == pytest.approx(moved.xyxy, abs=1e-3)
    joined = smooth_boxes(moved, VIDEO, Smoothing(0.3, max_gap_seconds=0.3))
    assert joined[7, 0] > 1
    assert joined[8, 0] < 9


def test_lines_between_smoothed_boxes_fit_the_detected_ones():
    found = track((3 * np.arange(80) + np.random.default_rng(1).normal(50, 1, 80)).tolist())
    smooth = track(smooth_boxes(found, VIDEO, Smoothing(0.1))[:, 0].tolist())
    _, stats = keep_keyframes(smooth, VIDEO, Keyframes(min_iou=0.85), found.xyxy)
    assert stats.min_iou >= 0.85
    assert stats.num_kept < 20
