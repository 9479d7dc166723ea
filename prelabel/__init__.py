"""GPU video pre-labelling for Encord: frames in, object instances with measured confidences out."""

from prelabel.detections import Detections, VideoDetections
from prelabel.frames import FrameBatch, Media, VideoInfo
from prelabel.geometry import Keypoints, Mask, Polygons, RotatedBox
from prelabel.protocols import Classifier, Detector, LabelSink, ModelRecord, Task, TaskSource, Tracker, VideoReader

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
