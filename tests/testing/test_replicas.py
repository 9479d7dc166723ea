"""The contract test of detectors, over replicas that work at the same time."""

from __future__ import annotations

import threading

import pytest

from prelabel import Detections, FrameBatch
from prelabel.testing import check_detector


class Wide:
    """Finds a box as wide as the frame, from notes that it shares with its replicas, or that are its own.

    A replica waits until another one has written its note, too.
    """

    class_names = ("frame",)

    def __init__(self, notes: dict[str, int], shares_notes: bool, have_noted: threading.Barrier | None = None):
        self.notes, self.shares_notes, self.have_noted = notes, shares_notes, have_noted
        self.replicas_have_noted = threading.Barrier(2, timeout=50)

    def replicate(self):
        return Wide(self.notes if self.shares_notes else {}, self.shares_notes, self.replicas_have_noted)

    def detect(self, batch: FrameBatch) -> list[Detections]:
        self.notes["width"] = batch.data.shape[2]
        if self.have_noted is not None:
            self.have_noted.wait()
        return [Detections([[0, 0, self.notes["width"], 9]], [0.5], [0]) for _ in batch.frame_indices]


class ReplicatedOnGpusOnly(Wide):
    def replicate(self):
        return None


def test_replicas_that_share_nothing_but_weights_keep_the_contract():
    check_detector(Wide({}, shares_notes=False))
    check_detector(ReplicatedOnGpusOnly({}, shares_notes=False))


def test_replicas_that_overwrite_each_others_notes_break_the_contract():
    with pytest.raises(AssertionError, match="is found by a replica only"):
        check_detector(Wide({}, shares_notes=True))
