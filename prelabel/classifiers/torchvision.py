"""Classifiers that torchvision builds: any of its classification builders, with published weights or your own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from prelabel.classifiers.forward import forward
from prelabel.classifiers.preparation import Preparation
from prelabel.classifiers.torchvision_loading import build_network, find_published
from prelabel.networks.device import pick_device
from prelabel.networks.state_dict import read_state_dict
from prelabel.networks.torchvision_models import builder_name
from prelabel.protocols import ModelRecord
from prelabel.weights import resolve_weights

_EXAMPLE = "torchvision.models.mobilenet_v2"


class TorchvisionClassifier:
    """Runs a torchvision classification network on pictures prepared as its published weights were trained.

    Attributes:
        class_names: names by class id.
        model: which weights these are.
        default_batch_size: pictures a batch when nobody asks for another number.
    """

    class Options(BaseModel):
        """What a config may say.

        Attributes:
            weights: a card's name, a path or an address: a state dict of the builder's network.
            builder: a function of `torchvision.models`, such as `resnet50`; by default the card's.
            published: published weights of the builder, such as `IMAGENET1K_V1`, whose preparation of pictures and
                class names hold; by default those whose file this is, else the builder's first.
            classes: names in the order of the network's outputs; by default the card's, or the published ones.
            imgsz: side in pixels of the square that the network sees; by default as published.
            device: auto, cpu, cuda or cuda:N.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)

        weights: str
        builder: str | None = None
        published: str | None = None
        classes: tuple[str, ...] | None = None
        imgsz: int | None = Field(default=None, ge=32)
        device: str = "auto"

    def __init__(self, **options: object) -> None:
        asked = self.Options.model_validate(options)
        self._device = pick_device(asked.device)
        weights = resolve_weights(asked.weights)
        builder = builder_name("classifier", asked.builder, weights.card, asked.weights, _EXAMPLE)
        published = find_published(builder, asked.published, weights.card.file if weights.card else weights.path.name)
        classes = asked.classes or (weights.card.classes if weights.card else None)
        self.class_names: Sequence[str] = tuple(classes or published.meta["categories"])
        self._preparation = Preparation.of_preset(published, asked.imgsz)
        self._network = build_network(
            builder, len(self.class_names), read_state_dict(weights.path), weights.path, self._device
        )
        self.model = ModelRecord(weights.name, weights.sha256, weights.licence)
        # Larger ones are slower on a CPU: what is between two layers does not stay in its caches.
        self.default_batch_size = 16 if self._device.type == "cpu" else 128

    def classify(self, images: Sequence[torch.Tensor]) -> NDArray[np.float32]:
        """Returns the softmax of the network's outputs, float32 (N, C)."""
        if not images:
            return np.zeros((0, len(self.class_names)), np.float32)
        outputs = forward(self._network, self._preparation, images, self._device)
        probabilities: NDArray[np.float32] = outputs.float().softmax(dim=1).cpu().numpy()
        return probabilities
