"""What the command line sets of its process: freed tensors are used again, not fetched from the system anew."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

NUM_PAGES = 20_000
PROGRAM = f"""
import resource, threading
import numpy as np
from prelabel.process_settings import give_memory_back, set_up_process

set_up_process()

def num_faults_of_a_large_array():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.empty({NUM_PAGES} * 4096, np.uint8)[::4096] = 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def work():
    print(num_faults_of_a_large_array(), num_faults_of_a_large_array())
    give_memory_back()
    print(num_faults_of_a_large_array())

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has no such settings")


def faults(**environment: str) -> list[int]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    # Of 4 KiB pages, whatever numpy asks the system for.
    clean["NUMPY_MADVISE_HUGEPAGE"] = "0"
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env={**clean, **environment}, capture_output=True, text=True, check=True, timeout=60)
    return [int(number) for number in done.stdout.split()]


def test_freed_memory_is_used_again_until_it_is_given_back() -> None:
    first, again, after = faults()
    assert first > NUM_PAGES / 2
    assert again < NUM_PAGES / 10
    assert after > NUM_PAGES / 2


def test_the_users_own_settings_stay() -> None:
    _, again, _ = faults(MALLOC_MMAP_THRESHOLD_="131072")
    assert again > NUM_PAGES / 2
