"""Which device a model runs on."""

from __future__ import annotations

import torch

from prelabel.errors import ConfigError, MachineError


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
