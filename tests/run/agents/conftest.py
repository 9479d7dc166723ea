from __future__ import annotations

from pathlib import Path

import pytest

from prelabel.testing.encord_server import EncordServer
from tests.encord_fixtures import Platform
from tests.run.agents.platforms import populate


@pytest.fixture
def site(encord_server: EncordServer, encord_client, encord_clip: Path, encord_environment: None) -> Platform:
    """A project that has what the example functions need, reached as a user's environment says."""
    return populate(encord_server, encord_client, encord_clip)
