"""A CPU's cores as several streams: parts of a batch computed beside each other, each on its share of the cores."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from prelabel.capabilities import HasTwins
from prelabel.detections import Detections
from prelabel.errors import ConfigError
from prelabel.frames import FrameBatch
from prelabel.protocols import Classifier, Detector

if TYPE_CHECKING:
    import torch

MOST_STREAMS = 4
"""Unless a config asks for more: a CPU's batch has 4 frames where nobody says otherwise."""

_Part = TypeVar("_Part")
_Result = TypeVar("_Result")


class Streams(Generic[_Part]):
    """Threads, each with one of several twins and a share of the cores.

    Cores that share each layer wait for each other at its end, and idle in what a network does between layers; cores
    with pictures of their own do neither.

    Args:
        twins: which all give the same; one a stream.
        num_threads: of each for its layers.
    """

    def __init__(self, twins: Sequence[_Part], num_threads: int) -> None:
        self.num = len(twins)
        spare, self._own = list(twins), threading.local()

        def begin() -> None:
            import torch

            torch.set_num_threads(num_threads)  # of this thread
            self._own.twin = spare.pop()

        self._pool = ThreadPoolExecutor(self.num, "stream", begin)

    def begin(self, num_items: int, work: Callable[[_Part, slice], _Result]) -> Callable[[], list[_Result]]:
        """Has each stream work on its share of so many items, with its twin; returns what waits for their results."""
        awaited = [self._pool.submit(self._work, work, share) for share in shares(num_items, self.num)]
        return lambda: [part.result() for part in awaited]

    def _work(self, work: Callable[[_Part, slice], _Result], share: slice) -> _Result:
        return work(self._own.twin, share)


def shares(num_items: int, num_streams: int) -> list[slice]:
    """Returns which items go to which stream, as evenly as it goes; to fewer streams where there are fewer items.

    >>> shares(5, 2)
    [slice(0, 2, None), slice(2, 5, None)]
    """
    cuts = [num_items * stream // num_streams for stream in range(num_streams + 1)]
    return [slice(start, stop) for start, stop in pairwise(cuts) if start < stop]


class StreamedDetector:
    """A detector that computes parts of a batch beside each other."""

    def __init__(self, streams: Streams[Detector], class_names: Sequence[str]) -> None:
        self._streams, self.class_names = streams, class_names

    def detect(self, batch: FrameBatch) -> list[Detections]:
        """Returns one `Detections` a frame, in the batch's order."""
        return self.start(batch)()

    def start(self, batch: FrameBatch) -> Callable[[], list[Detections]]:
        """Begins with a batch and returns what waits for its detections."""

        def look(twin: Detector, share: slice) -> list[Detections]:
            return twin.detect(batch.part(share.start, share.stop))

        finish = self._streams.begin(len(batch), look)
        return lambda: [found for part in finish() for found in part]


class StreamedClassifier:
    """A classifier that computes parts of a batch beside each other."""

    def __init__(self, streams: Streams[Classifier], class_names: Sequence[str]) -> None:
        self._streams, self.class_names = streams, class_names

    def classify(self, images: Sequence[torch.Tensor]) -> NDArray[np.float32]:
        """Returns how probable each class is, float32 (N, C), a row a picture, in their order."""
        return self.start(images)()

    def start(self, images: Sequence[torch.Tensor]) -> Callable[[], NDArray[np.float32]]:
        """Begins with pictures and returns what waits for their probabilities."""
        finish = self._streams.begin(len(images), lambda twin, share: twin.classify(images[share]))
        none = np.zeros((0, len(self.class_names)), np.float32)
        return lambda: np.concatenate([none, *finish()])


def detector_on_streams(detector: Detector, num: int | Literal["auto"]) -> Detector:
    """Returns the detector on so many streams; `auto`: one a core that torch uses, up to `MOST_STREAMS`.

    Raises:
        ConfigError: several are asked for, and the detector has no twins.
    """
    streams = _make_streams("detector", detector, num)
    return detector if streams is None else StreamedDetector(streams, detector.class_names)


def classifier_on_streams(classifier: Classifier, num: int | Literal["auto"]) -> Classifier:
    """Returns the classifier on so many streams; `auto`: one a core that torch uses, up to `MOST_STREAMS`.

    Raises:
        ConfigError: several are asked for, and the classifier has no twins.
    """
    streams = _make_streams("classifier", classifier, num)
    return classifier if streams is None else StreamedClassifier(streams, classifier.class_names)


def _make_streams(section: str, part: _Part, num: int | Literal["auto"]) -> Streams[_Part] | None:
    """Returns streams of a part's twins; None where there is to be one stream, or where it has no twins."""
    if num == 1:
        return None
    if isinstance(part, HasTwins):
        import torch

        num_cores = torch.get_num_threads()
        wanted = min(num_cores, MOST_STREAMS) if num == "auto" else num
        twins = [twin for _ in range(wanted) if (twin := part.twin()) is not None]
        if len(twins) > 1:
            return Streams(twins, max(1, num_cores // wanted))
    if num == "auto":
        return None
    raise ConfigError(f"{section}.streams: got {num}, but this {section} has one stream here: leave streams out")
