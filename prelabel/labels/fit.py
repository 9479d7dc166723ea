"""Converts masks, rotated boxes and poses to the shapes of ontology objects.

`held_geometry` drops geometry that the shape cannot hold: of a mask of a bounding box object, only the box remains.
`fit_geometry` then converts the rest: a mask of a polygon object becomes polygons, and keypoints get the order of the
skeleton.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from prelabel.data.detections import VideoDetections
from prelabel.data.frames import VideoInfo
from prelabel.data.geometry import Geometry, Keypoints, Mask, Polygons, RotatedBox, clip_geometry
from prelabel.data.label_map import LabelMap
from prelabel.data.masks import trace_mask
from prelabel.errors import DetectError


def check_geometry(found: VideoDetections, label_map: LabelMap) -> None:
    """Checks that all geometry is of the kind that the detector declares.

    Raises:
        DetectError: some geometry is of another kind.
    """
    kinds = {geometry.kind for geometry in found.geometry[found.has_geometry]} - {label_map.offer.kind}
    if kinds:
        raise DetectError(
            f"geometry: got {sorted(kinds)[0]}, but the detector declares {label_map.offer.kind} in `geometry`: "
            "it has to declare the one kind that it returns"
        )


def lacks_keypoints(found: VideoDetections, label_map: LabelMap) -> NDArray[np.bool_]:
    """Returns which detections are mapped to a skeleton but have no keypoints, (N,) bool.

    Args:
        found: of mapped classes.
        label_map: from the detector's classes to ontology objects.
    """
    if not label_map.keypoints:
        return np.zeros(len(found), np.bool_)
    is_skeleton = np.array([len(points) > 0 for points in label_map.keypoints])
    lacks: NDArray[np.bool_] = is_skeleton[found.class_id] & ~found.has_geometry
    return lacks


def held_geometry(found: VideoDetections, label_map: LabelMap) -> NDArray[np.object_]:
    """Returns the geometry that the objects' shapes can hold, (N,) object; None in all other rows.

    Args:
        found: of mapped classes.
        label_map: from the detector's classes to ontology objects.
    """
    is_held = np.isin(np.arange(len(label_map.objects)), list(label_map.wants_geometry))
    held = found.geometry.copy()
    held[~is_held[found.class_id]] = None
    return held


def fit_geometry(
    found: VideoDetections, info: VideoInfo, label_map: LabelMap, polygon_tolerance_px: float
) -> VideoDetections:
    """Returns the detections with geometry converted to the objects' shapes and clipped to the frame.

    For a polygon object, a mask becomes polygons, and a rotated box becomes its four corners. Keypoints get the
    skeleton's order. If a mask is too small for a polygon, it is dropped, and the box remains.

    Args:
        found: of mapped classes, with geometry that the objects' shapes can hold.
        info: the video or images.
        label_map: from the detector's classes to ontology objects.
        polygon_tolerance_px: largest distance of a polygon from the mask's edge.
    """
    fitting = np.full(len(found), None, object)
    for row in np.flatnonzero(found.has_geometry).tolist():
        class_id, geometry = found.class_id[row], found.geometry[row]
        category = label_map.objects[class_id]
        if category is not None and category.shape == "polygon":
            geometry = _as_polygons(geometry, polygon_tolerance_px)
        elif isinstance(geometry, Keypoints):
            order = list(label_map.keypoints[class_id])
            geometry = Keypoints(geometry.xy[order], geometry.confidence[order])
        if geometry is not None:
            fitting[row] = clip_geometry(geometry, *info.size_of(int(found.frame_index[row])))
    return replace(found, geometry=fitting)


def _as_polygons(geometry: Geometry, tolerance_px: float) -> Polygons | None:
    match geometry:
        case Mask():
            return trace_mask(geometry, tolerance_px)
        case RotatedBox():
            return Polygons(((geometry.corners,),))
        case Polygons():
            return geometry
    raise ValueError(f"{geometry.kind}: has no outline")
