"""Outlines over a frame: what the browser draws, and what it says of each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from prelabel.data.geometry import Keypoints, Mask, OutputSpec
from prelabel.data.label_map import LabelledVideo
from prelabel.reports.thumbnails import detection_outlines
from tests.geometries import POSE_OFFER, map_to, with_geometry
from tests.reports.building import labelled

BOX = (10, 20, 30, 40)


def outlines(video):
    return [(outline.style, outline.text, outline.path) for outline in detection_outlines(video, 3)]


def test_a_box_has_its_name_and_confidence_and_only_its_frames_boxes_are_drawn():
    video = labelled([(2, BOX, 0.9, 0), (3, BOX, 0.75, 1), (4, BOX, 0.9, 0)])
    assert outlines(video) == [("found", "other 0.75", "M10.0 20.0H30.0V40.0H10.0Z")]


def test_an_interpolated_box_says_so_and_names_its_track():
    video = labelled([(3, BOX, 0.0, 0)])
    found = replace(video.detections, interpolated=np.array([True]), track_id=np.array([7]))
    ((style, text, _),) = outlines(replace(video, detections=found))
    assert (style, text) == ("interpolated", "thing #7 interpolated")


def test_a_mask_is_drawn_in_place_of_its_box():
    mask = Mask.of(np.ones((20, 20), bool), 10, 20)
    video = LabelledVideo(
        "a", labelled().info, with_geometry((3, BOX, 0.5, 0, mask)), map_to("bitmask", OutputSpec("mask"))
    )
    ((_, text, path),) = outlines(video)
    assert text == "thing 0.50"
    assert path.startswith("M")
    assert path.count("L") == 3


def test_a_pose_is_its_box_the_edges_and_the_visible_points():
    pose = Keypoints([[12, 22], [28, 22], [20, 38]], [0.9, 0.8, 0.1])
    video = LabelledVideo("a", labelled().info, with_geometry((3, BOX, 0.5, 0, pose)), map_to("skeleton", POSE_OFFER))
    assert [(style, path) for style, _, path in outlines(video)] == [
        ("found", "M10.0 20.0H30.0V40.0H10.0Z"),
        ("found", "M12.0 22.0L28.0 22.0"),
        ("points", "M12.0 22.0h0M28.0 22.0h0"),
    ]
