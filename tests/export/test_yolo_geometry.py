"""YOLO labels of masks, turned boxes and poses: as Ultralytics itself takes them."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from PIL import Image

from prelabel.data.frames import VideoInfo
from prelabel.data.geometry import BOXES_ONLY, Mask, OutputSpec
from prelabel.data.label_map import LabelledVideo
from prelabel.export.yolo import write_yolo
from tests.geometries import POSE, POSE_OFFER, SQUARES, TURNED, map_to, with_geometry

INFO = VideoInfo(width=100, height=50, num_frames=20, average_fps=12.5, duration_seconds=1.6)
BOX = (10, 10, 30, 20)


def lines(folder, shape, offer, *known):
    found = with_geometry(*((3, BOX, 0.5, 0, each) for each in known))
    write_yolo(folder, [LabelledVideo("clip.mp4", INFO, found, map_to(shape, offer))])
    return (folder / "labels" / "clip.mp4_000003.txt").read_text().splitlines()


def taken_by_ultralytics(folder, *, with_keypoints=0):
    """Returns the boxes, segments and keypoints that Ultralytics' loader reads."""
    from ultralytics.data.utils import verify_image_label

    picture = folder / "images" / "clip.mp4_000003.png"
    picture.parent.mkdir(exist_ok=True)
    Image.new("RGB", (INFO.width, INFO.height)).save(picture)
    label = folder / "labels" / "clip.mp4_000003.txt"
    arguments = (str(picture), str(label), "", with_keypoints > 0, 1, with_keypoints, 3, False)
    _, boxes, _, segments, keypoints, *_, num_corrupt, message = verify_image_label(arguments)
    assert (num_corrupt, message) == (0, "")
    return boxes, segments, keypoints


@pytest.mark.timeout(120)
def test_masks_are_polygons_and_a_box_among_them_is_its_corners(tmp_path):
    square = Mask.of(np.ones((20, 40), bool), 10, 10)

    first, second = lines(tmp_path, "bitmask", OutputSpec("mask"), square, None)

    assert sorted(map(float, first.split()[1:])) == [0.1, 0.1, 0.2, 0.2, 0.5, 0.5, 0.6, 0.6]
    assert second == "0 0.100000 0.200000 0.300000 0.200000 0.300000 0.400000 0.100000 0.400000"
    boxes, segments, _ = taken_by_ultralytics(tmp_path)
    assert boxes[0].tolist() == pytest.approx([0, 0.3, 0.4, 0.4, 0.4])
    assert [len(segment) for segment in segments] == [4, 4]


def test_parts_are_joined_into_one_ring(tmp_path):
    (line,) = lines(tmp_path, "polygon", OutputSpec("polygons"), SQUARES)

    points = np.array(line.split()[1:], float).reshape(-1, 2) * (INFO.width, INFO.height)
    assert len(points) == 4 + 1 + 3 + 1
    assert points[4].tolist() == points[0].tolist()
    assert points[8].tolist() == points[5].tolist()


@pytest.mark.timeout(120)
def test_turned_boxes_are_four_corners(tmp_path):
    (line,) = lines(tmp_path, "rotatable_bounding_box", OutputSpec("rotated_box"), TURNED)

    corners = np.array(line.split()[1:], float).reshape(-1, 2) * (INFO.width, INFO.height)
    assert np.allclose(corners, TURNED.corners, atol=1e-3)
    _, segments, _ = taken_by_ultralytics(tmp_path)
    assert len(segments[0]) == 4


@pytest.mark.timeout(120)
def test_poses_are_a_box_and_points_in_the_skeletons_order(tmp_path):
    first, second = lines(tmp_path, "skeleton", POSE_OFFER, POSE, None)

    points = [0.02, 0.06, 2, 0.08, 0.06, 1, 0.05, 0.12, 2]
    assert list(map(float, first.split()[5:])) == points
    assert second.split()[5:] == ["0.000000"] * 9
    assert yaml.safe_load((tmp_path / "data.yaml").read_text())["kpt_shape"] == [3, 3]
    _, _, keypoints = taken_by_ultralytics(tmp_path, with_keypoints=3)
    assert keypoints.shape == (2, 3, 3)


def test_boxes_alone_stay_boxes_whatever_the_shape(tmp_path):
    assert lines(tmp_path, "polygon", BOXES_ONLY, None) == ["0 0.200000 0.300000 0.200000 0.200000"]
