"""A CPU's cores as several streams: parts of a batch computed beside each other, each on its share of the cores."""

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
"""Unless a config asks for more: a CPU's batch has 4 frames where nobody says otherwise."""


class ReplicatedDetector:
    """A detector's replicas, each on a thread of its own, for parts of each batch.

    Cores that share each layer wait for each other at its end, and idle in what a network does between layers; cores
    with frames of their own do neither.

    Args:
        replicas: which all give the same; one a stream.
        num_threads: of each for its layers.
    """

    def __init__(self, replicas: Sequence[Detector], num_threads: int) -> None:
        import torch

        self.class_names = replicas[0].class_names
        self._num = len(replicas)
        spare, self._own = list(replicas), threading.local()

        def begin() -> None:
            torch.set_num_threads(num_threads)
            torch.get_num_threads()  # asked for once, a thread's number stays
            self._own.detector = spare.pop()

        num_before = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(self._num, "stream", begin)
        all_there = threading.Barrier(self._num)
        wait([self._pool.submit(all_there.wait) for _ in replicas])
        torch.set_num_threads(num_before)  # until then what one sets is the number of all

    def detect(self, batch: FrameBatch) -> list[Detections]:
        """Returns one `Detections` a frame, in the batch's order."""
        return self.start(batch)()

    def start(self, batch: FrameBatch) -> Callable[[], list[Detections]]:
        """Begins with a batch and returns what waits for its detections."""
        parts = [batch.part(start, stop) for start, stop in shares(len(batch), self._num)]
        awaited = [self._pool.submit(self._detect, part) for part in parts]
        return lambda: [found for part in awaited for found in part.result()]

    def _detect(self, part: FrameBatch) -> list[Detections]:
        detector: Detector = self._own.detector
        return detector.detect(part)


def shares(num_frames: int, num_streams: int) -> list[tuple[int, int]]:
    """Returns from where to before where each part goes, as even as can be; fewer where there are fewer frames.

    >>> shares(5, 2)
    [(0, 2), (2, 5)]
    """
    cuts = [num_frames * stream // num_streams for stream in range(num_streams + 1)]
    return [(start, stop) for start, stop in pairwise(cuts) if start < stop]


def count_streams(detector: Detector, asked: int | Literal["auto"]) -> int:
    """Returns on how many streams a detector runs; `auto`: one a core that torch uses, up to `MOST_STREAMS`.

    Raises:
        ConfigError: several are asked for, and the detector has no replicas.
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
    """Returns a detector that has replicas on so many streams; of one stream it is the detector itself."""
    if num == 1 or not has_method(detector, "replicate"):
        return detector
    import torch

    replicas = [replica for _ in range(num) if (replica := detector.replicate()) is not None]
    return ReplicatedDetector(replicas, max(1, torch.get_num_threads() // num))
