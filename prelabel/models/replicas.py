"""Runs replicas of a detector at the same time, each on a part of the batch and a share of the CPU's cores."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise
from typing import Literal

from prelabel.data.detections import Detections
from prelabel.data.frames import FrameBatch
from prelabel.errors import ConfigError
from prelabel.plugins.protocols import Detector
from prelabel.plugins.traits import has_method

MOST_STREAMS = 4
"""The most replicas for `auto`: a CPU's batch has 4 frames by default."""


class ReplicatedDetector:
    """Runs a detector's replicas on parts of each batch, each replica on its own thread.

    Cores that share a layer wait for each other at its end, and idle while the network works between layers. Cores that
    each compute their own frames do neither.

    Args:
        replicas: detectors with the same results, one per thread.
        num_threads: torch threads of each replica.
    """

    def __init__(self, replicas: Sequence[Detector], num_threads: int) -> None:
        import torch

        self.class_names = replicas[0].class_names
        self._num = len(replicas)
        spare, self._own = list(replicas), threading.local()

        def begin() -> None:
            torch.set_num_threads(num_threads)
            torch.get_num_threads()  # after this call, a later `set_num_threads` elsewhere does not change this thread
            self._own.detector = spare.pop()

        num_before = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(self._num, "stream", begin)
        # The barrier makes the pool start all its threads now, each with its own replica.
        all_there = threading.Barrier(self._num)
        wait([self._pool.submit(all_there.wait) for _ in replicas])
        torch.set_num_threads(num_before)  # the threads above have also changed the number of this thread

    def detect(self, batch: FrameBatch) -> list[Detections]:
        """Returns one `Detections` per frame, in the batch's order."""
        return self.start(batch)()

    def start(self, batch: FrameBatch) -> Callable[[], list[Detections]]:
        """Starts detection on a batch and returns a function that waits for the result."""
        parts = [batch.part(start, stop) for start, stop in shares(len(batch), self._num)]
        awaited = [self._pool.submit(self._detect, part) for part in parts]
        return lambda: [found for part in awaited for found in part.result()]

    def _detect(self, part: FrameBatch) -> list[Detections]:
        detector: Detector = self._own.detector
        return detector.detect(part)


def shares(num_frames: int, num_streams: int) -> list[tuple[int, int]]:
    """Returns the start and stop of each part of a batch, as equal in size as possible, without empty parts.

    >>> shares(5, 2)
    [(0, 2), (2, 5)]
    """
    cuts = [num_frames * stream // num_streams for stream in range(num_streams + 1)]
    return [(start, stop) for start, stop in pairwise(cuts) if start < stop]


def count_streams(detector: Detector, asked: int | Literal["auto"]) -> int:
    """Returns the number of replicas; for `auto`, one per torch thread, up to `MOST_STREAMS`.

    Raises:
        ConfigError: several replicas are requested, but the detector cannot be replicated here.
    """
    if asked == 1:
        return 1
    if has_method(detector, "replicate") and detector.replicate() is not None:
        import torch

        return min(torch.get_num_threads(), MOST_STREAMS) if asked == "auto" else asked
    if asked == "auto":
        return 1
    raise ConfigError(f"detector.replicas: got {asked}, but this detector runs as one here: leave replicas out")


def on_streams(detector: Detector, num: int) -> Detector:
    """Returns a detector that runs `num` replicas; for one replica, the detector itself."""
    if num == 1 or not has_method(detector, "replicate"):
        return detector
    import torch

    replicas = [replica for _ in range(num) if (replica := detector.replicate()) is not None]
    return ReplicatedDetector(replicas, max(1, torch.get_num_threads() // num))
