"""What is known beyond a box, in the form that the ontology object's shape holds."""

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
    """Checks that all geometry is of the kind that the detector says it gives.

    Raises:
        DetectError: some is not.
    """
    kinds = {geometry.kind for geometry in found.geometry[found.has_geometry]} - {label_map.offer.kind}
    if kinds:
        raise DetectError(
            f"geometry: got {sorted(kinds)[0]}, but the detector's own `geometry` says {label_map.offer.kind}: "
            "it has to name the one kind that it gives"
        )


def lacks_keypoints(found: VideoDetections, label_map: LabelMap) -> NDArray[np.bool_]:
    """Returns which detections become skeletons, but have no keypoints, bool (N,): a box is no pose.

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
    """Returns the geometry, object (N,), without what the objects' shapes do not hold.

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
    """Returns the detections with their geometry in the form that the objects' shapes have, within the frame.

    A mask becomes polygons where the object is a polygon, a rotated box its four corners; keypoints come in the order
    of the skeleton. Where a mask is too small to be drawn, the box is all that is left.

    Args:
        found: of mapped classes; their geometry is such as the objects' shapes hold.
        info: the video.
        label_map: from the detector's classes to ontology objects.
        polygon_tolerance_px: how far a polygon may lie from the mask's edge.
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
