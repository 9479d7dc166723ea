"""A service of which a tenth of all answers is trouble: nothing is lost, nothing doubled, no task failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from prelabel.testing.encord_server import EncordServer
from tests.killing import Scene

pytestmark = [pytest.mark.slow]


def test_trouble_on_a_tenth_of_all_answers_changes_nothing(encord_server: EncordServer, tmp_path: Path) -> None:
    scene = Scene(encord_server, tmp_path, num_tasks=10)
    scene.misbehave(rate=0.1, seed=3)
    process = scene.start(scene.config())
    process.join()
    assert process.exitcode == 0
    num_troubled = sum(call.status is None or call.status >= 400 for call in encord_server.calls)
    assert num_troubled > 0  # besides those that were late, cut or no JSON
    scene.check_done()
