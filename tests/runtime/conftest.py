"""What tests of servers ask for."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest


@pytest.fixture
def port() -> Iterator[int]:
    """A port for the test's own server. It stays bound, so the system gives it to nobody else meanwhile."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a server that sets it too may listen there
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]
