"""How many frames a batch should have: as many as make a frame cheaper, and as fit."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from prelabel.errors import DeviceMemoryError
from prelabel.frames import FrameBatch

SMALLEST, LARGEST = 8, 32
LEAST_GAIN = 1.05
"""A batch twice as large must be quicker, a frame, by this much; larger ones only hold frames back."""
_REPEATS = 3


def fit_batch_size(seconds_of: Callable[[int], float], smallest: int = SMALLEST, largest: int = LARGEST) -> int:
    """Returns the batch size, doubling it for as long as that pays.

    Args:
        seconds_of: how long a batch of so many frames takes.
        smallest: to begin with.
        largest: to end with.

    >>> fit_batch_size(lambda size: 1 + size / 16)  # a start-up of as much as 16 frames
    32
    >>> fit_batch_size(lambda size: float(size))
    8
    """
    best, best_rate, size = smallest, 0.0, smallest
    while size <= largest:
        try:
            rate = size / seconds_of(size)
        except DeviceMemoryError:
            return best
        if rate < LEAST_GAIN * best_rate:
            return best
        best, best_rate = size, rate
        size *= 2
    return best


def time_batch(
    start: Callable[[FrameBatch], Callable[[], object]], height: int, width: int, device: torch.device, num_frames: int
) -> float:
    """Returns how many seconds a batch of blank frames takes on a device, one begun while the last is awaited."""
    data = torch.zeros((num_frames, height, width, 3), dtype=torch.uint8, device=device)
    numbers = np.arange(num_frames)
    batch = FrameBatch(data, numbers, numbers / 25.0)
    start(batch)()  # kernels are chosen and memory is taken on the first
    began = time.perf_counter()
    awaited = start(batch)
    for _ in range(_REPEATS - 1):
        begun = start(batch)
        awaited()
        awaited = begun
    awaited()
    return (time.perf_counter() - began) / _REPEATS
