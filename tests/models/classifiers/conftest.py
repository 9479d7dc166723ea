from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def engines_home(tmp_path_factory):
    """Where exports are kept, so that each is made once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def cache_home(engines_home, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(engines_home))
