"""Masks, polygons, turned boxes and poses on the label row: as the SDK writes them, and known again."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from encord.objects import Object, ObjectInstance
from encord.objects.bitmask import BitmaskCoordinates
from encord.objects.coordinates import (
    PointCoordinate,
    PolygonCoordinates,
    RotatableBoundingBoxCoordinates,
    SkeletonCoordinate,
    SkeletonCoordinates,
    Visibility,
)

from prelabel.data.frames import VideoInfo
from prelabel.data.geometry import Keypoints, Mask, OutputSpec, Polygons, RotatedBox
from prelabel.data.ontology import Ontology
from prelabel.labels.filter import filter_detections
from prelabel.labels.fit import fit_geometry
from prelabel.labels.row.offline import encord_ontology
from prelabel.labels.row.own import find_own, remove_own
from prelabel.labels.row.write import write_detections
from tests.geometries import (
    DISC,
    KEYPOINT_NAMES,
    POINTS,
    SQUARES,
    TURNED,
    disc,
    map_to,
    ring,
    skeleton_ontology,
    with_geometry,
)
from tests.labelling import IMAGE_GROUP, MEDIA, NOW, VIDEO, load_in_sdk, new_row, object_json, objects_in

POSE = Keypoints(ring(2, 3, 8, 3, 5, 6, 1, 1), np.array([0.9, 0.2, 0.5, 0.7], np.float32))
KINDS = {
    "bitmask": (DISC, OutputSpec("mask")),
    "polygon": (SQUARES, OutputSpec("polygons")),
    "rotatable_bounding_box": (TURNED, OutputSpec("rotated_box")),
    "skeleton": (POSE, OutputSpec("keypoints", KEYPOINT_NAMES)),
}


def ontology_of(shape: str) -> Ontology:
    if shape == "skeleton":
        return skeleton_ontology()
    return Ontology.from_structure({"objects": [object_json("thing", 1, shape)]}, "Things")


def coordinates(geometry, size):
    """Returns the SDK's own coordinates of a geometry."""
    width, height = size

    def point(x, y):
        return PointCoordinate(round(x / width, 5), round(y / height, 5))

    match geometry:
        case Mask():
            whole = np.zeros((height, width), bool)
            whole[geometry.top :, geometry.left :][: geometry.height, : geometry.width] = geometry.pixels
            return BitmaskCoordinates(whole)
        case Polygons():
            rings = [[[point(*xy) for xy in corners.tolist()] for corners in part] for part in geometry.parts]
            return PolygonCoordinates(polygons=rings)
        case RotatedBox():
            left, top = geometry.centre_x - geometry.width / 2, geometry.centre_y - geometry.height / 2
            return RotatableBoundingBoxCoordinates(
                height=round(geometry.height / height, 5),
                width=round(geometry.width / width, 5),
                top_left_x=round(left / width, 5),
                top_left_y=round(top / height, 5),
                theta=geometry.angle_degrees,
            )
        case Keypoints():
            made = []
            for number, (name, place) in enumerate(zip(POINTS, (2, 0, 1), strict=True)):
                at, seen = point(*geometry.xy[place].tolist()), geometry.confidence[place] >= 0.5
                made.append(
                    SkeletonCoordinate(
                        x=at.x,
                        y=at.y,
                        name=name,
                        feature_hash=f"point{number:03d}",
                        visibility=None if seen else Visibility.INVISIBLE,
                    )
                )
            return SkeletonCoordinates(values=made, name="Person")


def write(shape, found, info, row=None):
    label_map = map_to(shape, KINDS[shape][1])
    filtered = fit_geometry(filter_detections(found, info, label_map).detections, info, label_map, 1.0)
    return write_detections(row or new_row(info, ontology_of(shape)), filtered, info, label_map, now=NOW)


@pytest.mark.parametrize("kind", MEDIA)
@pytest.mark.parametrize("shape", KINDS)
def test_row_equals_what_the_sdk_writes_for_the_same_geometry(shape, kind):
    info, (geometry, _) = replace(MEDIA[kind], frame_sizes=()), KINDS[shape]
    frames = range(min(info.num_frames, 2))
    found = with_geometry(*((frame, (1, 1, 50, 46), 0.61, 0, geometry) for frame in frames), track_id=3)

    written = write(shape, found, info).row

    label_row = load_in_sdk(new_row(info, ontology_of(shape)), info, ontology_of(shape))
    (object_hash,) = written["object_answers"]
    item = label_row.ontology_structure.get_child_by_hash("obj00001", type_=Object)
    instance = ObjectInstance(item, object_hash=object_hash)
    for frame in frames:
        instance.set_for_frames(
            coordinates(geometry, (info.width, info.height)),
            frames=frame,
            confidence=0.61,
            manual_annotation=False,
            created_at=NOW,
            last_edited_at=NOW,
        )
    label_row.add_object_instance(instance)
    assert written == label_row.to_encord_dict()


@pytest.mark.parametrize("shape", KINDS)
def test_geometry_comes_back_through_the_sdk_and_is_known_again(shape):
    found = with_geometry((0, (1, 1, 50, 46), 0.61, 0, KINDS[shape][0]), (7, (1, 1, 50, 46), 0.5, 0, KINDS[shape][0]))
    blank = new_row(VIDEO, ontology_of(shape))
    written = write(shape, found, VIDEO)

    came_back = load_in_sdk(json.loads(json.dumps(written.row)), VIDEO, ontology_of(shape)).to_encord_dict()

    assert came_back == written.row
    assert len(find_own(came_back)) == 2
    assert write(shape, found, VIDEO, came_back).row == written.row
    assert remove_own(came_back) == blank


def test_skeletons_that_prelabel_makes_are_the_sdks_own():
    made = Ontology.from_classes(["person", "dog"], shape="skeleton", point_names=["nose", "tail"])

    loaded = encord_ontology(made).structure

    assert loaded.to_dict()["skeleton_templates"] == made.structure["skeleton_templates"]
    template = loaded.skeleton_templates["dog"]
    assert template.required_vertices == {"nose", "tail"}
    assert template.feature_node_hash == loaded.get_child_by_title("dog", type_=Object).feature_node_hash


def moved_corner(label):
    label["polygons"][1][0][0] += 0.01


def other_run(label):
    label["bitmask"]["rleString"] = label["bitmask"]["rleString"] + "0"


def turned_further(label):
    label["rotatableBoundingBox"]["theta"] += 1


def hidden_point(label):
    label["skeleton"]["2"]["visibility"] = "occluded"


def flagged_point(label):
    label["skeleton"]["2"]["occluded"] = True


@pytest.mark.parametrize(
    ("shape", "edit"),
    [
        ("polygon", moved_corner),
        ("bitmask", other_run),
        ("rotatable_bounding_box", turned_further),
        ("skeleton", hidden_point),
        ("skeleton", flagged_point),
    ],
)
def test_what_somebody_has_changed_is_theirs(shape, edit):
    row = write(shape, with_geometry((0, (1, 1, 50, 46), 0.61, 0, KINDS[shape][0])), VIDEO).row
    ((_, _, label),) = objects_in(row)

    edit(label)

    assert find_own(row) == {}


def test_visibility_in_the_platforms_form_is_still_known():
    row = write("skeleton", with_geometry((0, (1, 1, 50, 46), 0.61, 0, POSE)), VIDEO).row
    ((_, _, label),) = objects_in(row)
    assert label["skeleton"]["2"].pop("visibility") == "invisible"

    label["skeleton"]["2"]["invisible"] = True

    assert len(find_own(row)) == 1


def test_a_track_of_masks_and_boxes_is_one_instance():
    found = with_geometry((0, (1, 1, 50, 46), 0.6, 0, DISC), (1, (1, 1, 50, 46), 0.6, 0, None), track_id=1)

    written = write("bitmask", found, VIDEO)

    assert written.num_instances == 1
    first, second = (label["bitmask"]["rleString"] for _, _, label in objects_in(written.row))
    assert first != second


def test_bitmask_of_a_unit_of_another_size_covers_the_same_part():
    info = VideoInfo(width=64, height=48, num_frames=1)
    row = new_row(replace(info, width=128, height=144), ontology_of("bitmask"))
    pixels = disc(48, 64, 20)

    written = write("bitmask", with_geometry((0, (1, 1, 63, 47), 0.6, 0, Mask.of(pixels))), info, row).row

    ((_, _, label),) = objects_in(written)
    read = BitmaskCoordinates(label["bitmask"]).to_numpy_array()
    assert np.array_equal(read, pixels.repeat(3, axis=0).repeat(2, axis=1))


def test_mask_that_a_smaller_unit_would_lose_keeps_a_pixel():
    info = VideoInfo(width=64, height=48, num_frames=1)
    row = new_row(replace(info, width=8, height=6), ontology_of("bitmask"))
    speck = Mask.of(np.ones((1, 1), bool), 63, 47)

    written = write("bitmask", with_geometry((0, (62, 46, 64, 48), 0.6, 0, speck)), info, row).row

    ((_, _, label),) = objects_in(written)
    assert np.argwhere(BitmaskCoordinates(label["bitmask"]).to_numpy_array()).tolist() == [[5, 7]]


def test_pictures_of_several_sizes_have_masks_of_their_own_size():
    found = with_geometry((1, (0, 0, 32, 32), 0.6, 0, Mask.of(disc(32, 32, 9))))

    ((_, frame, label),) = objects_in(write("bitmask", found, IMAGE_GROUP).row)

    assert frame == 1
    assert np.array_equal(BitmaskCoordinates(label["bitmask"]).to_numpy_array(), disc(32, 32, 9))
