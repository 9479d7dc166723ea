"""GPU video pre-labelling for Encord: frames in, object instances with measured confidences out."""

from prelabel.data.detections import Detections, VideoDetections
from prelabel.data.frames import FrameBatch, Media, VideoInfo
from prelabel.data.geometry import Keypoints, Mask, Polygons, RotatedBox
from prelabel.plugins.protocols import (
    Classifier,
    Detector,
    LabelSink,
    ModelRecord,
    Task,
    TaskSource,
    Tracker,
    VideoReader,
)

__version__ = "0.1.0"

__all__ = [
    "Classifier",
    "Detections",
    "Detector",
    "FrameBatch",
    "Keypoints",
    "LabelSink",
    "Mask",
    "Media",
    "ModelRecord",
    "Polygons",
    "RotatedBox",
    "Task",
    "TaskSource",
    "Tracker",
    "VideoDetections",
    "VideoInfo",
    "VideoReader",
]
