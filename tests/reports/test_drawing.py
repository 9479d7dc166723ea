"""What stands on a drawn frame: pixels of shapes and labels."""

from __future__ import annotations

import numpy as np
import pytest

from prelabel.data.detections import Detections
from prelabel.data.geometry import Keypoints, Mask, OutputSpec, RotatedBox
from prelabel.reports.drawing import FrameAnnotator, font_px, text_width
from tests.geometries import POSE_OFFER, column, disc, map_to, ring
from tests.reports.building import BLUE, GREY, RED, is_near, label_map

SQUARE = (50, 60, 150, 160)


def draw(found, track_id=None, *, labels=None, size=(320, 240), drawn_size=None):
    """Returns the pixels of a grey frame with detections drawn on it."""
    frame = np.full((*size[::-1], 3), GREY[0], np.uint8)
    annotator = FrameAnnotator(labels or label_map(), *(drawn_size or size))
    return np.asarray(annotator.annotate(frame, found, None if track_id is None else np.array(track_id)))


def longest_run(row: np.ndarray) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def test_the_most_confident_box_and_label_are_on_top():
    for confidence, colour in (([0.9, 0.3], RED), ([0.3, 0.9], BLUE)):
        pixels = draw(Detections([SQUARE] * 2, confidence, [0, 1]))
        assert tuple(pixels[110, 50]) == colour
        assert tuple(pixels[59, 51]) == colour


@pytest.mark.parametrize("box", [(300, 0, 319, 30), (0, 0, 320, 240), (0, 230, 5, 239), (310, 235, 320, 240)])
def test_labels_lie_whole_inside_the_image(box):
    red = (draw(Detections([box], [0.87], [0])) == RED).all(axis=2)
    # A row of the label's edge is plain colour over the label's whole width.
    assert max(longest_run(row) for row in red) >= text_width("thing 0.87", font_px(320, 240))


def test_labels_make_way_for_more_confident_ones():
    pixels = draw(Detections([SQUARE, (52, 60, 152, 160)], [0.9, 0.8], [0, 1]))
    for colour in (RED, BLUE):
        above = max(longest_run(row) for row in (pixels == colour).all(axis=2)[:58])
        below = max(longest_run(row) for row in (pixels == colour).all(axis=2)[162:])
        assert max(above, below) >= 50


@pytest.mark.parametrize(
    "name",
    ["a name that goes on and on, much longer than any image is wide " * 3, "Fußgänger", "自転車", "a\nb", "🚲"],
)
def test_names_of_any_kind_are_drawn_within_the_label_width(name):
    red = (draw(Detections([SQUARE], [0.5], [0]), labels=label_map(name))[:58] == RED).all(axis=2)
    assert 30 <= max(longest_run(row) for row in red) <= 130


def test_a_frame_smaller_than_any_label_is_still_drawn():
    assert draw(Detections([(1, 1, 6, 3)], [0.5], [0]), size=(8, 4)).shape == (4, 8, 3)


def test_a_label_names_the_track_where_there_is_one():
    def label_width(track_id):
        red = (draw(Detections([SQUARE], [0.5], [0]), track_id)[:58] == RED).all(axis=2)
        return max(longest_run(row) for row in red)

    assert label_width([-1]) == label_width(None)
    assert label_width([12]) - label_width(None) == pytest.approx(text_width(" #12", font_px(320, 240)), abs=2)


def test_edges_join_the_visible_points_of_a_pose():
    labels = map_to("skeleton", POSE_OFFER)
    pose = Keypoints([[100, 100], [200, 100], [150, 200]], [0.9, 0.8, 0.1])
    pixels = draw(Detections([(90, 90, 210, 210)], [0.9], [0], column(pose)), labels=labels)
    assert is_near(pixels[100, 150], labels.categories[0].rgb)
    assert is_near(pixels[150, 125], GREY)
    assert is_near(pixels[150, 175], GREY)


@pytest.mark.parametrize(("angle_degrees", "offset_px"), [(45, 2), (-45, -2)])
def test_the_label_of_a_rotated_box_is_at_its_highest_corner(angle_degrees, offset_px):
    rotated = RotatedBox(160, 140, 160, 20, angle_degrees)
    corners = rotated.corners.astype(int)
    hull = np.hstack([corners.min(0), corners.max(0)])
    labels = map_to("rotatable_bounding_box", OutputSpec("rotated_box"))
    pixels = draw(Detections([hull], [0.9], [0], column(rotated)), labels=labels)
    x, y = corners[corners[:, 1].argmin()]
    assert is_near(pixels[y - 4, x + offset_px], labels.categories[0].rgb)
    away = hull[0] + 2 if angle_degrees < 0 else hull[2] - 2
    assert is_near(pixels[y - 4, away], GREY)


def test_geometry_is_drawn_in_place_of_the_box_and_scaled_with_the_frame():
    mask = Mask.of(disc(80, 80, 36, 12), 20, 20)
    pose = Keypoints(ring(120, 40, 130, 60), np.array([0.9, 0.2], np.float32))
    found = Detections([(20, 20, 100, 100), (110, 30, 150, 70)], [0.9, 0.8], [0, 1], column(mask, pose))
    pixels = draw(found, size=(160, 120), drawn_size=(320, 240))
    changed = np.abs(pixels.astype(int) - GREY[0]).max(axis=2) > 0
    assert not changed[195:199, 45:50].any()  # a corner of the box, outside the disc
    assert not changed[118:122, 118:122].any()  # the hole
    assert changed[120, 70]  # the disc is tinted
    assert changed[80, 240]  # a visible point
    assert changed[100, 220]  # the box around the points


@pytest.mark.parametrize(
    ("size", "expected"), [((640, 480), (320, 240)), ((100, 300), (80, 240)), ((10, 1), (320, 32))]
)
def test_a_frame_is_scaled_to_fit_and_keeps_its_proportions(size, expected):
    assert draw(Detections.empty(), size=size, drawn_size=(320, 240)).shape == (*expected[::-1], 3)
