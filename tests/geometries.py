"""Builders for tests of what is known beyond boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from prelabel.data.detections import VideoDetections
from prelabel.data.geometry import Geometry, Keypoints, Mask, OutputSpec, Polygons, RotatedBox
from prelabel.data.label_map import LabelMap, build_label_map
from prelabel.data.ontology import Ontology
from tests.labelling import detections, object_json

POINTS = ("Nose", "Left Eye", "Right Eye")
KEYPOINT_NAMES = ("left_eye", "right_eye", "nose", "tail")
POSE_OFFER = OutputSpec("keypoints", KEYPOINT_NAMES)


def column(*values: Geometry | None) -> np.ndarray:
    """Returns a geometry column."""
    made = np.full(len(values), None, object)
    for row, value in enumerate(values):
        made[row] = value
    return made


def with_geometry(*rows: tuple[int, Sequence[float], float, int, Geometry | None], **more: object) -> VideoDetections:
    """Returns columns of rows (frame_index, xyxy, confidence, class_id, geometry)."""
    return replace(detections(*(row[:4] for row in rows), **more), geometry=column(*(row[4] for row in rows)))


def skeleton_ontology(*, with_box: bool = False, edges: Mapping[str, object] | None = None) -> Ontology:
    """Returns an ontology of a skeleton `Person` of three points; `edges` as its template has them."""
    template = {
        "name": "Person",
        "width": 1.0,
        "height": 1.0,
        "skeleton": {
            str(n): {
                "x": n / 4,
                "y": 0.5,
                "name": name,
                "color": "#fff000",
                "value": "",
                "featureHash": f"point{n:03d}",
            }
            for n, name in enumerate(POINTS)
        },
        "skeletonEdges": edges or {},
        "feature_node_hash": "obj00001",
        "shape": "skeleton",
    }
    objects = [object_json("Person", 1, "skeleton"), *([object_json("Person", 2)] if with_box else [])]
    structure = {"objects": objects, "classifications": [], "skeleton_templates": [{"template": template}]}
    return Ontology.from_structure(structure, "Poses")


def map_to(shape: str, offer: OutputSpec) -> LabelMap:
    """Returns the map of a detector of one class, `thing`, to an object of a shape."""
    if shape == "skeleton":
        return build_label_map(["person"], skeleton_ontology(), {}, offer=offer)
    ontology = Ontology.from_structure({"objects": [object_json("thing", 1, shape)]}, "Things")
    return build_label_map(["thing"], ontology, {}, offer=offer)


def ring(*values: float) -> np.ndarray:
    """Returns corners of x, y, x, y, …"""
    return np.array(values, np.float32).reshape(-1, 2)


def disc(height: int, width: int, radius: float, hole: float = 0.0) -> np.ndarray:
    """Returns bool (height, width): a disc in the middle, with a hole."""
    y, x = np.mgrid[:height, :width]
    distance = np.hypot(y - height / 2, x - width / 2)
    return (distance < radius) & (distance >= hole)


SQUARES = Polygons(((ring(1, 1, 30, 1, 30, 30, 1, 30), ring(5, 5, 9, 5, 9, 9)), (ring(40, 40, 45, 40, 45, 45),)))
TURNED = RotatedBox(20.5, 16.25, 10, 6, 30)
POSE = Keypoints(ring(2, 3, 8, 3, 5, 6), np.array([0.9, 0.2, 0.5], np.float32))
DISC = Mask.of(disc(24, 24, 10, 4), 3, 5)
