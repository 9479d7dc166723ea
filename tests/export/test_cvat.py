"""CVAT for video 1.1: what its importer needs, and what datumaro reads."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from prelabel.data.geometry import Mask, OutputSpec
from prelabel.data.label_map import LabelledVideo
from prelabel.export.cvat import export_cvat
from prelabel.export.export import Export
from tests.export.building import DATUMARO, INFO, ONTOLOGY, export_of, run_apart, video
from tests.geometries import POSE, POSE_OFFER, SQUARES, TURNED, map_to, with_geometry

BOX = (10, 10, 30, 20)


def tracks(folder, *videos):
    """Returns each track's label and shapes: element name, frame, keyframe, outside."""
    (path,) = export_cvat(Export(folder, iter(videos), ONTOLOGY))
    states = ("frame", "keyframe", "outside")
    return [
        (track.get("label"), [(shape.tag, *(int(shape.get(state)) for state in states)) for shape in track])
        for track in ElementTree.parse(path).getroot().iter("track")
    ]


def shapes(folder, shape, offer, *geometry):
    found = with_geometry(*((3, BOX, 0.5, 0, each) for each in geometry))
    (path,) = export_cvat(
        Export(folder, iter([LabelledVideo("clip.mp4", INFO, found, map_to(shape, offer))]), ONTOLOGY)
    )
    return [track[0] for track in ElementTree.parse(path).getroot().iter("track")]


def test_a_track_ends_outside_where_its_object_leaves(tmp_path):
    rows = [(frame, BOX, 0.5, 0) for frame in (2, 3, 7, 19)]
    ((label, found),) = tracks(tmp_path, video("a.mp4", *rows, track_id=5))
    assert label == "person"
    assert found == [
        ("box", 2, 1, 0),
        ("box", 3, 1, 0),
        ("box", 4, 1, 1),
        ("box", 7, 1, 0),
        ("box", 8, 1, 1),
        ("box", 19, 1, 0),
    ]


def test_frames_that_no_detector_has_seen_are_no_gap(tmp_path):
    rows = [(frame, BOX, 0.5, 0) for frame in (0, 5, 10)]
    ((_, found),) = tracks(tmp_path, video("a.mp4", *rows, track_id=5, inferred_frames=range(0, 20, 5)))
    assert found == [("box", 0, 1, 0), ("box", 5, 1, 0), ("box", 10, 1, 0), ("box", 11, 1, 1)]


def test_labels_without_a_track_are_a_track_each(tmp_path):
    found = tracks(tmp_path, video("a.mp4", (2, BOX, 0.5, 0), (3, BOX, 0.5, 1)))
    assert [(label, len(of_track)) for label, of_track in found] == [("person", 2), ("Vehicle: any", 2)]


def test_boxes_are_corners_and_rotated_boxes_have_a_rotation(tmp_path):
    rotated, box = shapes(tmp_path, "rotatable_bounding_box", OutputSpec("rotated_box"), TURNED, None)
    corners = ("xtl", "ytl", "xbr", "ybr")
    assert [float(box.get(corner)) for corner in corners] == list(BOX)
    assert [float(rotated.get(corner)) for corner in corners] == [15.5, 13.25, 25.5, 19.25]
    assert (rotated.get("rotation"), box.get("rotation")) == ("30.00", None)


def test_masks_are_runs_in_a_window_and_each_has_its_own_track(tmp_path):
    mask = Mask.of(np.array([[0, 1, 1], [1, 1, 0]], bool), 4, 6)
    first, second = shapes(tmp_path, "bitmask", OutputSpec("mask"), mask, mask)
    assert first.attrib == second.attrib
    assert {key: first.get(key) for key in ("rle", "left", "top", "width", "height")} == {
        "rle": "1, 4, 1",
        "left": "4",
        "top": "6",
        "width": "3",
        "height": "2",
    }


def test_polygons_are_points_with_their_parts_joined(tmp_path):
    (polygon,) = shapes(tmp_path, "polygon", OutputSpec("polygons"), SQUARES)
    points = [tuple(map(float, pair.split(","))) for pair in polygon.get("points").split(";")]
    assert points[:4] == [(1, 1), (30, 1), (30, 30), (1, 30)]
    assert len(points) == 4 + 1 + 3 + 1


def test_poses_are_skeletons_with_points_of_their_own_state(tmp_path):
    (skeleton,) = shapes(tmp_path, "skeleton", POSE_OFFER, POSE)
    needed = ("label", "points", "keyframe", "outside", "occluded")
    assert [tuple(point.get(key) for key in needed) for point in skeleton] == [
        ("Nose", "2.00,3.00", "1", "0", "0"),
        ("Left Eye", "8.00,3.00", "1", "0", "1"),
        ("Right Eye", "5.00,6.00", "1", "0", "0"),
    ]


def test_a_video_without_labels_has_no_tracks(tmp_path):
    assert tracks(tmp_path, video("none.mp4")) == []


@pytest.mark.slow
def test_datumaro_imports_boxes_and_tracks(tmp_path):
    rows = [(2, BOX, 0.5, 0), (3, BOX, 0.5, 0), (3, (0, 0, 9, 9), 0.5, 1)]
    export_cvat(export_of(tmp_path, video("a.mp4", *rows, track_id=[5, 5, -1])))
    script = """
import json, sys
from datumaro.components.dataset import Dataset
shown = []
for item in Dataset.import_from(sys.argv[1], "cvat"):
    for annotation in item.annotations:
        state = annotation.attributes
        shown.append([item.id, annotation.label, annotation.get_bbox(), state["track_id"], state["outside"]])
print(json.dumps(sorted(shown)))
"""
    assert run_apart(DATUMARO, script, tmp_path) == [
        ["frame_000002", 1, [10, 10, 20, 10], 0, False],
        ["frame_000003", 0, [0, 0, 9, 9], 1, False],
        ["frame_000003", 1, [10, 10, 20, 10], 0, False],
        ["frame_000004", 0, [0, 0, 9, 9], 1, True],
        ["frame_000004", 1, [10, 10, 20, 10], 0, True],
    ]
