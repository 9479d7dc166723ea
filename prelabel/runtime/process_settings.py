"""How this process uses processor and memory while a network computes: set once, before torch is loaded."""

from __future__ import annotations

import ctypes
import math
import os
from contextlib import suppress
from pathlib import Path

# glibc's malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_AT_MOST = 2**31 - 1


CGROUPS = Path("/sys/fs/cgroup")
"""Where Linux tells what a container may use: https://docs.kernel.org/admin-guide/cgroup-v2.html."""


def machine_cores() -> int:
    """Returns the cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_cores(cgroups: Path = CGROUPS) -> int:
    """Returns the cores whose time this process may use: a container's quota may be less than it sees of cores.

    More threads than that are all stopped for what is left of each period, in the midst of a layer or of a frame.
    """
    quota = _quota(cgroups)
    return machine_cores() if quota is None else max(1, min(machine_cores(), math.ceil(quota)))


def _quota(cgroups: Path) -> float | None:
    """Returns a container's quota in cores, by either version of control groups; None where there is none."""
    with suppress(OSError, ValueError):
        quota, period = (cgroups / "cpu.max").read_text(encoding="ascii").split()
        return None if quota == "max" else int(quota) / int(period)
    with suppress(OSError, ValueError):
        cpu = cgroups / "cpu"
        micros = int((cpu / "cpu.cfs_quota_us").read_text(encoding="ascii"))
        return micros / int((cpu / "cpu.cfs_period_us").read_text(encoding="ascii")) if micros > 0 else None
    return None


def set_up_process() -> None:
    """Suits OpenMP and the C library to inference on a CPU; leaves what the user's environment sets as it is.

    OpenMP starts a thread for each core, also where a container may use the time of a few. Its threads spin while they
    wait, on the core that the decoder needs. glibc gives the tensors of each layer back to the system, which clears
    them anew for the next: here it keeps them, in one place for all threads. `give_memory_back` returns them.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded
    if usable_cores() < machine_cores():
        os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))
    if any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return
    with suppress(AttributeError, OSError):  # another C library has no such call
        for option, value in ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, _AT_MOST), (_TRIM_THRESHOLD, _AT_MOST)):
            ctypes.CDLL(None).mallopt(option, value)


def give_memory_back() -> None:
    """Returns freed memory to the system: glibc keeps blocks of frames' size, and labels are made beside them."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
