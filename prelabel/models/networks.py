"""A network that stands several times on the same weights, so that several threads can use it at once."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Literal

import torch

from prelabel.errors import ConfigError, MachineError, WeightsError, did_you_mean
from prelabel.models.cards import ModelCard
from prelabel.runtime.redact import redact


def pick_device(device: str) -> torch.device:
    """Returns the device that `auto`, `cpu`, `cuda` or `cuda:N` means on this machine.

    Raises:
        ConfigError: if the name is none of these.
        MachineError: if this machine, or this build of torch, has no such device.
    """
    if device == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        picked = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device: got {device!r}, expected auto, cpu, cuda or cuda:N") from error
    if picked.type == "cuda":
        _require_cuda(picked)
        return torch.device("cuda", picked.index or 0)
    if picked.type != "cpu":
        raise ConfigError(f"device: got {device!r}, expected auto, cpu, cuda or cuda:N")
    return picked


def _require_cuda(device: torch.device) -> None:
    if not torch.cuda.is_available():
        why = "torch is built without CUDA" if torch.version.cuda is None else "torch sees no GPU"
        raise MachineError(f"device: got '{device}', but {why} ({torch.__version__}): set device: cpu, or auto")
    num = torch.cuda.device_count()
    if (device.index or 0) >= num:
        raise MachineError(f"device: got '{device}', this machine has {num}: cuda:0 to cuda:{num - 1}")


StateDict = dict[str, torch.Tensor]


def read_state_dict(path: Path) -> StateDict:
    """Returns the tensors of a checkpoint, floats as float32; takes a plain state dict or one under `model`.

    Raises:
        WeightsError: if the file holds anything else.
    """
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


def describe_names(required: Iterable[str], known: Iterable[str], got: Collection[str]) -> str:
    """Returns which tensors a network lacks or does not know, in words; empty where there are none.

    Args:
        required: names that the network cannot do without.
        known: all that it has.
        got: of the weights.

    >>> describe_names(["a", "b"], ["a", "b", "c"], ["a", "d"])
    'b is missing (1 tensors missing, 1 too many)'
    """
    there, taken = set(got), set(known)
    missing = [name for name in required if name not in there]
    unknown = [name for name in got if name not in taken]
    if not missing and not unknown:
        return ""
    first = f"{missing[0]} is missing" if missing else f"{unknown[0]} is too many"
    return f"{first} ({len(missing)} tensors missing, {len(unknown)} too many)"


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


def replica_of(network: torch.nn.Module) -> torch.nn.Module:
    """Returns a network with the same tensors, and all else its own: some heads note the size they saw last."""
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    with torch.inference_mode():
        replica: torch.nn.Module = copy.deepcopy(network, shared)
    return replica
