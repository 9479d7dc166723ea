"""What torchvision's detection and classification networks have in common: found, named, put on a device."""

from __future__ import annotations

from types import ModuleType
from typing import Literal

import torch

from prelabel.cards import ModelCard
from prelabel.errors import ConfigError, MachineError, did_you_mean
from prelabel.redact import redact

Section = Literal["detector", "classifier"]


def import_models(section: Section) -> ModuleType:
    """Returns `torchvision.models`.

    Raises:
        MachineError: torchvision does not go with the torch that is installed.
    """
    try:
        from torchvision import models
    except (ImportError, RuntimeError) as error:
        raise MachineError(
            f"{section} 'torchvision': cannot be imported beside torch {torch.__version__}: {error}. "
            "Install torchvision of the same release and the same build (CUDA or CPU) as torch"
        ) from error
    module: ModuleType = models
    return module


def builder_name(section: Section, asked: str | None, card: ModelCard | None, weights: str, example: str) -> str:
    """Returns the builder that is asked for, else the card's.

    Args:
        section: of the config.
        asked: its `builder`.
        card: of the weights.
        weights: as the config has them.
        example: a builder, with its module's name before it.

    Raises:
        ConfigError: neither names one.
    """
    builder = asked or (card.builder if card else None)
    if builder is None:
        module, _, name = example.rpartition(".")
        raise ConfigError(
            f"{section}.builder: needed for weights '{redact(weights)}', which have no card that names one: a "
            f"function of {module}, such as builder: {name}"
        )
    return builder


def no_builder(section: Section, builder: str, known: list[str]) -> ConfigError:
    """Returns the error of a builder that is not among the known ones."""
    return ConfigError(f"{section}.builder: torchvision has no {builder!r}; {did_you_mean(builder, known)}")


def ready_on(network: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """Returns the network on the device, for inference, in the memory format that is quick there."""
    memory_format = torch.channels_last if device.type == "cpu" else torch.contiguous_format
    ready: torch.nn.Module = network.eval().to(device, memory_format=memory_format)
    return ready
