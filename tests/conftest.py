"""What every test may ask for."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is.
settings.register_profile("patient", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

pytest_plugins = ["tests.bucket_server", "tests.encord_fixtures"]


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of real weights, clips and ground truth; skips where there is none."""
    folder = os.environ.get("PRELABEL_TEST_DATA")
    if not folder:
        pytest.skip("PRELABEL_TEST_DATA is not set: real weights and clips are not at hand")
    return Path(folder)


@pytest.fixture
def real_weights(test_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of the weights in `test_data`, in which model cards find theirs: nothing is fetched."""
    folder = test_data / "weights"
    monkeypatch.setenv("PRELABEL_MODELS", str(folder))
    return folder


def pytest_sessionstart() -> None:
    """Lets programs that tests start be interrupted: a shell's `&` has them ignore it, and children inherit that."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Keeps all modules and tests out of garbage collection, which would walk through them again and again."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # else libraries complain about what they find alive at the end


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("needs_test_data") and not os.environ.get("PRELABEL_TEST_DATA"):
        pytest.skip("PRELABEL_TEST_DATA is not set: real weights and clips are not at hand")
    if item.get_closest_marker("needs_cuda") and not _has_cuda():
        if os.environ.get("FAIL_WITHOUT_CUDA") == "1":
            pytest.fail("no CUDA device, and FAIL_WITHOUT_CUDA=1")
        pytest.skip("no CUDA device")


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()
