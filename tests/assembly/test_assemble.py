"""A config's source on the test server: what its keys make of the tasks."""

from __future__ import annotations

from pathlib import Path

import pytest

from prelabel.assembly.assemble import make_source
from prelabel.config.load import check_config
from prelabel.errors import TakenError
from prelabel.runtime.shared import Shared
from prelabel.store.source import Source
from tests.encord_server import AGENT, COMPLETE
from tests.encord_server.populated import Platform

pytestmark = pytest.mark.usefixtures("encord_environment")


def source_of(platform: Platform, folder: Path, **source: object) -> Source:
    section = {"use": "encord", "project_hash": platform.project.uuid, "stage": AGENT, "output": str(folder), **source}
    values = {"source": section, "detector": {"weights": "demo"}, "pathway": "Annotate 1"}
    return make_source(check_config(values, "test"), folder, Shared())


def test_only_a_shuffled_task_is_looked_up_again_before_it_is_fetched(platform: Platform, tmp_path: Path) -> None:
    (listed,), (shuffled,) = (source_of(platform, tmp_path, order=o).tasks() for o in ("listed", "shuffled"))
    (there,) = platform.project.tasks_at(AGENT)
    platform.server.world.move_task(there, platform.project.stage(COMPLETE), user="anna@example.com")
    with listed.open() as media:
        assert media.kind == "video"
    with pytest.raises(TakenError, match=r"clip\.mp4: no longer waits at stage 'Pre-Labeling Agent'"), shuffled.open():
        pass
    assert len(platform.server.world.links) == 1
