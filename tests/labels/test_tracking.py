"""Boxes into tracks: answers known beforehand, on boxes made by hand and on generated scenes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.scene_art import CLASS_NAMES
from models.scenes import SceneSpec, cut_frame_index, render_frames
from prelabel.data.boxes import iou_matrix
from prelabel.data.detections import Detections, concatenate
from prelabel.data.frames import VideoInfo
from prelabel.data.geometry import Keypoints, OutputSpec
from prelabel.data.label_map import build_label_map
from prelabel.data.ontology import Ontology
from prelabel.errors import TrackError
from prelabel.labels.filter import FilteredDetections, filter_detections
from prelabel.labels.tracking import Linking, track_detections
from prelabel.labels.whole_tracks import TrackLimits
from prelabel.models.trackers.tracklets import TrackletTracker
from tests.geometries import DISC, KEYPOINT_NAMES, map_to, skeleton_ontology, with_geometry
from tests.labelling import detections, object_json

VIDEO = VideoInfo(width=640, height=360, num_frames=200, average_fps=25.0, duration_seconds=8.0)
NAMES = ("car", "truck", "person")
LABEL_MAP = build_label_map(NAMES, Ontology.from_classes(["Vehicle", "person"]), {"car": "Vehicle", "truck": "Vehicle"})
LINKING = Linking(partial(TrackletTracker, high_conf=0.25), max_gap_seconds=0.5, limits=TrackLimits(min_length=3))


def box(x, y=100.0, side=60.0):
    return (x, y, x + side, y + side)


def track(*rows, cuts=(), num_frames=None, info=VIDEO, min_length=3, limits=None, **linking):
    frames = range(num_frames if num_frames is not None else max((row[0] for row in rows), default=-1) + 1)
    found = detections(*sorted(rows, key=lambda row: row[0]), inferred_frames=frames)
    limits = limits or TrackLimits(min_length=min_length)
    return track_detections(
        FilteredDetections(found, {}), info, LABEL_MAP, cuts, replace(LINKING, limits=limits, **linking)
    )


def tracks_of(filtered):
    """Returns by track the frames that it is on."""
    found = filtered.detections
    return {number: found.frame_index[found.track_id == number].tolist() for number in set(found.track_id.tolist())}


def test_a_thing_is_one_track_on_all_its_frames():
    filtered = track(*[(n, box(4 * n), 0.9, 0) for n in range(30)])
    assert tracks_of(filtered) == {1: list(range(30))}
    assert filtered.dropped == {}


def test_things_that_cross_keep_their_tracks():
    rightwards = [(n, box(20 + 8 * n, 100), 0.9, 0) for n in range(60)]
    leftwards = [(n, box(500 - 8 * n, 120), 0.8, 2) for n in range(60)]
    found = track(*rightwards, *leftwards).detections
    assert set(zip(found.class_id.tolist(), found.track_id.tolist(), strict=True)) == {(0, 1), (2, 2)}
    assert set(zip(found.confidence > 0.85, found.track_id.tolist(), strict=True)) == {(True, 1), (False, 2)}


def test_a_short_gap_is_filled_in_on_a_straight_line_and_marked():
    found = track(*[(n, box(10 * n), 0.9, 0) for n in range(20) if n not in (8, 9, 10)]).detections
    assert found.frame_index.tolist() == list(range(20))
    assert np.flatnonzero(found.interpolated).tolist() == [8, 9, 10]
    assert found.xyxy[:, 0].tolist() == pytest.approx([10 * n for n in range(20)])
    assert found.confidence[8:11].tolist() == [0, 0, 0]


def test_a_longer_gap_stays_a_gap_in_the_same_track():
    rows = [(n, box(100), 0.9, 0) for n in range(40) if not 10 <= n < 26]
    assert tracks_of(track(*rows)) == {1: [row[0] for row in rows]}
    assert tracks_of(track(*rows, max_gap_seconds=0.7)) == {1: list(range(40))}
    assert tracks_of(track(*rows, max_gap_seconds=17 / 25)) == {1: list(range(40))}  # as long as the gap
    assert not track(*rows, max_gap_seconds=0.0).detections.interpolated.any()


def test_only_frames_that_were_looked_at_are_filled_in():
    found = detections(*[(n, box(100), 0.9, 0) for n in (0, 3, 6, 12, 15)], inferred_frames=range(0, 18, 3))
    tracked = track_detections(FilteredDetections(found, {}), VIDEO, LABEL_MAP, (), LINKING).detections
    assert tracked.frame_index.tolist() == [0, 3, 6, 9, 12, 15]
    assert tracked.interpolated.tolist() == [False, False, False, True, False, False]


def test_a_short_track_is_dropped_and_counted_by_the_class_that_was_found():
    long, short = [(n, box(100), 0.9, 0) for n in range(10)], [(n, box(400), 0.9, 2) for n in (4, 5)]
    filtered = track(*long, *short)
    assert tracks_of(filtered) == {1: list(range(10))}
    assert filtered.dropped == {"short_track": {"person": 2}}
    assert len(tracks_of(track(*long, *short, min_length=2))) == 2


def test_boxes_that_fill_gaps_do_not_make_a_track_long_enough():
    assert len(track((0, box(100), 0.9, 0), (4, box(100), 0.9, 0)).detections) == 0


def test_an_unsure_box_of_no_track_is_dropped_and_counted():
    filtered = track(*[(n, box(100), 0.9, 0) for n in range(10)], (5, box(400), 0.1, 2))
    assert filtered.dropped == {"untracked": {"person": 1}}


def test_a_cut_ends_tracks_though_a_box_stands_in_the_same_place():
    rows = [(n, box(100), 0.9, 0) for n in range(20) if n not in (9, 10)]
    filtered = track(*rows, cuts=(10,))
    assert tracks_of(filtered) == {1: list(range(9)), 2: list(range(11, 20))}
    assert tracks_of(track(*rows)) == {1: list(range(20))}


def test_the_class_is_voted_for_with_confidence_first_for_the_object_then_within_it():
    classes = [0] * 4 + [1] * 3 + [2] * 5
    scores = [0.3] * 4 + [0.5] * 3 + [0.45] * 5  # car 1.2, truck 1.5, person 2.25: a vehicle, and that a truck
    filtered = track(
        *[(n, box(100), score, class_id) for n, (class_id, score) in enumerate(zip(classes, scores, strict=True))]
    )
    assert filtered.detections.class_id.tolist() == [1] * 12
    assert filtered.detections.confidence.tolist() == pytest.approx(scores)


def test_an_empty_video_has_no_tracks():
    assert len(track(num_frames=50).detections) == 0
    assert len(track(num_frames=0).detections) == 0


def test_pictures_are_not_linked():
    pictures = VideoInfo(640, 360, 5)
    rows = [(n, box(100), 0.9, 0) for n in range(5)]
    assert track(*rows, info=pictures).detections.track_id.tolist() == [-1] * 5


class Says:
    """A tracker that says what it is told to; notes the frames that it was shown."""

    def __init__(self, answer):
        self.answer, self.frames = answer, []

    def update(self, boxes, frame_index):
        self.frames.append(frame_index)
        return self.answer(boxes, frame_index)


def test_a_tracker_sees_every_frame_once_in_order_and_each_shot_a_fresh_one():
    built = []

    def build(info):
        built.append(Says(lambda boxes, frame: np.arange(len(boxes))))
        return built[-1]

    rows = [(n, box(100), 0.9, 0) for n in (2, 3, 4, 7, 8, 9)]
    filtered = track(*rows, num_frames=12, cuts=(6,), new_tracker=build)
    assert [tracker.frames for tracker in built] == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
    assert tracks_of(filtered) == {1: [2, 3, 4], 2: [7, 8, 9]}


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (lambda boxes, frame: np.zeros(1, np.int64), r"returned int64 \(1,\), expected whole numbers \(2,\)"),
        (lambda boxes, frame: np.zeros(2), "returned float64"),
        (lambda boxes, frame: np.zeros(2, np.int64), "two boxes the same track"),
        (lambda boxes, frame: 1 / 0, "raised ZeroDivisionError"),
    ],
)
def test_a_tracker_that_breaks_its_contract_fails_the_task_with_the_frame(answer, complaint):
    with pytest.raises(TrackError, match=f"frame 0: the tracker {complaint}|frame 0: .*{complaint}"):
        track((0, box(100), 0.9, 0), (0, box(300), 0.9, 0), new_tracker=lambda info: Says(answer))


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (lambda boxes: np.zeros(1, np.int64), r"returned int64 \(1,\), expected whole numbers \(2,\)"),
        (lambda boxes: np.zeros(2, np.int64), "two boxes the same track: 0 on frame 3"),
        (lambda boxes: 1 / 0, "raised ZeroDivisionError"),
    ],
)
def test_a_tracker_of_whole_shots_that_breaks_its_contract_fails_the_task_with_the_frames(answer, complaint):
    class Shots:
        def link(self, boxes):
            return answer(boxes)

    with pytest.raises(TrackError, match=f"frames 0 to 3: the tracker .*{complaint}"):
        track((3, box(100), 0.9, 0), (3, box(300), 0.9, 0), new_tracker=lambda info: Shots())


def test_a_tracker_of_whole_shots_gets_each_shot_with_all_its_frames():
    shots = []

    class Shots:
        def link(self, boxes):
            shots.append((boxes.frame_index.tolist(), boxes.inferred_frames.tolist()))
            return np.zeros(len(boxes), np.int64)

    rows = [(n, box(100), 0.9, 0) for n in (2, 3, 4, 7, 8, 9)]
    filtered = track(*rows, num_frames=12, cuts=(6,), new_tracker=lambda info: Shots())
    assert shots == [([2, 3, 4], [0, 1, 2, 3, 4, 5]), ([7, 8, 9], [6, 7, 8, 9, 10, 11])]
    assert tracks_of(filtered) == {1: [2, 3, 4], 2: [7, 8, 9]}


ROWS = st.lists(
    st.tuples(st.integers(0, 25), st.integers(0, 9), st.integers(0, 3), st.integers(0, 100), st.integers(0, 2)),
    max_size=60,
    unique_by=lambda row: row[:3],
)


@given(rows=ROWS, cuts=st.lists(st.integers(1, 25), max_size=2, unique=True).map(sorted), min_length=st.integers(1, 4))
@settings(max_examples=60)
def test_every_box_is_one_that_was_found_or_is_marked_and_none_is_lost_uncounted(rows, cuts, min_length):
    rows = [(frame, box(40.0 * x, 60.0 * y), score / 100, class_id) for frame, x, y, score, class_id in rows]
    filtered = track(*rows, cuts=tuple(cuts), num_frames=26, min_length=min_length)
    found = filtered.detections
    given_boxes = {(frame, place, np.float32(score)) for frame, place, score, _ in rows}
    measured = found.where(~found.interpolated)
    columns = (measured.frame_index.tolist(), map(tuple, measured.xyxy.tolist()), measured.confidence)
    assert {*zip(*columns, strict=True)} <= given_boxes
    assert len(measured) + sum(sum(by_class.values()) for by_class in filtered.dropped.values()) == len(rows)
    assert (found.confidence[found.interpolated] == 0).all()
    places = list(zip(found.track_id.tolist(), found.frame_index.tolist(), strict=True))
    assert len(set(places)) == len(places)
    for number, frames in tracks_of(filtered).items():
        of_track = found.where(found.track_id == number)
        assert len(set(of_track.class_id.tolist())) == 1
        assert (~of_track.interpolated).sum() >= min_length
        assert not of_track.interpolated[[0, -1]].any()
        assert len(set(np.searchsorted(cuts, frames, side="right").tolist())) == 1
    again = track(*rows, cuts=tuple(cuts), num_frames=26, min_length=min_length).detections
    assert again.track_id.tolist() == found.track_id.tolist()


def seen(spec):
    """Returns a scene's truth by frame, and what a detector that misses, errs and flips classes makes of it."""
    rng = np.random.default_rng(spec.seed)
    truth, frames = [], []
    for frame_index, frame in enumerate(render_frames(spec)):
        shows = ~frame.is_crowd
        truth.append((frame.xyxy[shows], frame.object_id[shows]))
        found = np.flatnonzero(shows)[rng.random(shows.sum()) > 0.1]
        xyxy = np.clip(frame.xyxy[found] + rng.normal(0, 1, (len(found), 4)), 0, None)
        class_id = np.where(rng.random(len(found)) < 0.05, 0, frame.class_id[found])
        frames.append((frame_index, Detections(xyxy, rng.uniform(0.3, 0.9, len(found)), class_id)))
    return truth, concatenate(frames)


def matches(truth, found):
    """Yields (object, track) of every true box that a box of the track overlaps by half or more, the best first."""
    for frame_index, (xyxy, object_id) in enumerate(truth):
        here = np.flatnonzero(found.frame_index == frame_index)
        overlap = iou_matrix(xyxy, found.xyxy[here])
        while overlap.size and overlap.max() >= 0.5:
            row, column = np.unravel_index(overlap.argmax(), overlap.shape)
            yield int(object_id[row]), int(found.track_id[here[column]])
            overlap[row], overlap[:, column] = 0, 0


@pytest.mark.slow
def test_on_generated_scenes_few_tracks_switch_and_most_boxes_that_were_missed_are_there():
    num_objects = num_tracks = num_switches = num_boxes = num_matched = 0
    for seed in (0, 3, 5):
        spec = SceneSpec(width=480, height=270, num_frames=60, seed=seed)
        truth, raw = seen(spec)
        label_map = build_label_map(CLASS_NAMES, Ontology.from_classes(list(CLASS_NAMES)), {})
        info = VideoInfo(spec.width, spec.height, spec.num_frames, spec.fps, spec.num_frames / spec.fps)
        filtered = filter_detections(raw, info, label_map)
        found = track_detections(filtered, info, label_map, (cut_frame_index(spec),), LINKING).detections
        last: dict[int, int] = {}
        for object_id, track_id in matches(truth, found):
            num_switches += last.get(object_id, track_id) != track_id
            last[object_id] = track_id
            num_matched += 1
        num_boxes += sum(len(object_id) for _, object_id in truth)
        num_objects += len({number for _, object_id in truth for number in object_id.tolist()})
        num_tracks += len(set(found.track_id.tolist()))
    assert num_switches <= 0.2 * num_objects
    assert num_tracks <= 1.2 * num_objects
    assert num_matched / num_boxes >= 0.97  # of which the detector found nine in ten
    assert num_boxes / num_tracks >= 20


def test_what_is_known_beyond_a_box_goes_where_the_elected_object_holds_it():
    ontology = Ontology.from_structure(
        {"objects": [object_json("car", 1, "bitmask"), object_json("bus", 2), object_json("van", 3, "polygon")]},
        "Roads",
    )
    label_map = build_label_map(["car", "bus", "van"], ontology, {}, offer=OutputSpec("mask"))
    rows = [(n, (2 + n, 2, 22 + n, 22), 0.9 if n else 0.3, int(n == 0), DISC) for n in range(4)]
    found = with_geometry(*rows)
    filtered = filter_detections(found, VIDEO, label_map)

    tracked = track_detections(filtered, VIDEO, label_map, (), replace(LINKING, limits=TrackLimits(min_length=2)))

    assert tracked.detections.class_id.tolist() == [0] * 4
    assert tracked.detections.has_geometry.tolist() == [False, True, True, True]


def test_box_whose_track_elects_a_skeleton_is_left_out_and_counted():
    ontology = skeleton_ontology(with_box=True)
    label_map = build_label_map(
        ["person", "box"], ontology, {"box": "obj00002"}, offer=OutputSpec("keypoints", KEYPOINT_NAMES)
    )
    pose = Keypoints(np.ones((4, 2), np.float32), np.ones(4, np.float32))
    rows = [(n, (2 + n, 2, 22 + n, 22), 0.9, 0, pose) if n else (n, (2, 2, 22, 22), 0.4, 1, None) for n in range(4)]
    filtered = filter_detections(with_geometry(*rows), VIDEO, label_map)

    tracked = track_detections(filtered, VIDEO, label_map, (), replace(LINKING, limits=TrackLimits(min_length=2)))

    assert tracked.detections.frame_index.tolist() == [1, 2, 3]
    assert tracked.dropped == {"no_keypoints": {"person": 1}}


def test_nothing_is_smoothed_or_filled_in_where_more_is_known_than_the_box():
    label_map = map_to("bitmask", OutputSpec("mask"))
    jitter = [0, 3, 0, 3, 0, 0, 3, 0]
    frames = [0, 1, 2, 3, 6, 7, 8, 9]
    rows = [(f, (2 + j, 2, 22 + j, 22), 0.9, 0, DISC) for f, j in zip(frames, jitter, strict=True)]
    found = with_geometry(*rows, inferred_frames=range(10))
    filtered = filter_detections(found, VIDEO, label_map)

    tracked = track_detections(
        filtered,
        VIDEO,
        label_map,
        (),
        replace(LINKING, limits=TrackLimits(min_length=2), max_gap_seconds=1.0, smooth_seconds=0.3),
    )

    assert tracked.detections.frame_index.tolist() == frames
    assert np.array_equal(tracked.detections.xyxy, found.xyxy)
