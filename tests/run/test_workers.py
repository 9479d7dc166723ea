"""Several runs with outputs of their own on one stage: each task is labelled once and moved once, and none fails."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.encord_server import EncordServer
from tests.killing import Scene

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]


def run_beside(scene: Scene, configs: list[Path]) -> Counter[str]:
    """Runs every config in a process of its own at the same time; returns the tasks by how they ended."""
    processes = [scene.start(config) for config in configs]
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * len(processes)
    ended: Counter[str] = Counter()
    for config in configs:
        events = [json.loads(line) for line in config.with_suffix(".log").read_text().splitlines() if line[:1] == "{"]
        ended.update(event["event"] for event in events if event["event"].startswith("task_"))
    return ended


def test_workers_with_outputs_of_their_own_do_no_harm(encord_server: EncordServer, tmp_path: Path) -> None:
    scene = Scene(encord_server, tmp_path, num_tasks=16)
    ended = run_beside(scene, [scene.config(f"worker-{number}", f"out-{number}") for number in range(3)])
    scene.check()
    assert len(encord_server.world.moves) == 16
    assert ended["task_failed"] == 0
