"""What the command line sets of its process: threads as a container may use, freed tensors used again."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from prelabel.runtime import process_settings

NUM_PAGES = 20_000
PROGRAM = f"""
import resource, threading
import numpy as np
from prelabel.runtime.process_settings import trim_memory, set_up_process

set_up_process()

def num_faults_of_a_large_array():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.empty({NUM_PAGES} * 4096, np.uint8)[::4096] = 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def work():
    print(num_faults_of_a_large_array(), num_faults_of_a_large_array())
    trim_memory()
    print(num_faults_of_a_large_array())

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""

needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has no such settings")


def faults(**environment: str) -> list[int]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    # Of 4 KiB pages, whatever numpy asks the system for.
    clean["NUMPY_MADVISE_HUGEPAGE"] = "0"
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env={**clean, **environment}, capture_output=True, text=True, check=True, timeout=60)
    return [int(number) for number in done.stdout.split()]


@needs_glibc
def test_freed_memory_is_used_again_until_it_is_given_back() -> None:
    first, again, after = faults()
    assert first > NUM_PAGES / 2
    assert again < NUM_PAGES / 10
    assert after > NUM_PAGES / 2


@needs_glibc
def test_the_users_own_settings_stay() -> None:
    _, again, _ = faults(MALLOC_MMAP_THRESHOLD_="131072")
    assert again > NUM_PAGES / 2


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "20000 100000"}, 1),
        ({"cpu.max": "6400000 100000"}, 8),
        ({"cpu.max": "what?"}, 8),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({}, 8),
    ],
)
def test_a_containers_quota_says_how_many_cores_may_be_used(tmp_path, monkeypatch, files, cores):
    monkeypatch.setattr(process_settings, "machine_cores", lambda: 8)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert process_settings.usable_cores(tmp_path) == cores


@pytest.mark.parametrize(("usable", "given", "expected"), [(2, None, "2"), (2, "5", "5"), (8, None, None)])
def test_openmp_starts_no_more_threads_than_a_container_may_use(monkeypatch, usable, given, expected):
    monkeypatch.setattr(process_settings, "machine_cores", lambda: 8)
    monkeypatch.setattr(process_settings, "usable_cores", lambda: usable)
    monkeypatch.setattr(
        os, "environ", {"MALLOC_ARENA_MAX": "1"} | ({} if given is None else {"OMP_NUM_THREADS": given})
    )
    process_settings.set_up_process()
    assert os.environ.get("OMP_NUM_THREADS") == expected
