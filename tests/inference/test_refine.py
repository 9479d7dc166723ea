from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from prelabel.config.sections import ReaderSection
from prelabel.inference.refine import Refinement
from tests.builders import batch


class Meeting:
    """Notes whether two calls are in it at the same time. The first call waits for a second one, but not for long."""

    def __init__(self) -> None:
        self.barrier, self.has_met = threading.Barrier(2), False

    def refine(self, frames, boxes):
        try:
            self.barrier.wait(timeout=0.2)
            self.has_met = True
        except threading.BrokenBarrierError:
            pass
        return [[None] * len(of_frame) for of_frame in boxes]


def test_two_threads_do_not_call_the_refiner_at_the_same_time():
    refiner = Meeting()
    refinement = Refinement(refiner, ReaderSection(), Path(), "strict", 4)
    with ThreadPoolExecutor(2) as threads:
        boxes = [np.array([[0, 0, 8, 8]], np.float32)]
        assert list(threads.map(refinement.masks, [batch(), batch()], [boxes, boxes])) == [[[None]], [[None]]]
    assert not refiner.has_met
