"""Detectors that torchvision builds: any of its detection builders, with published weights or your own."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from prelabel.cards import ModelCard
from prelabel.detections import Detections
from prelabel.detectors.rows import HostCopy, boxes_of_table, detections_of_rows, pad_rows
from prelabel.detectors.torchvision_geometry import keypoint_names, read_keypoints, read_masks, without_heads
from prelabel.detectors.torchvision_loading import build_network, published_categories
from prelabel.errors import DeviceMemoryError
from prelabel.frames import FrameBatch
from prelabel.networks.device import pick_device
from prelabel.networks.state_dict import read_state_dict
from prelabel.networks.torchvision_models import builder_name
from prelabel.networks.twins import twin_of
from prelabel.protocols import ModelRecord
from prelabel.weights import resolve_weights

_EXAMPLE = "torchvision.models.detection.fasterrcnn_resnet50_fpn_v2"

_NO_CLASS = "N/A"  # COCO's numbering has gaps; torchvision names them so


class TorchvisionDetector:
    """Runs a torchvision detection network, which scales, normalises and suppresses by itself.

    Attributes:
        class_names: names by class id, without the background.
        conf: confidence from which boxes are meant to become labels.
        lowest_conf: confidence down to which `detect` gives boxes, so that `conf` can be lowered without the model.
        model: which weights these are.
        default_batch_size: frames a batch when nobody asks for another number.
        geometry: what the network tells beyond boxes, where it is asked by `with_geometry`.
        keypoint_names: of a network that finds keypoints.
    """

    class Options(BaseModel):
        """What a config may say.

        Attributes:
            weights: a card's name, a path or an address: a state dict of the builder's network.
            builder: a function of `torchvision.models.detection`; by default the card's.
            builder_args: keyword arguments for it, such as `box_nms_thresh`; by default the card's.
            classes: names in the order of the labels, without the background; by default the card's, or those of the
                builder's published weights.
            keypoints: names of the network's keypoints in their order; by default those of the builder's published
                weights.
            keep_conf: boxes are kept from here on in the raw detections; `conf` decides about labels.
            max_det: boxes a frame at most; the builder's own limit may be lower.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)

        weights: str
        builder: str | None = None
        builder_args: dict[str, Any] = Field(default_factory=dict)
        classes: tuple[str, ...] | None = None
        keypoints: tuple[str, ...] | None = None
        conf: float = Field(default=0.25, ge=0, le=1)
        keep_conf: float = Field(default=0.05, ge=0, le=1)
        max_det: int = Field(default=300, ge=1)
        device: str = "auto"

    def __init__(self, **options: object) -> None:
        self._options = self.Options.model_validate(options)
        self.conf = self._options.conf
        self.lowest_conf: float = min(self._options.conf, self._options.keep_conf)
        self._device = pick_device(self._options.device)
        weights = resolve_weights(self._options.weights)
        builder = builder_name("detector", self._options.builder, weights.card, self._options.weights, _EXAMPLE)
        categories = _categories(self._options.classes, weights.card, builder)
        self._network = build_network(
            builder,
            num_labels=1 + len(categories),
            builder_args={**(weights.card.builder_args if weights.card else {}), **self._options.builder_args},
            state_dict=read_state_dict(weights.path),
            weights_path=weights.path,
            lowest_conf=self.lowest_conf,
            device=self._device,
        )
        self.class_names: Sequence[str] = tuple(name for name in categories if name != _NO_CLASS)
        self._class_by_label = _class_by_label(categories).to(self._device)
        self.model = ModelRecord(weights.name, weights.sha256, weights.licence)
        self.default_batch_size = 4 if self._device.type == "cpu" else 16
        self.geometry, self._light = without_heads(self._network)
        self.keypoint_names = keypoint_names(self._network, builder, self._options.keypoints)
        self._asked: frozenset[int] = frozenset()

    def with_geometry(self, class_ids: frozenset[int]) -> TorchvisionDetector:
        """Returns a detector of the same network that gives masks or keypoints of these classes as well."""
        asked = copy.copy(self)
        asked._asked = class_ids
        return asked

    def twin(self) -> TorchvisionDetector | None:
        """Returns a detector on the same weights for another thread, on a CPU."""
        if self._device.type != "cpu":
            return None
        twin = copy.copy(self)
        twin._network, twin._light = twin_of(self._network), twin_of(self._light)
        return twin

    @property
    def device(self) -> str:
        """Where the network runs: `cpu`, `cuda:0` and so on."""
        return str(self._device)

    def detect(self, batch: FrameBatch) -> list[Detections]:
        """Returns one `Detections` a frame, highest confidence first, in pixels of the displayed frame."""
        if not len(batch):
            return []
        frames = batch.data.to(self._device, non_blocking=True).permute(0, 3, 1, 2)
        network = self._network if self._asked else self._light
        with torch.inference_mode():
            try:
                outputs = network(list(frames.to(torch.float32).div_(255)))
            except torch.OutOfMemoryError as error:
                raise DeviceMemoryError(f"{len(batch)} frames do not fit on {self._device}") from error
            table = pad_rows([self._rows(output) for output in outputs], self._options.max_det)
            found = boxes_of_table(HostCopy(table).wait())
            if not self._asked:
                return [detections_of_rows(rows) for rows in found]
            is_asked = [np.isin(rows[:, 5].astype(np.int64), list(self._asked)) for rows in found]
            places = [rows[asked, 6].astype(np.int64) for rows, asked in zip(found, is_asked, strict=True)]
            known = (read_masks if self.geometry == "mask" else read_keypoints)(outputs, places)
        return [
            detections_of_rows(rows, _spread(column, asked))
            for rows, column, asked in zip(found, known, is_asked, strict=True)
        ]

    def _rows(self, output: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Returns a row x1, y1, x2, y2, confidence, class id, place in the output for each box that is kept."""
        class_ids = self._class_by_label[output["labels"]]
        keep = (output["scores"] > self.lowest_conf) & (class_ids >= 0)
        places = torch.arange(len(keep), device=keep.device)
        columns = [output["scores"], class_ids.float(), places.float()]
        rows = torch.cat([output["boxes"], torch.stack(columns, dim=1)], dim=1)[keep]
        return rows[rows[:, 4].argsort(descending=True, stable=True)[: self._options.max_det]]


def _spread(known: NDArray[np.object_], is_asked: NDArray[np.bool_]) -> NDArray[np.object_]:
    """Returns a column in which the rows that were asked for have what is known of them."""
    column = np.full(len(is_asked), None, object)
    column[is_asked] = known
    return column


def _categories(asked: Sequence[str] | None, card: ModelCard | None, builder: str) -> list[str]:
    """Returns the names by label, without label 0."""
    names = asked or (card.classes if card else None)
    return list(names) if names else published_categories(builder)


def _class_by_label(categories: Sequence[str]) -> torch.Tensor:
    """Returns int64 (1 + number of categories,): the class id of each label, -1 for the background and for gaps.

    >>> _class_by_label(["person", "N/A", "car"]).tolist()
    [-1, 0, -1, 1]
    """
    class_ids = torch.full((1 + len(categories),), -1)
    named = [label for label, name in enumerate(categories, start=1) if name != _NO_CLASS]
    class_ids[named] = torch.arange(len(named))
    return class_ids
