"""A detector and a classifier that stand in for a device: they take their time and leave the processor free."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from prelabel.data.detections import Detections
from prelabel.data.frames import FrameBatch


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


class WaitingClassifier:
    """Finds the first of its classes on every picture, after a fixed time.

    Args:
        picture_ms: that the device works on a picture, whatever the batch.
    """

    class_names = ("thing", "other")

    def __init__(self, picture_ms: float) -> None:
        self._picture_seconds = picture_ms / 1e3

    def classify(self, images: Sequence[torch.Tensor]) -> NDArray[np.float32]:
        """Waits, and returns the same probabilities for each picture."""
        time.sleep(self._picture_seconds * len(images))
        return np.tile(np.array([[0.8, 0.2]], np.float32), (len(images), 1))
