"""torchvision's classification networks: built, and filled with weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from prelabel.errors import ConfigError, WeightsError, did_you_mean
from prelabel.networks.state_dict import StateDict, describe_names
from prelabel.networks.torchvision_models import import_models, no_builder, ready_on


def find_published(builder: str, name: str | None, file: str) -> Any:
    """Returns an entry of the builder's weights enumeration: by name, by its file, else the first.

    Raises:
        ConfigError: there is no such builder, or it has no such weights.
    """
    models = import_models("classifier")
    known = models.list_models(module=models)
    if builder not in known:
        raise no_builder("classifier", builder, known)
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
        WeightsError: the weights are those of another network, or of another number of classes.
    """
    try:
        network: torch.nn.Module = import_models("classifier").get_model(builder, weights=None, num_classes=num_classes)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"classifier.builder: {builder} cannot be built: {error}") from error
    wanted = network.state_dict()
    required = [name for name in wanted if not name.endswith("num_batches_tracked")]
    names = describe_names(required, wanted, state_dict)
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
    """Returns the network with each batch norm within the convolution before it: a third of MobileNetV2's time.

    torchvision keeps all its classification networks fit for tracing (its tests, `test_classification_model`).
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
