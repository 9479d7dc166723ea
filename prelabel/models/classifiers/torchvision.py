"""Classifiers from torchvision's classification builders, with published weights or your own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from prelabel.errors import ConfigError, WeightsError, did_you_mean
from prelabel.models.classifiers.forward import Preparation, forward
from prelabel.models.devices import pick_device
from prelabel.models.networks import (
    StateDict,
    builder_name,
    differing_names,
    import_torchvision,
    read_state_dict,
    ready_on,
    unknown_builder,
)
from prelabel.models.weights import resolve_weights
from prelabel.plugins.protocols import ModelRecord
from prelabel.plugins.traits import ModelTraits


def find_published(builder: str, name: str | None, file: str) -> Any:
    """Returns an entry of the builder's weights enumeration.

    It is the entry with this name. Without a name, it is the entry with this file, or else the first one.

    Raises:
        ConfigError: there is no such builder, or it has no such weights.
    """
    models = import_torchvision("classifier")
    known = models.list_models(module=models)
    if builder not in known:
        raise unknown_builder("classifier", builder, known)
    entries = list(models.get_model_weights(builder))
    if name is None:
        return next((entry for entry in entries if entry.url.endswith(f"/{file}")), entries[0])
    for entry in entries:
        if entry.name == name:
            return entry
    hint = did_you_mean(name, [entry.name for entry in entries])
    raise ConfigError(f"classifier.published: {builder} has no weights {name!r}; {hint}")


def build_network(
    builder: str, num_classes: int, state_dict: StateDict, weights_path: Path, device: torch.device
) -> torch.nn.Module:
    """Returns the builder's network with these weights, ready on the device.

    Raises:
        ConfigError: the network cannot be built.
        WeightsError: the weights belong to another network, or to another number of classes.
    """
    try:
        network: torch.nn.Module = import_torchvision("classifier").get_model(
            builder, weights=None, num_classes=num_classes
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"classifier.builder: {builder} cannot be built: {error}") from error
    wanted = network.state_dict()
    required = [name for name in wanted if not name.endswith("num_batches_tracked")]
    names = differing_names(required, wanted, state_dict)
    if names:
        raise WeightsError(
            f"{weights_path}: does not fit {builder}: {names}: set builder to the one that it was trained with"
        )
    differing = [name for name in state_dict if state_dict[name].shape != wanted[name].shape]
    if differing:
        described = _describe(differing, wanted, state_dict, num_classes)
        raise WeightsError(f"{weights_path}: does not fit {builder}: {described}")
    network.load_state_dict(state_dict, strict=False)
    return ready_on(_fold_norms(network.eval()) if device.type == "cpu" else network, device)


def _fold_norms(network: torch.nn.Module) -> torch.nn.Module:
    """Returns the network with each batch norm folded into the convolution before it.

    Batch norms take a third of MobileNetV2's time. torchvision's tests (`test_classification_model`) ensure that all
    its classification networks can be traced, which folding needs.
    """
    from torch.fx.experimental.optimization import fuse

    if not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules()):
        return network
    folded: torch.nn.Module = fuse(network)
    return folded


def _describe(differing: list[str], wanted: StateDict, got: StateDict, num_classes: int) -> str:
    name = differing[0]
    shapes = f"{name} is {tuple(got[name].shape)}, expected {tuple(wanted[name].shape)}"
    if len(wanted[name]) == num_classes:
        return f"{shapes}: it has {len(got[name])} classes, {num_classes} are named: name its own in classes: […]"
    return f"{shapes}: set builder to the one that it was trained with"


_EXAMPLE = "torchvision.models.mobilenet_v2"


class TorchvisionClassifier:
    """Runs a torchvision classification network on images prepared as for its published weights.

    Attributes:
        class_names: names by class id.
        traits: the model and the batch size.
    """

    class Options(BaseModel):
        """What a config may say.

        Attributes:
            weights: a card's name, a path or an address: a state dict of the builder's network.
            builder: a function of `torchvision.models`, such as `resnet50`; by default the card's.
            published: published weights of the builder, such as `IMAGENET1K_V1`: images are prepared as for these, and
                class names are theirs; by default those of the same file name, else the builder's first.
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
        # Larger batches are slower on a CPU: the activations between two layers no longer fit into its caches.
        record = ModelRecord(weights.name, weights.sha256, weights.licence)
        self.traits = ModelTraits(model=record, batch_size=16 if self._device.type == "cpu" else 128)

    def classify(self, images: Sequence[torch.Tensor]) -> NDArray[np.float32]:
        """Returns the softmax of the network's outputs, float32 (N, C)."""
        if not images:
            return np.zeros((0, len(self.class_names)), np.float32)
        outputs = forward(self._network, self._preparation, images, self._device)
        probabilities: NDArray[np.float32] = outputs.float().softmax(dim=1).cpu().numpy()
        return probabilities
