"""The contract test of detectors, over twins that work beside each other."""

from __future__ import annotations

import threading

import pytest

from prelabel import Detections, FrameBatch
from prelabel.testing import check_detector


class Wide:
    """Finds a box as wide as the frame, by way of what all of its twins, or it alone, note down.

    A twin waits until another one has noted, too.
    """

    class_names = ("frame",)

    def __init__(self, notes: dict[str, int], shares_notes: bool, have_noted: threading.Barrier | None = None):
        self.notes, self.shares_notes, self.have_noted = notes, shares_notes, have_noted
        self.twins_have_noted = threading.Barrier(2, timeout=50)

    def replicate(self):
        return Wide(self.notes if self.shares_notes else {}, self.shares_notes, self.twins_have_noted)

    def detect(self, batch: FrameBatch) -> list[Detections]:
        self.notes["width"] = batch.data.shape[2]
        if self.have_noted is not None:
            self.have_noted.wait()
        return [Detections([[0, 0, self.notes["width"], 9]], [0.5], [0]) for _ in batch.frame_indices]


class TwinOnGpusOnly(Wide):
    def replicate(self):
        return None


def test_twins_that_share_nothing_but_weights_keep_the_contract():
    check_detector(Wide({}, shares_notes=False))
    check_detector(TwinOnGpusOnly({}, shares_notes=False))


def test_twins_that_write_over_each_others_notes_do_not():
    with pytest.raises(AssertionError, match="is found by a twin only"):
        check_detector(Wide({}, shares_notes=True))
