"""What a model may tell of a thing beyond its box: masks, polygons, rotated boxes, keypoints."""

from prelabel.geometry.kinds import (
    BOXES_ALONE,
    GEOMETRY_KINDS,
    SEEN_FROM,
    Geometry,
    GeometryKind,
    GeometryOffer,
    Keypoints,
    Mask,
    Polygons,
    RotatedBox,
    as_geometry_column,
    clip_geometry,
    move_geometry,
)

__all__ = [
    "BOXES_ALONE",
    "GEOMETRY_KINDS",
    "SEEN_FROM",
    "Geometry",
    "GeometryKind",
    "GeometryOffer",
    "Keypoints",
    "Mask",
    "Polygons",
    "RotatedBox",
    "as_geometry_column",
    "clip_geometry",
    "move_geometry",
]
