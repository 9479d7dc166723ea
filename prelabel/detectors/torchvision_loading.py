"""Builds torchvision's detection networks and loads state dicts into them, without running code from a file."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from prelabel.errors import ConfigError, WeightsError, did_you_mean
from prelabel.networks.state_dict import StateDict, describe_names
from prelabel.networks.torchvision_models import import_models, no_builder, ready_on

# Parts of a network whose first dimension grows with the number of labels.
_CLASS_LAYERS = ("cls_score", "cls_logits", "classification_head.module_list")
# They would fetch weights that the file is about to replace.
_FETCHING_ARGS = ("weights", "weights_backbone", "num_classes")

_BACKBONE_ARGS = ("width_mult",)  # of MobileNetV3, handed on without being named


def build_network(
    builder: str,
    *,
    num_labels: int,
    builder_args: Mapping[str, Any],
    state_dict: StateDict,
    weights_path: Path,
    lowest_conf: float,
    device: torch.device,
) -> torch.nn.Module:
    """Returns the builder's network with these weights, ready on the device.

    Args:
        builder: name of a function of `torchvision.models.detection`.
        num_labels: with the background.
        builder_args: further keyword arguments for it.
        state_dict: the network's weights.
        weights_path: where they come from, for messages.
        lowest_conf: boxes below it need not come out.
        device: where it runs.

    Raises:
        ConfigError: if there is no such builder, or it does not take the arguments.
        WeightsError: if the weights are those of another network.
    """
    models = import_models("detector")
    known = models.list_models(module=models.detection)
    if builder not in known:
        raise no_builder("detector", builder, known)
    for name in _FETCHING_ARGS:
        if name in builder_args:
            raise ConfigError(f"detector.builder_args.{name}: is set by the weights and classes: leave it out")
    try:
        network = models.get_model(builder, weights=None, weights_backbone=None, num_classes=num_labels, **builder_args)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"detector.builder_args: {builder} does not take them: {error}") from error
    _check_arguments(builder_args, [models.get_model_builder(builder), type(network).__init__])
    _check_match(network.state_dict(), state_dict, num_labels, f"{weights_path}: does not fit {builder}")
    network.load_state_dict(state_dict)
    _lower_threshold(network, lowest_conf)
    return ready_on(network, device)


def published_categories(builder: str) -> list[str]:
    """Returns the class names of a builder's published weights, by label and without label 0; gaps are named N/A.

    Raises:
        ConfigError: if there are none.
    """
    models = import_models("detector")
    try:
        weights = models.get_model_weights(builder)
    except ValueError as error:
        known = models.list_models(module=models.detection)
        raise no_builder("detector", builder, known) from error
    categories: list[str] = next(iter(weights)).meta["categories"]
    return categories[1:]


def _check_arguments(builder_args: Mapping[str, Any], takers: Sequence[Callable[..., Any]]) -> None:
    """Names an argument that nobody takes: builders and networks swallow it as one of their **kwargs."""
    known = {*_BACKBONE_ARGS, *(name for taker in takers for name in inspect.signature(taker).parameters)}
    for name in builder_args:
        if name not in known:
            raise ConfigError(f"detector.builder_args.{name}: is no argument of it: {did_you_mean(name, known)}")


def _lower_threshold(network: torch.nn.Module, lowest_conf: float) -> None:
    """Sets the score below which the network drops boxes; builders' own lie between 0.001 and 0.2."""
    holder = getattr(network, "roi_heads", network)
    if hasattr(holder, "score_thresh"):
        holder.score_thresh = lowest_conf


def _check_match(wanted: StateDict, got: StateDict, num_labels: int, where: str) -> None:
    names = describe_names(wanted, wanted, got)
    if names:
        raise WeightsError(
            f"{where}: {names}: these are another network's weights: set builder and builder_args to those that it was "
            "trained with"
        )
    differing = [name for name in wanted if wanted[name].shape != got[name].shape]
    if differing:
        raise WeightsError(f"{where}: {_describe(differing, wanted, got, num_labels)}")


def _describe(differing: list[str], wanted: StateDict, got: StateDict, num_labels: int) -> str:
    class_layers = [name for name in differing if any(layer in name for layer in _CLASS_LAYERS)]
    name = class_layers[0] if class_layers else differing[0]
    shapes = f"{name} is {tuple(got[name].shape)}, expected {tuple(wanted[name].shape)}"
    found = len(got[name]) * num_labels / len(wanted[name])
    if class_layers and found.is_integer() and not any(name.startswith("backbone.") for name in differing):
        return (
            f"{shapes}: it has {int(found) - 1} classes, {num_labels - 1} are named: name its classes in classes: […]"
        )
    return f"{shapes}: set builder and builder_args to those that it was trained with"
