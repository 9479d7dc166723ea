"""GPU video pre-labelling for Encord: frames in, object instances with measured confidences out."""

from prelabel.data.detections import Detections, VideoDetections
from prelabel.data.frames import FrameBatch, Media, VideoInfo
from prelabel.data.geometry import Keypoints, Mask, OutputSpec, Polygons, RotatedBox
from prelabel.plugins.protocols import (
    Classifier,
    Detector,
    LabelSink,
    ModelRecord,
    Refiner,
    ShotTracker,
    Task,
    TaskSource,
    Tracker,
    VideoReader,
)
from prelabel.plugins.traits import ModelTraits

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
    "ModelTraits",
    "OutputSpec",
    "Polygons",
    "Refiner",
    "RotatedBox",
    "ShotTracker",
    "Task",
    "TaskSource",
    "Tracker",
    "VideoDetections",
    "VideoInfo",
    "VideoReader",
]
