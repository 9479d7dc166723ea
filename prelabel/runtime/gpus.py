"""What is known of GPUs without importing torch, whose import takes longer than labelling a short video."""

from __future__ import annotations

import ctypes
import functools
import sys
from typing import Any


@functools.cache
def has_driver() -> bool:
    """Returns whether NVIDIA's driver can be loaded. Without it, torch sees no GPU either."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def imported_torch() -> Any:
    """Returns the module torch if it is imported; None also while another thread is still importing it."""
    torch = sys.modules.get("torch")
    spec = getattr(torch, "__spec__", None)
    return None if getattr(spec, "_initializing", False) else torch
