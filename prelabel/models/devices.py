"""Devices by name. torch is imported only if it is needed to know a device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator

from prelabel.errors import ConfigError, MachineError
from prelabel.runtime.gpus import has_driver

if TYPE_CHECKING:
    import torch


def read_device(value: object) -> object:
    """Returns `cuda:N` for a number N, which is how Ultralytics names a GPU; other values unchanged.

    >>> read_device(0), read_device("1"), read_device("cpu")
    ('cuda:0', 'cuda:1', 'cpu')
    """
    is_number = type(value) is int or (isinstance(value, str) and value.isdecimal())
    return f"cuda:{value}" if is_number else value


DeviceName = Annotated[str, BeforeValidator(read_device, json_schema_input_type=str | int)]
"""Type of the option `device`: auto, cpu, cuda, cuda:N, N or mps."""


def name_device(device: str) -> str:
    """Returns `cpu`, `cuda:N` or `mps`: the device that the option `device` means on this machine.

    Raises:
        ConfigError: the name is none of these.
        MachineError: this machine, or this build of torch, has no such device.
    """
    return "cpu" if device == "cpu" or (device == "auto" and not has_driver()) else str(pick_device(device))


def pick_device(device: str) -> torch.device:
    """Returns the device that the option `device` means on this machine. `auto` is a CUDA device or the CPU.

    Raises:
        ConfigError: there is no device of this name.
        MachineError: this machine, or this build of torch, has no such device.
    """
    import torch

    if device == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        picked = torch.device(device)
    except RuntimeError as error:
        raise _no_such_device(device) from error
    if picked.type == "cpu":
        return picked
    if picked.type == "mps":
        if not torch.backends.mps.is_available():
            raise MachineError(
                f"device: got 'mps', the GPU of a Mac with Apple silicon, but torch {torch.__version__} sees none: "
                "set device: cpu, or auto"
            )
        return torch.device("mps")
    if picked.type != "cuda":
        raise _no_such_device(device)
    if not torch.cuda.is_available():
        why = "torch is built without CUDA" if torch.version.cuda is None else "torch sees no GPU"
        raise MachineError(f"device: got '{picked}', but {why} ({torch.__version__}): set device: cpu, or auto")
    num = torch.cuda.device_count()
    if (picked.index or 0) >= num:
        raise MachineError(f"device: got '{picked}', this machine has {num}: cuda:0 to cuda:{num - 1}")
    return torch.device("cuda", picked.index or 0)


def _no_such_device(device: str) -> ConfigError:
    return ConfigError(f"device: got {device!r}, expected auto, cpu, cuda, cuda:N or mps, one device per run")
