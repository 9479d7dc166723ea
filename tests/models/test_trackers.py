"""The trackers: their contract, and what they link."""

from __future__ import annotations

import numpy as np
import pytest

from prelabel import Detections, VideoInfo
from prelabel.data.detections import concatenate
from prelabel.models.trackers import tracklets
from prelabel.models.trackers.library import BotSortTracker, ByteTrackTracker, CBIoUTracker, OcSortTracker
from prelabel.models.trackers.tracklets import TrackletTracker
from prelabel.testing import check_tracker

VIDEO = VideoInfo(width=640, height=360, num_frames=200, average_fps=25.0, duration_seconds=8.0)
BOX = (100, 100, 200, 200)


def ids_of(tracker, *frames, numbers=None):
    """Frames are lists of (xyxy, confidence) or (xyxy, confidence, class_id)."""
    numbers = range(len(frames)) if numbers is None else numbers
    columns = [list(zip(*((*row, 0)[:3] for row in rows), strict=True)) or ((), (), ()) for rows in frames]
    found = [Detections(*each) for each in columns]
    if isinstance(tracker, TrackletTracker):
        shot = concatenate(zip(numbers, found, strict=True))
        given = tracker.link(shot).tolist()
        names = {number: n for n, number in enumerate(dict.fromkeys(number for number in given if number >= 0))}
        return [[names.get(number, -1) for number in given[shot.rows_on(n)]] for n in numbers]
    return [tracker.update(boxes, number).tolist() for boxes, number in zip(found, numbers, strict=True)]


LIBRARY = [BotSortTracker, ByteTrackTracker, CBIoUTracker, OcSortTracker]
every_tracker = pytest.mark.parametrize("tracker", [TrackletTracker, *LIBRARY])


@every_tracker
def test_it_keeps_the_contract(tracker):
    check_tracker(tracker)


@every_tracker
@pytest.mark.parametrize("confidence", [0.4, 0.65])
def test_a_track_has_its_id_from_its_first_box_on(tracker, confidence):
    assert ids_of(tracker(VIDEO), *[[(BOX, confidence)]] * 3) == [[0], [0], [0]]


@every_tracker
def test_a_box_below_high_conf_begins_no_track(tracker):
    assert ids_of(tracker(VIDEO, high_conf=0.7), *[[(BOX, 0.65)]] * 3) == [[-1]] * 3


@every_tracker
def test_a_lost_track_is_looked_for_in_seconds_not_in_frames(tracker):
    there, gone = [(BOX, 0.9)], []
    for fps, num_gone, expected in ((25.0, 20, 0), (25.0, 30, 1), (50.0, 40, 0), (50.0, 60, 1)):
        made = tracker(VideoInfo(640, 360, 200, fps, 200 / fps), lost_seconds=1.0)
        assert ids_of(made, there, there, *[gone] * num_gone, there)[-1] == [expected]


def test_botsort_says_that_it_does_not_compensate_for_the_camera():
    with pytest.warns(UserWarning, match="botsort: .* does not compensate for a moving camera"):
        BotSortTracker(VIDEO)


def test_cbiou_follows_boxes_that_do_not_overlap_from_frame_to_frame():
    boxes = [[((20 + 70 * n, 100, 80 + 70 * n, 160), 0.9)] for n in range(8)]
    assert ids_of(CBIoUTracker(VIDEO), *boxes) == [[0]] * 8


@pytest.mark.parametrize("tracker", [ByteTrackTracker, TrackletTracker])
def test_things_that_come_together_keep_their_ids_whatever_their_order(tracker):
    other = (400, 100, 500, 200)
    assert ids_of(tracker(VIDEO), [(BOX, 0.9), (other, 0.8)], [(other, 0.9), (BOX, 0.3)]) == [[0, 1], [1, 0]]


def test_an_unsure_box_goes_on_with_a_track_and_begins_none():
    frames = [[(BOX, 0.2)], [(BOX, 0.9)], [(BOX, 0.2)], [(BOX, 0.9)]]
    assert ids_of(ByteTrackTracker(VIDEO), *frames) == [[-1], [0], [0], [0]]


@every_tracker
def test_a_box_taken_for_another_class_goes_on_with_its_track(tracker):
    frames = [[(BOX, 0.9, 0)], [(BOX, 0.9, 1)], [(BOX, 0.9, 1)], [(BOX, 0.9, 0)]]
    assert ids_of(tracker(VIDEO), *frames) == [[0]] * 4


@pytest.mark.parametrize("tracker", [ByteTrackTracker, CBIoUTracker, TrackletTracker])
def test_a_thing_of_another_class_that_passes_before_one_does_not_take_its_track(tracker):
    standing = (200, 100, 260, 220)
    passing = [(20 + 12 * n, 100, 80 + 12 * n, 220) for n in range(30)]
    hidden = range(11, 20)
    frames = [[(box, 0.9, 1)] + ([] if n in hidden else [(standing, 0.9, 0)]) for n, box in enumerate(passing)]
    ids = ids_of(tracker(VIDEO), *frames)
    assert {row[0] for row in ids} == {0}
    assert {row[1] for row in ids if len(row) > 1} == {1}


@pytest.mark.parametrize("tracker", [ByteTrackTracker, TrackletTracker])
def test_boxes_of_two_classes_in_one_place_go_on_with_either_track(tracker):
    both = [(BOX, 0.9, 0), (BOX, 0.8, 1)]
    ids = ids_of(tracker(VIDEO), both, both, both)
    assert all(sorted(row) == [0, 1] for row in ids)


@pytest.mark.parametrize("tracker", [ByteTrackTracker, TrackletTracker])
def test_a_thing_that_moves_is_followed_at_a_stride(tracker):
    boxes = [[((20 + 4 * n, 100, 120 + 4 * n, 200), 0.9)] for n in range(0, 100, 5)]
    ids = ids_of(tracker(VIDEO), *boxes, numbers=range(0, 100, 5))
    assert set(map(tuple, ids)) == {(0,)}


def test_tracklets_take_unsure_boxes_before_the_first_sure_one_too():
    frames = [[(BOX, 0.2)], [(BOX, 0.2)], [(BOX, 0.9)], [(BOX, 0.2)]]
    assert ids_of(TrackletTracker(VIDEO), *frames) == [[0]] * 4


def hidden_while_it_passes(hidden, speed=6):
    """Returns frames on which a thing walks behind one that stands, and is hidden on some of them."""
    standing = (300, 100, 360, 260)
    walking = [(120 + speed * n, 100, 180 + speed * n, 260) for n in range(60)]
    return [[(standing, 0.9), *([] if n in hidden else [(box, 0.8)])] for n, box in enumerate(walking)]


def test_tracklets_go_on_behind_a_thing_with_the_speed_that_they_had():
    frames = hidden_while_it_passes(range(22, 40))
    assert ids_of(TrackletTracker(VIDEO), *frames) == [[0, 1][: len(row)] for row in frames]


def test_a_gap_is_not_bridged_where_the_motion_before_it_and_after_it_do_not_meet():
    leaves = [[((100 + 6 * n, 100, 160 + 6 * n, 260), 0.9)] for n in range(20)]
    comes = [[((214 - 6 * n, 100, 274 - 6 * n, 260), 0.9)] for n in range(20)]  # from where the other was, back
    ids = ids_of(TrackletTracker(VIDEO), *leaves, *[[]] * 15, *comes)
    assert ids == [[0]] * 20 + [[]] * 15 + [[1]] * 20


def test_boxes_compared_in_parts_are_linked_as_if_compared_at_once(monkeypatch):
    frames = hidden_while_it_passes(range(22, 40))
    at_once = ids_of(TrackletTracker(VIDEO), *frames)
    monkeypatch.setattr(tracklets, "NUM_ROWS_AT_ONCE", 7)
    assert ids_of(TrackletTracker(VIDEO), *frames) == at_once


def test_a_video_without_boxes_has_no_tracks():
    assert ids_of(ByteTrackTracker(VIDEO), [], [], []) == [[], [], []]
    assert ByteTrackTracker(VIDEO).update(Detections.empty(), 0).dtype == np.int64
    assert ids_of(TrackletTracker(VIDEO), [], [], []) == [[], [], []]
