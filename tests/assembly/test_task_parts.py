"""A config's source on the test server: what its keys make of the tasks."""

from __future__ import annotations

from pathlib import Path

import pytest

from prelabel.assembly.assemble import ProjectParts, WaitingTasks
from prelabel.assembly.finders import Shared
from prelabel.config.load import check_config
from prelabel.errors import TakenError
from tests.encord_server import AGENT, COMPLETE
from tests.encord_server.populated import Platform

pytestmark = pytest.mark.usefixtures("encord_environment")


def waiting(platform: Platform, folder: Path, **source: object) -> WaitingTasks:
    section = {"use": "encord", "project_hash": platform.project.uuid, "stage": AGENT, "output": str(folder), **source}
    values = {"source": section, "detector": {"weights": "demo"}, "pathway": "Annotate 1"}
    config = check_config(values, "test")
    return WaitingTasks(config, ProjectParts(config, Shared()))


def test_only_a_shuffled_task_is_looked_up_again_before_it_is_fetched(platform: Platform, tmp_path: Path) -> None:
    (listed,), (shuffled,) = (waiting(platform, tmp_path, order=o).source.tasks() for o in ("listed", "shuffled"))
    (there,) = platform.project.tasks_at(AGENT)
    platform.server.world.move_task(there, platform.project.stage(COMPLETE), user="anna@example.com")
    with listed.open() as media:
        assert media.kind == "video"
    with pytest.raises(TakenError, match=r"clip\.mp4: no longer waits at stage 'Pre-Labeling Agent'"), shuffled.open():
        pass
    assert len(platform.server.world.links) == 1
