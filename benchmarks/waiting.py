"""A detector that stands in for a device: it takes its time and leaves the processor free."""

from __future__ import annotations

import time

import numpy as np

from prelabel.detections import Detections
from prelabel.frames import FrameBatch


class WaitingDetector:
    """Finds one thing, in the same place on every frame, after a fixed time.

    Args:
        frame_ms: that the device works on a frame, whatever the batch.
    """

    class_names = ("thing",)

    def __init__(self, frame_ms: float) -> None:
        self._frame_seconds = frame_ms / 1e3

    def detect(self, batch: FrameBatch) -> list[Detections]:
        """Waits, and returns the thing's box for each frame."""
        time.sleep(self._frame_seconds * len(batch))
        thing = Detections(
            xyxy=np.array([[2, 2, 40, 40]], np.float32),
            confidence=np.array([0.9], np.float32),
            class_id=np.array([0], np.int64),
        )
        return [thing] * len(batch)
