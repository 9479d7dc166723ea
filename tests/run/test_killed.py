"""SIGKILL at every boundary: the next run goes on, and each task is labelled once and moved once."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from prelabel.testing.encord_server import EncordServer
from tests.killing import KillPoint, Scene, every_kind, expected, found

pytestmark = [pytest.mark.timeout(1200), pytest.mark.slow]


def test_an_undisturbed_run_leaves_what_is_expected(encord_server: EncordServer, tmp_path: Path) -> None:
    scene = Scene(encord_server, tmp_path, num_tasks=2)
    assert scene.run() == 0
    assert [found(row) for row in scene.project.rows.values()] == [expected()] * 2
    scene.check_done()


def test_a_run_that_is_killed_everywhere_loses_and_doubles_nothing(encord_server: EncordServer, tmp_path: Path) -> None:
    points = every_kind()
    random.Random(1).shuffle(points)
    scene = Scene(encord_server, tmp_path, num_tasks=len(points) + 10)
    for point in points:
        assert is_killed(scene, point), point
        scene.check()
    assert scene.run() == 0
    scene.check_done()


def is_killed(scene: Scene, point: KillPoint) -> bool:
    """Kills a run at a point, on a new task where one that was cut off comes there no more, or has to be cut off."""
    if any(scene.run(point, limit=1) == -signal.SIGKILL for _ in range(2)):
        return True
    scene.run(KillPoint("create_label_rows", "after"), limit=1)
    return scene.run(point, limit=1) == -signal.SIGKILL
