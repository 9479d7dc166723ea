"""How this process uses processor and memory while a network computes: set once, before torch is loaded."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

# glibc's malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_AT_MOST = 2**31 - 1


def set_up_process() -> None:
    """Suits OpenMP and the C library to inference on a CPU; leaves what the user's environment sets as it is.

    OpenMP's threads spin while they wait, on the core that the decoder needs. glibc gives the tensors of each layer
    back to the system, which clears them anew for the next: here it keeps them, in one place for all threads.
    `give_memory_back` returns them.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded
    if any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return
    with suppress(AttributeError, OSError):  # another C library has no such call
        for option, value in ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, _AT_MOST), (_TRIM_THRESHOLD, _AT_MOST)):
            ctypes.CDLL(None).mallopt(option, value)


def give_memory_back() -> None:
    """Returns freed memory to the system: glibc keeps blocks of frames' size, and labels are made beside them."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
