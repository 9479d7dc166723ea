"""Weights as tensors by name, read without running code from the file."""

from __future__ import annotations

import pickle
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import torch

from prelabel.errors import WeightsError

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
