from __future__ import annotations

import numpy as np
import pytest

from prelabel.data.boxes import GRID
from prelabel.data.label_map import build_label_map
from prelabel.errors import LabelError
from prelabel.evaluate.compare import boxes_of_row
from prelabel.labels.row.write import write_detections
from tests.geometries import POSE, POSE_OFFER, skeleton_ontology, with_geometry
from tests.labelling import MEDIA, NOW, SHAPES, detections, map_of_shapes, new_row

BOX = (8, 12, 40, 36)  # of 64 x 48 pixels


def row_of(kind: str = "video", class_id: int = 0):
    info = MEDIA[kind]
    return write_detections(new_row(info), detections((0, BOX, 0.75, class_id)), info, map_of_shapes(), now=NOW).row


def only_label(row):
    (unit,) = row["data_units"].values()
    (label,) = unit["labels"]["0"]["objects"]
    return label


@pytest.mark.parametrize("class_id", range(len(SHAPES)))
def test_every_shape_that_prelabel_writes_is_read_as_the_box_it_was(class_id):
    boxes = boxes_of_row(row_of(class_id=class_id))
    assert boxes.corners.tolist() == [[12500, 25000, 62500, 75000]]
    assert boxes.class_name.tolist() == [SHAPES[class_id]]
    assert boxes.confidence.tolist() == [0.75]


def test_a_turned_box_is_as_large_as_what_it_covers():
    row = row_of(class_id=1)
    only_label(row)["rotatableBoundingBox"] = {"x": 0.2, "y": 0.4, "w": 0.4, "h": 0.1, "theta": 90.0}
    (corners,) = boxes_of_row(row).corners / GRID
    assert corners == pytest.approx([0.3625, 0.18333, 0.4375, 0.71667])


def test_a_pose_is_as_large_as_its_points():
    ontology = skeleton_ontology()
    label_map = build_label_map(["person"], ontology, {}, offer=POSE_OFFER)
    found = with_geometry((0, BOX, 0.75, 0, POSE))
    row = write_detections(new_row(MEDIA["video"], ontology), found, MEDIA["video"], label_map, now=NOW).row

    assert (boxes_of_row(row).corners / GRID).tolist() == [[2 / 64, 3 / 48, 8 / 64, 6 / 48]]


def test_points_have_no_box_and_deleted_objects_are_gone():
    row = row_of()
    label = only_label(row)
    objects = next(iter(row["data_units"].values()))["labels"]["0"]["objects"]
    objects.append({**label, "objectHash": "deleted1", "isDeleted": True})
    point = {key: value for key, value in label.items() if key != "boundingBox"}
    objects.append({**point, "objectHash": "point001", "shape": "point", "point": {"0": {"x": 0.5, "y": 0.5}}})
    assert boxes_of_row(row).instance.tolist() == [label["objectHash"]]


def test_pictures_of_a_group_are_frames():
    info = MEDIA["img_group"]
    found = detections((0, (0, 0, 32, 24), 0.5, 0), (2, (0, 0, 25, 35), 0.5, 0))
    boxes = boxes_of_row(write_detections(new_row(info), found, info, map_of_shapes(), now=NOW).row)
    assert boxes.frame_index.tolist() == [0, 2]
    assert np.array_equal(boxes.corners, [[0, 0, 50000, 50000]] * 2)


def test_an_object_of_no_known_form_is_named_with_its_frame():
    row = row_of()
    only_label(row)["boundingBox"] = {"x": 0.5}
    with pytest.raises(LabelError, match=r"'clip\.mp4': frame 0: an object is of no known form"):
        boxes_of_row(row)
