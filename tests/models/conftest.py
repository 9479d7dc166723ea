"""Checkpoints that several files of tests read."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.models.detectors.checkpoints import make_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes the Ultralytics checkpoint of an architecture, once a session."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return cache(lambda architecture: make_checkpoint(architecture, folder))
