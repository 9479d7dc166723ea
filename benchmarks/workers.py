"""What workers that share no output do twice, by the order in which they take tasks up: media fetched for each task.

    uv run python -m benchmarks.workers --workers 3 --tasks 60

The platform is the test server; the clip has 12 frames and the detector costs nothing. Exit 1 if a task is left, moved
twice, or has other labels than it should.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from tests.encord_server import AGENT, EncordServer
from tests.killing import Scene


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers", description=__doc__)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=60)
    options = parser.parse_args()
    orders = ("listed", "shuffled")
    print(json.dumps({order: fetched_per_task(order, options.workers, options.tasks) for order in orders}, indent=2))


def fetched_per_task(order: str, num_workers: int, num_tasks: int) -> float:
    """Returns how often a task's media were fetched, in the mean, by all workers together."""
    with tempfile.TemporaryDirectory() as folder, EncordServer() as server:
        scene = Scene(server, Path(folder), num_tasks)
        names = [f"out-{number}" for number in range(num_workers)]
        processes = [scene.start(scene.config(name, name, order)) for name in names]
        for process in processes:
            process.join()
        scene.check()
        if scene.project.tasks_at(AGENT) or any(process.exitcode for process in processes):
            raise SystemExit(f"{order}: tasks are left, or a worker failed")
        return round(len(server.world.downloads) / num_tasks, 2)


if __name__ == "__main__":
    main()
