"""The contract test of detectors, over what they give beyond boxes."""

from __future__ import annotations

import numpy as np
import pytest

from prelabel import Detections, FrameBatch, ModelTraits, OutputSpec
from prelabel.data.geometry import Mask
from prelabel.testing import check_detector
from tests.geometries import POSE, TURNED


class Gives:
    """Gives the same on every frame."""

    class_names = ("thing",)

    def __init__(self, known, geometry=None, keypoint_names=()):
        self.known, self.traits = known, ModelTraits(output=OutputSpec(geometry, keypoint_names))

    def detect(self, batch: FrameBatch) -> list[Detections]:
        return [Detections([[1, 1, 40, 40]], [0.5], [0], [self.known]) for _ in batch.frame_indices]


class Waits(Gives):
    """Gives it when it is asked."""

    def __init__(self, known, geometry):
        super().__init__(None, geometry)
        self.later = known

    def with_geometry(self, class_ids):
        return Gives(self.later, self.traits.output.kind)


INSIDE = Mask.of(np.ones((4, 4), bool), 3, 3)
OUTSIDE = Mask.of(np.ones((4, 4), bool), -1, 3)


@pytest.mark.parametrize(
    "detector",
    [
        Gives(None),
        Gives(INSIDE, "mask"),
        Gives(TURNED, "rotated_box"),
        Gives(POSE, "keypoints", ("a", "b", "c")),
        Waits(INSIDE, "mask"),
    ],
)
def test_detector_that_gives_what_it_names_keeps_its_contract(detector):
    check_detector(detector)


@pytest.mark.parametrize(
    ("detector", "message"),
    [
        (Gives(INSIDE), "got mask, `traits.output.kind` is None"),
        (Gives(TURNED, "mask"), "got rotated_box, `traits.output.kind` is mask"),
        (Gives(POSE, "keypoints", ("a",)), "got 3 keypoints, `traits.output.keypoint_names` has 1"),
        (Gives(OUTSIDE, "mask"), "a mask lies outside"),
        (Waits(OUTSIDE, "mask"), "a mask lies outside"),
    ],
)
def test_detector_that_gives_something_else_is_told(detector, message):
    with pytest.raises(AssertionError, match=message):
        check_detector(detector)
