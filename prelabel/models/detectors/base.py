"""The base class of all built-in detectors: options, weights, device, thresholds, traits, batches, replicas.

A built-in detector is one file. It subclasses `NetworkDetector`, extends its options, and implements `_load` and
`_start`.
"""

from __future__ import annotations

import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from prelabel.data.detections import Detections
from prelabel.data.frames import FrameBatch
from prelabel.data.geometry import BOXES_ONLY, OutputSpec
from prelabel.errors import ConfigError, DeviceMemoryError, did_you_mean
from prelabel.models.detectors.host import Rows, detections_of_rows
from prelabel.models.devices import DeviceName, name_device
from prelabel.models.weights import Weights, resolve_weights
from prelabel.plugins.protocols import ModelRecord
from prelabel.plugins.traits import ModelTraits

if TYPE_CHECKING:
    import torch

SMALLEST_BATCH, LARGEST_BATCH = 8, 32
LEAST_GAIN = 1.05
"""A batch twice as large must process this many times as many frames per second; otherwise it only adds delay."""
_CPU_BATCH, _GPU_BATCH = 4, 16
_REPEATS = 3


class DetectorOptions(BaseModel):
    """Options of every built-in detector.

    Attributes:
        weights: a card's name, a path, or an address with its sha256
        conf: least confidence of a box that becomes a label
        raw_conf: least confidence of a box that is kept in the raw detections; conf can be lowered to it later
        max_det: most boxes per frame
        only: names or ids of the classes to find; a name means all classes with that name; null: all
        device: auto | cpu | cuda | cuda:N | mps
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: str
    conf: float = Field(default=0.25, ge=0, le=1)
    raw_conf: float = Field(default=0.05, ge=0, le=1)
    max_det: int = Field(default=300, ge=1)
    only: tuple[int | str, ...] | None = Field(default=None, min_length=1)
    device: DeviceName = "auto"


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Facts about a loaded model.

    Attributes:
        class_names: names by class id.
        output: what the model can output in addition to boxes.
        licence: the licence that the weights state.
        engine: the runtime and its precision, in words.
        word_passes: as in `ModelTraits`.
    """

    class_names: tuple[str, ...]
    output: OutputSpec = BOXES_ONLY
    licence: str | None = None
    engine: str | None = None
    word_passes: tuple[tuple[str, ...], ...] | None = None


@dataclass(frozen=True, slots=True)
class PendingBatch:
    """A batch that the network is processing.

    Attributes:
        rows: waits for the boxes of each frame and returns them, in pixels of the frame and clipped to it.
        geometry: returns the masks, keypoints or rotated boxes of the given rows, object (n,) per frame; None if the
            model outputs boxes only.
    """

    rows: Callable[[], list[Rows]]
    geometry: Callable[[list[Rows]], Sequence[NDArray[np.object_]]] | None = None


class NetworkDetector(ABC):
    """A detector that runs a network on whole batches.

    Attributes:
        class_names: names by class id.
        traits: the model, its thresholds, and what it can output in addition to boxes.
        warnings: what the user should know about how the model was loaded.
    """

    Options: ClassVar[type[DetectorOptions]] = DetectorOptions
    drops_empty_masks: ClassVar[bool] = False

    def __init__(self, **options: object) -> None:
        self._options = self.Options.model_validate(options)
        self.warnings: tuple[str, ...] = ()
        self._device_name = self._choose_device()
        self._raw_conf = min(self._options.conf, self._options.raw_conf)
        self._geometry_ids: frozenset[int] = frozenset()
        self._batch_sizes: dict[tuple[int, int], int] = {}
        weights = self._resolve_weights()
        facts = self._load(weights)
        self.class_names: Sequence[str] = facts.class_names
        self.traits = ModelTraits(
            model=ModelRecord(weights.name, weights.sha256, weights.licence or facts.licence, facts.engine),
            batch_size=_CPU_BATCH if self._is_on_cpu else _GPU_BATCH,
            device=self._device_name,
            conf=self._options.conf,
            raw_conf=self._raw_conf,
            output=facts.output,
            word_passes=facts.word_passes,
        )

    def _choose_device(self) -> str:
        """Returns the device on which the network runs: `cpu`, `cuda:N` or `mps`."""
        return name_device(self._options.device)

    @property
    def _is_on_cpu(self) -> bool:
        return self._device_name == "cpu"

    @cached_property
    def _device(self) -> torch.device:
        import torch

        return torch.device(self._device_name)

    def _resolve_weights(self) -> Weights:
        """Returns the weights that the options name, and fetches them if necessary."""
        return resolve_weights(self._options.weights)

    @abstractmethod
    def _load(self, weights: Weights) -> ModelFacts:
        """Loads the network on `self._device` and returns facts about it."""

    @abstractmethod
    def _start(self, batch: FrameBatch) -> PendingBatch:
        """Starts the network on a batch that is on `self._device`. It must not wait for a GPU.

        `batch.data` has RGB frames of full size. `batch.source` saves making them, if the batch has surfaces.
        """

    def _replicate(self) -> bool:
        """Replaces the network of this copy with a replica; returns False if that is not possible."""
        return False

    def detect(self, batch: FrameBatch) -> list[Detections]:
        """Returns one `Detections` per frame, highest confidence first, in pixels of the displayed frame."""
        return self.start(batch)()

    def start(self, batch: FrameBatch) -> Callable[[], list[Detections]]:
        """Starts detection on a batch and returns a function that waits for the result.

        Raises:
            DeviceMemoryError: the batch does not fit into the device's memory.
        """
        if not len(batch):
            return list
        import torch

        with torch.inference_mode():
            try:
                pending = self._start(batch.to(self._device))
            except torch.OutOfMemoryError as error:
                raise DeviceMemoryError(f"{len(batch)} frames do not fit on {self._device}") from error

        # The default argument keeps the batch alive: the asynchronous copy to the device still reads its host memory.
        def finish(_held: FrameBatch = batch) -> list[Detections]:
            with torch.inference_mode():
                return self._detections(pending)

        return finish

    def _detections(self, pending: PendingBatch) -> list[Detections]:
        """Waits for a batch and returns its detections. Those of the requested classes have geometry."""
        frames = pending.rows()
        if not self._geometry_ids or pending.geometry is None:
            return [detections_of_rows(rows) for rows in frames]
        wanted = [np.isin(rows[:, 5].astype(np.int64), list(self._geometry_ids)) for rows in frames]
        geometry = pending.geometry([rows[mask] for rows, mask in zip(frames, wanted, strict=True)])
        detections = []
        for rows, mask, known in zip(frames, wanted, geometry, strict=True):
            column = np.full(len(rows), None, object)
            column[mask] = known
            keep = ~mask | column.astype(np.bool_) if self.drops_empty_masks else np.ones(len(rows), np.bool_)
            detections.append(detections_of_rows(rows[keep], column[keep]))
        return detections

    def with_geometry(self, class_ids: frozenset[int]) -> Self:
        """Returns a detector on the same network that adds masks, keypoints or rotated boxes for these classes."""
        detector = copy.copy(self)
        detector._geometry_ids, detector._batch_sizes = class_ids, {}
        return detector

    def replicate(self) -> Self | None:
        """Returns a detector with the same weights for another CPU thread; None on a GPU."""
        replica = copy.copy(self)
        return replica if self._is_on_cpu and replica._replicate() else None

    def fit_batch(self, height: int, width: int) -> int:
        """Returns the batch size for frames of this size, in pixels. On a GPU it is measured once per frame size."""
        if self._is_on_cpu:
            return _CPU_BATCH
        size = (height, width)
        if size not in self._batch_sizes:
            self._batch_sizes[size] = fit_batch_size(
                lambda num: time_batch(self.start, height, width, self._device, num)
            )
        return self._batch_sizes[size]


def class_ids_of(classes: Sequence[int | str] | None, class_names: Sequence[str]) -> tuple[int, ...] | None:
    """Returns the sorted ids of classes given by id or name. None means all classes, and stays None.

    If several classes have the same name, the name means all of them.

    Raises:
        ConfigError: the model has no such class.

    >>> class_ids_of(["car", 2], ["car", "bus", "tram", "car"])
    (0, 2, 3)
    """
    if classes is None:
        return None
    ids: set[int] = set()
    for wanted in classes:
        if isinstance(wanted, int):
            if not 0 <= wanted < len(class_names):
                raise ConfigError(f"detector.only: got {wanted}, this model has 0 to {len(class_names) - 1}")
            ids.add(wanted)
            continue
        found = [class_id for class_id, name in enumerate(class_names) if name == wanted]
        if not found:
            hint = did_you_mean(wanted, class_names)
            raise ConfigError(f"detector.only: {wanted!r} is no class of this model; {hint}")
        ids.update(found)
    return tuple(sorted(ids))


def fit_batch_size(
    seconds_of: Callable[[int], float], smallest: int = SMALLEST_BATCH, largest: int = LARGEST_BATCH
) -> int:
    """Returns the batch size after doubling it while frames per second rise and memory suffices.

    Args:
        seconds_of: returns the seconds that a batch of this size takes.
        smallest: the first size to try.
        largest: the last size to try.

    >>> fit_batch_size(lambda size: 1 + size / 16)  # each batch costs as much as 16 frames
    32
    >>> fit_batch_size(lambda size: float(size))
    8
    """
    best, best_rate, size = smallest, 0.0, smallest
    while size <= largest:
        try:
            rate = size / seconds_of(size)
        except DeviceMemoryError:
            return best
        if rate < LEAST_GAIN * best_rate:
            return best
        best, best_rate = size, rate
        size *= 2
    return best


def time_batch(
    start: Callable[[FrameBatch], Callable[[], object]], height: int, width: int, device: torch.device, num_frames: int
) -> float:
    """Returns the seconds per batch of black frames. As in a run, each batch starts before the last one ends."""
    import torch

    data = torch.zeros((num_frames, height, width, 3), dtype=torch.uint8, device=device)
    indices = np.arange(num_frames)
    batch = FrameBatch(data, indices, indices / 25.0)
    start(batch)()  # a warm-up: the first batch also chooses kernels and allocates memory
    began = time.perf_counter()
    pending = start(batch)
    for _ in range(_REPEATS - 1):
        next_pending = start(batch)
        pending()
        pending = next_pending
    pending()
    return (time.perf_counter() - began) / _REPEATS
