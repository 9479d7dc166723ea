"""A video with the detections that become its labels: what every export writes from."""

from __future__ import annotations

from dataclasses import dataclass

from prelabel.detections import VideoDetections
from prelabel.frames import VideoInfo
from prelabel.label_map import LabelMap


@dataclass(frozen=True, slots=True)
class LabelledVideo:
    """A video, shaped and mapped.

    Attributes:
        title: what people call it; unique in an export.
        info: the video as it is shown.
        detections: after shaping: every class is mapped, every box lies in its frame.
        label_map: from the detector's classes to ontology objects.
    """

    title: str
    info: VideoInfo
    detections: VideoDetections
    label_map: LabelMap
