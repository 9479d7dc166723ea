"""Settings of this process: OpenMP threads, memory of the C library, garbage collection."""

from __future__ import annotations

import ctypes
import gc
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Numbers of the options of mallopt, from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_MAX_INT = 2**31 - 1

CGROUPS = Path("/sys/fs/cgroup")
"""Limits of a container on Linux: https://docs.kernel.org/admin-guide/cgroup-v2.html."""


def machine_cores() -> int:
    """Returns the number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_cores(cgroups: Path = CGROUPS) -> int:
    """Returns the number of cores that this process may use, within a container's quota.

    A container often sees all cores of the machine but may use the time of a few. If it runs more threads, the kernel
    stops all of them for the rest of each period.
    """
    quota = _quota(cgroups)
    return machine_cores() if quota is None else max(1, min(machine_cores(), math.ceil(quota)))


def _quota(cgroups: Path) -> float | None:
    """Returns a container's quota in cores, from cgroups version 2 or 1; None without a quota."""
    with suppress(OSError, ValueError):
        quota, period = (cgroups / "cpu.max").read_text(encoding="ascii").split()
        return None if quota == "max" else int(quota) / int(period)
    with suppress(OSError, ValueError):
        cpu = cgroups / "cpu"
        micros = int((cpu / "cpu.cfs_quota_us").read_text(encoding="ascii"))
        return micros / int((cpu / "cpu.cfs_period_us").read_text(encoding="ascii")) if micros > 0 else None
    return None


def set_up_process() -> None:
    """Configures OpenMP and the C library for inference on a CPU; call it before torch is imported.

    Settings in the user's environment take precedence.
    """
    # OpenMP reads both when torch is imported. By default its threads spin while they wait, on cores that the decoder
    # needs, and there is one for each core of the machine, even if a container may use the time of a few.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if usable_cores() < machine_cores():
        os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))
    if any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return
    # By default glibc returns the tensors of each layer to the system, which clears the pages before it hands them out
    # for the next layer. Here glibc keeps them, in one arena for all threads; `trim_memory` returns them.
    with suppress(AttributeError, OSError):  # only glibc has mallopt
        for option, value in ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, _MAX_INT), (_TRIM_THRESHOLD, _MAX_INT)):
            ctypes.CDLL(None).mallopt(option, value)


def trim_memory() -> None:
    """Makes glibc return freed memory, such as that of frames, to the system."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def paused_garbage_collection() -> Iterator[None]:
    """Pauses Python's cycle collector in all threads, for code that makes millions of objects without cycles.

    While such objects are made, the collector runs again and again and visits all existing objects. For 100,000 object
    instances this took half of the time. Reference counting still works.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        # These calls move all objects to the oldest generation. Otherwise the next collection would visit each new one.
        gc.freeze()
        gc.unfreeze()
        if was_enabled:
            gc.enable()
