"""The pixels and weights of OpenCV's bilinear scaling."""

from __future__ import annotations

from functools import lru_cache

import torch

_WEIGHT_ONE = 2048  # OpenCV's INTER_RESIZE_COEF_SCALE: weights are integers in units of 1 / 2048


@lru_cache(maxsize=64)  # without the cache, every batch would copy them to the GPU, and the thread would wait
def bilinear_taps(
    num_in: int, num_out: int, device: torch.device, *, edge_is_one_pixel: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns the indices and int32 weights of the two pixels that each pixel of the result blends."""
    position = ((torch.arange(num_out, dtype=torch.float64) + 0.5) * (num_in / num_out) - 0.5).float()
    first = position.floor()
    fraction = position - first
    if edge_is_one_pixel:
        fraction[(first < 0) | (first >= num_in - 1)] = 0
    indices = [index.long().clamp(0, num_in - 1).to(device) for index in (first, first + 1)]
    weights = [(weight * _WEIGHT_ONE).round().int().to(device) for weight in (1 - fraction, fraction)]
    return indices[0], indices[1], weights[0], weights[1]
