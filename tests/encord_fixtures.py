"""Fixtures: a running test server, a key that it knows, and the real SDK's client connected to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from prelabel.testing.encord_server import EncordServer, connect
from prelabel.testing.encord_server.populated import Platform
from tests.make_media import Recipe, write_clip

if TYPE_CHECKING:
    from encord import EncordUserClient

NUM_FRAMES = 12


@pytest.fixture
def encord_server() -> Iterator[EncordServer]:
    """A running server without projects. A request that it cannot read fails the test."""
    with EncordServer() as server:
        yield server
    assert not server.errors, "\n".join(server.errors)


@pytest.fixture
def encord_key(encord_server: EncordServer) -> str:
    """The private key of agent@example.com, as text."""
    return encord_server.add_user("agent@example.com")


@pytest.fixture
def encord_client(encord_server: EncordServer, encord_key: str) -> EncordUserClient:
    return connect(encord_server, encord_key)


@pytest.fixture
def encord_environment(encord_server: EncordServer, encord_key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets `ENCORD_SSH_KEY` and `ENCORD_DOMAIN` as a user does."""
    monkeypatch.delenv("ENCORD_SSH_KEY_FILE", raising=False)
    monkeypatch.setenv("ENCORD_SSH_KEY", encord_key)
    monkeypatch.setenv("ENCORD_DOMAIN", encord_server.url)


@pytest.fixture(scope="session")
def encord_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of `NUM_FRAMES` frames."""
    return write_clip(tmp_path_factory.mktemp("encord") / "clip.mp4", Recipe(num_frames=NUM_FRAMES)).path


@pytest.fixture
def platform(encord_server: EncordServer, encord_client: EncordUserClient, encord_clip: Path) -> Platform:
    """A project with one video at the agent stage."""
    return Platform.populate(encord_server, encord_client, encord_clip)


ConnectAs = Callable[[str], "EncordUserClient"]


@pytest.fixture
def encord_client_as(encord_server: EncordServer) -> ConnectAs:
    """Connects further users, by e-mail: `encord_client_as("anna@example.com")`."""
    return lambda email: connect(encord_server, encord_server.add_user(email))
