"""State dicts and replicas of torch networks, and shared code for torchvision's builders."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal, TypeAlias

from prelabel.errors import ConfigError, MachineError, WeightsError, did_you_mean
from prelabel.models.weights import ModelCard, card_names, find_card
from prelabel.runtime.redact import redact

if TYPE_CHECKING:
    import torch

StateDict: TypeAlias = "dict[str, torch.Tensor]"
Section = Literal["detector", "classifier"]


def ready_on(network: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """Returns the network on the device, in evaluation mode and in the memory format that is fastest there."""
    import torch

    memory_format = torch.channels_last if device.type == "cpu" else torch.contiguous_format
    ready: torch.nn.Module = network.eval().to(device, memory_format=memory_format)
    return ready


def replica_of(network: torch.nn.Module) -> torch.nn.Module:
    """Returns a copy of a network that shares its tensors, for use on another thread.

    All other attributes are copied. Some detection heads store the last input size and its anchors as attributes, so
    two threads cannot call one network.
    """
    import torch

    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    with torch.inference_mode():
        replica: torch.nn.Module = copy.deepcopy(network, shared)
    return replica


def read_state_dict(path: Path) -> StateDict:
    """Returns the tensors of a checkpoint, with floats as float32.

    The file may be a state dict, or hold one under `model` or `state_dict`.

    Raises:
        WeightsError: the file holds anything else.
    """
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        raise WeightsError(
            f"{path}: holds no state dict that loads without running code from the file: save one with "
            "torch.save(model.state_dict(), path); for an Ultralytics checkpoint set use: ultralytics"
        ) from error
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise WeightsError(f"{path}: got {type(content).__name__}, expected a state dict: tensors by name")
    return {name: value.float() if value.is_floating_point() else value for name, value in content.items()}


def differing_names(required: Iterable[str], known: Iterable[str], got: Collection[str]) -> str:
    """Describes which tensors are missing or unknown; returns an empty text if none are.

    Args:
        required: names that the network needs.
        known: all names in the network.
        got: names in the weights.

    >>> differing_names(["a", "b"], ["a", "b", "c"], ["a", "d"])
    'b is missing (1 tensors missing, 1 too many)'
    """
    got_names, known_names = set(got), set(known)
    missing = [name for name in required if name not in got_names]
    unknown = [name for name in got if name not in known_names]
    if not missing and not unknown:
        return ""
    first = f"{missing[0]} is missing" if missing else f"{unknown[0]} is too many"
    return f"{first} ({len(missing)} tensors missing, {len(unknown)} too many)"


def import_torchvision(section: Section) -> ModuleType:
    """Returns `torchvision.models`.

    Raises:
        MachineError: torchvision does not fit the installed torch.
    """
    import torch

    try:
        from torchvision import models
    except (ImportError, RuntimeError) as error:
        raise MachineError(
            f"{section} 'torchvision': cannot be imported with torch {torch.__version__}: {error}. "
            "Install torchvision of the same release and the same build (CUDA or CPU) as torch"
        ) from error
    module: ModuleType = models
    return module


def builder_name(section: Section, asked: str | None, card: ModelCard | None, weights: str, example: str) -> str:
    """Returns the name of the torchvision builder, from the config or else from the card.

    Args:
        section: section of the config.
        asked: the config's `builder`.
        card: card of the weights.
        weights: the config's `weights`.
        example: a builder with its module, for the error message.

    Raises:
        ConfigError: neither names a builder, or the card is for another plug-in.
    """
    builder = asked or (card.builder if card else None)
    if builder is None and card is not None:
        cards = (find_card(name) for name in card_names())
        others = ", ".join(each.name for each in cards if each is not None and each.builder is not None)
        raise ConfigError(
            f"{section}.use: {weights!r} is a card for use: {card.use}: leave use out, or name weights of torchvision, "
            f"such as {others}"
        )
    if builder is None:
        module, _, name = example.rpartition(".")
        raise ConfigError(
            f"{section}.builder: needed for weights '{redact(weights)}', which have no card that names one: a "
            f"function of {module}, such as builder: {name}"
        )
    return builder


def unknown_builder(section: Section, builder: str, known: list[str]) -> ConfigError:
    """Returns the error for a builder that torchvision does not have."""
    return ConfigError(f"{section}.builder: torchvision has no {builder!r}; {did_you_mean(builder, known)}")
