"""Fixtures: a running server, a key it knows, and the real SDK's client connected to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from .server import EncordServer

if TYPE_CHECKING:
    from encord import EncordUserClient


def connect(server: EncordServer, private_key: str) -> EncordUserClient:
    """The unmodified SDK's client, at this server."""
    from encord import EncordUserClient

    return EncordUserClient.create_with_ssh_private_key(private_key, domain=server.url)


@pytest.fixture
def encord_server() -> Iterator[EncordServer]:
    """An empty world behind a running server; a bug of the server itself fails the test."""
    with EncordServer() as server:
        yield server
    assert not server.errors, "\n".join(server.errors)


@pytest.fixture
def encord_key(encord_server: EncordServer) -> str:
    """The private key text of agent@example.com."""
    return encord_server.add_user("agent@example.com")


@pytest.fixture
def encord_client(encord_server: EncordServer, encord_key: str) -> EncordUserClient:
    return connect(encord_server, encord_key)


@pytest.fixture
def encord_environment(encord_server: EncordServer, encord_key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment a user sets: `ENCORD_SSH_KEY` and `ENCORD_DOMAIN`, and no key file that would go before it."""
    monkeypatch.delenv("ENCORD_SSH_KEY_FILE", raising=False)
    monkeypatch.setenv("ENCORD_SSH_KEY", encord_key)
    monkeypatch.setenv("ENCORD_DOMAIN", encord_server.url)


ConnectAs = Callable[[str], "EncordUserClient"]


@pytest.fixture
def encord_client_as(encord_server: EncordServer) -> ConnectAs:
    """Connects further users, by e-mail: `encord_client_as("anna@example.com")`."""
    return lambda email: connect(encord_server, encord_server.add_user(email))
