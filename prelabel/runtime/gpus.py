"""Says whether this machine can have a GPU, without torch, whose import takes longer than labelling a short video."""

from __future__ import annotations

import ctypes
import functools


@functools.cache
def has_driver() -> bool:
    """Returns whether NVIDIA's driver can be loaded. Without it, torch sees no GPU either."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True
