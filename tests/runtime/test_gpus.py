"""torch is used only once it is imported completely."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from prelabel.runtime.gpus import imported_torch


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Returns a folder from which torch is imported; the real one is back after the test."""
    monkeypatch.setitem(sys.modules, "torch", sys.modules.get("torch"))  # restores it
    del sys.modules["torch"]
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_torch_that_is_still_being_imported_is_not_used(no_torch: Path) -> None:
    (no_torch / "torch.py").write_text("import prelabel.runtime.gpus\nseen = prelabel.runtime.gpus.imported_torch()\n")
    assert imported_torch() is None
    torch = importlib.import_module("torch")
    assert torch.seen is None
    assert imported_torch() is torch
