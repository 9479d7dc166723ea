"""What is known beyond a box, in the form that the object's shape holds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from prelabel.data.geometry import BOXES_ONLY, Keypoints, Mask, OutputSpec, Polygons
from prelabel.data.label_map import build_label_map
from prelabel.data.ontology import Ontology
from prelabel.errors import DetectError, OntologyError
from prelabel.labels.filter import filter_detections
from prelabel.labels.fit import fit_geometry
from tests.geometries import (
    DISC,
    POINTS,
    POSE_OFFER,
    SQUARES,
    TURNED,
    map_to,
    ring,
    skeleton_ontology,
    with_geometry,
)
from tests.labelling import VIDEO, detections

BOX = (1, 1, 50, 46)
POSE = Keypoints(ring(2, 3, 8, 3, 5, 6, 1, 99), np.array([0.9, 0.2, 0.5, 0.7], np.float32))


def fitted(shape, offer, geometry, polygon_tolerance_px=1.0):
    label_map = map_to(shape, offer)
    filtered = filter_detections(with_geometry((0, BOX, 0.6, 0, geometry)), VIDEO, label_map)
    return fit_geometry(filtered.detections, VIDEO, label_map, polygon_tolerance_px).geometry[0]


def test_mask_becomes_polygons_of_as_few_corners_as_the_tolerance_allows():
    coarse = fitted("polygon", OutputSpec("mask"), DISC, polygon_tolerance_px=3.0)
    fine = fitted("polygon", OutputSpec("mask"), DISC, polygon_tolerance_px=0.5)

    assert isinstance(fine, Polygons)
    assert sum(len(ring) for rings in coarse.parts for ring in rings) < sum(len(ring) for ring in fine.parts[0])


@pytest.mark.parametrize(
    ("shape", "kind", "geometry"),
    [
        ("bitmask", "mask", DISC),
        ("polygon", "polygons", SQUARES),
        ("rotatable_bounding_box", "rotated_box", TURNED),
    ],
)
def test_geometry_that_its_shape_holds_stays(shape, kind, geometry):
    kept = fitted(shape, OutputSpec(kind), geometry)

    assert type(kept) is type(geometry)


@pytest.mark.parametrize(("kind", "geometry"), [("mask", DISC), ("rotated_box", TURNED), ("polygons", SQUARES)])
def test_bounding_box_holds_none_of_it(kind, geometry):
    assert fitted("bounding_box", OutputSpec(kind), geometry) is None


def test_turned_box_becomes_a_polygon_of_its_corners_within_the_frame():
    (((corners,),),) = (fitted("polygon", OutputSpec("rotated_box"), TURNED).parts,)
    assert np.allclose(corners, TURNED.corners)

    outside = fitted("polygon", OutputSpec("rotated_box"), replace(TURNED, centre_x=0))
    assert outside.parts[0][0].min() == 0


def test_mask_of_nothing_that_can_be_drawn_leaves_the_box():
    speck = Mask.of(np.ones((1, 1), bool), 5, 5)
    assert fitted("polygon", OutputSpec("mask"), speck, polygon_tolerance_px=4.0) is None


def test_keypoints_come_in_the_order_of_the_skeleton_by_name():
    pose = fitted("skeleton", POSE_OFFER, POSE)

    assert pose.xy.tolist() == [[5, 6], [2, 3], [8, 3]]
    assert pose.confidence.tolist() == pytest.approx([0.5, 0.9, 0.2])


def test_detection_without_keypoints_becomes_no_skeleton_and_is_counted():
    found = with_geometry((0, BOX, 0.6, 0, POSE), (1, BOX, 0.6, 0, None))

    filtered = filter_detections(found, VIDEO, map_to("skeleton", POSE_OFFER))

    assert filtered.detections.frame_index.tolist() == [0]
    assert filtered.dropped == {"no_keypoints": {"person": 1}}


@pytest.mark.parametrize("offer", [BOXES_ONLY, OutputSpec("rotated_box")])
def test_geometry_of_a_kind_that_the_detector_does_not_name_is_refused(offer):
    with pytest.raises(DetectError, match="geometry: got mask, but the detector declares"):
        fitted("polygon", offer, DISC)


def test_of_several_objects_of_a_name_the_one_that_holds_most_is_meant():
    ontology = skeleton_ontology(with_box=True)

    pose = build_label_map(["person"], ontology, {}, offer=POSE_OFFER)
    boxes = build_label_map(["person"], ontology, {})

    assert [found.shape for found in (*pose.categories, *boxes.categories)] == ["skeleton", "bounding_box"]
    assert (pose.wants_geometry, boxes.wants_geometry) == ({0}, frozenset())


def test_keypoints_of_other_names_are_mapped_by_the_config():
    offer = OutputSpec("keypoints", ("a", "b", "c"))
    renamed = dict(zip("cab", POINTS, strict=True))

    assert build_label_map(["person"], skeleton_ontology(), {}, offer=offer, keypoints=renamed).keypoints == (
        (2, 0, 1),
    )


@pytest.mark.parametrize(
    ("offer", "keypoints", "message"),
    [
        (
            OutputSpec("keypoints", ("nose", "tail")),
            {},
            "no keypoint is mapped to the point 'Left Eye' of the skeleton",
        ),
        (POSE_OFFER, {"noze": "Nose"}, "the detector has no keypoint 'noze': did you mean 'nose'"),
        (BOXES_ONLY, {}, "ontology .Poses. has no object of shape bounding_box, .*: add an object there"),
    ],
)
def test_skeleton_that_cannot_be_filled_is_named(offer, keypoints, message):
    with pytest.raises(OntologyError, match=message):
        build_label_map(["person"], skeleton_ontology(), {}, offer=offer, keypoints=keypoints)


@pytest.mark.parametrize("templates", [None, [], [{"template": {"name": "Person"}}], ["?"]])
def test_skeleton_of_unknown_points_is_missed_only_where_it_is_wanted(templates):
    structure = {**skeleton_ontology(with_box=True).structure, "skeleton_templates": templates}
    ontology = Ontology.from_structure(structure, "Poses")

    assert build_label_map(["person"], ontology, {}).categories[0].shape == "bounding_box"
    with pytest.raises(OntologyError, match="skeleton 'Person': the ontology's skeleton_templates do not say"):
        build_label_map(["person"], ontology, {}, offer=POSE_OFFER)


def test_keypoints_where_nothing_is_a_skeleton_are_too_many():
    with pytest.raises(OntologyError, match=r"labels\.keypoints: no class is mapped to a skeleton"):
        build_label_map(["thing"], Ontology.from_classes(["thing"]), {}, keypoints={"nose": "Nose"})


def test_box_of_a_polygon_stays_a_box_where_no_more_is_known():
    filtered = filter_detections(detections((0, BOX, 0.6, 0)), VIDEO, map_to("polygon", BOXES_ONLY))

    assert not filtered.detections.has_geometry.any()
