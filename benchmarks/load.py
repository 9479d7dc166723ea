"""What many tasks, a service in trouble, and a row of many labels cost: processor seconds and memory of the run.

    uv run python -m benchmarks.load tasks --tasks 10000 --limit 200     a stage of many tasks, some of them labelled
    uv run python -m benchmarks.load faults --tasks 300 --rate 0.1       trouble on a tenth of all answers
    uv run python -m benchmarks.load row --objects 100000                a row, written, and written again

The platform is the test server, in a process of its own; the clip has 12 frames and the detector costs nothing, so that
what is measured is the run. Exit 1 if anything is lost or doubled.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from prelabel import VideoDetections, VideoInfo
from prelabel.cli.commands import run_config
from prelabel.data.label_map import build_label_map
from prelabel.encord.connection import connect
from prelabel.encord.sink import EncordSink
from prelabel.encord.source import EncordSection, EncordSource
from prelabel.store.source import RowOptions
from prelabel.testing.encord_server import AGENT, EncordServer
from tests.killing import NUM_FRAMES, Scene


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as folder, EncordServer() as server:
        scene = Scene(server, Path(folder), 1 if options.what == "row" else options.tasks)
        if options.what == "faults":
            scene.misbehave(options.rate, options.seed)
        began = time.perf_counter()
        measured = _in_a_process(scene, options)
        server.faults.clear()
        measured |= {"seconds": round(time.perf_counter() - began, 1), "requests": len(server.calls)}
        measured |= _outcome(scene, server, options)
    print(json.dumps(measured, indent=2))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("what", choices=("tasks", "faults", "row"))
    parser.add_argument("--tasks", type=int, default=300)
    parser.add_argument("--limit", type=int, help="tasks to label of those")
    parser.add_argument("--rate", type=float, default=0.1, help="share of answers that are trouble")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--objects", type=int, default=100_000)
    return parser.parse_args()


def _in_a_process(scene: Scene, options: argparse.Namespace) -> dict[str, float]:
    """Works in a process that holds nothing of the server's, and returns what that took."""
    context = multiprocessing.get_context("spawn")
    told = context.SimpleQueue()
    arguments = (options, str(scene.config()), scene.project.uuid, scene.environment, told)
    worker = context.Process(target=_work, args=arguments)
    worker.start()
    worker.join()
    if told.empty():
        raise SystemExit(scene.config().with_suffix(".log").read_text()[-2000:])
    measured: dict[str, float] = told.get()
    return measured


def _work(
    options: argparse.Namespace,
    config: str,
    project: str,
    environment: Mapping[str, str],
    told: multiprocessing.SimpleQueue[dict[str, float]],
) -> None:
    os.environ.update(environment)
    sys.stdout = sys.stderr = Path(config).with_suffix(".log").open("a")
    if options.what == "row":
        code, before = 0, _write_row(project, environment["ENCORD_DOMAIN"], options.objects, Path(config).parent)
    else:
        before = _peak_mb()
        code = run_config(Path(config), (), limit=options.limit, dry_run=False, watch_seconds=None)
    seconds = round(sum(os.times()[:2]), 1)
    told.put({"exit_code": code, "cpu_seconds": seconds, "peak_mb": _peak_mb(), "peak_mb_before": before})


def _write_row(project_hash: str, domain: str, num_objects: int, folder: Path) -> float:
    """Writes a row, then writes it again over itself; returns the peak of memory before."""
    project = connect(project_hash, domain)
    labels = build_label_map(("Pedestrian", "Vehicle"), project.ontology(), {})
    (task,) = EncordSource(EncordSection(project_hash=project_hash, stage=AGENT, output=folder)).tasks()
    sink = EncordSink(project, labels, RowOptions(60_000_000))
    info = VideoInfo(width=96, height=64, num_frames=NUM_FRAMES, average_fps=30.0)
    found = _boxes(num_objects)
    before = _peak_mb()
    for _ in range(2):
        sink.write(task, info, found)
    return before


def _boxes(num: int) -> VideoDetections:
    draw = np.random.default_rng(0)
    corner = draw.uniform(0, 40, (num, 2)).astype(np.float32)
    return VideoDetections(
        frame_index=np.sort(draw.integers(0, NUM_FRAMES, num)),
        xyxy=np.hstack([corner, corner + draw.uniform(4, 20, (num, 2)).astype(np.float32)]),
        confidence=draw.uniform(0.3, 1, num).astype(np.float32),
        class_id=np.zeros(num, np.int64),
        track_id=np.full(num, -1, np.int64),
    )


def _peak_mb() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def _outcome(scene: Scene, server: EncordServer, options: argparse.Namespace) -> dict[str, float]:
    """Returns what the platform has, held against what it must have."""
    if options.what == "row":
        (row,) = scene.project.rows.values()
        if len(row.objects()) != options.objects:
            raise SystemExit(f"got {len(row.objects())} objects on the row, expected {options.objects}")
        return {"row_mb": round(len(server.world.saves[-1].request_body) / 1e6, 1)}
    scene.check()
    if options.limit is None:
        scene.check_done()
    troubled = sum(call.status is None or call.status >= 400 for call in server.calls)
    return {"moved": len(server.world.moves), "answers_in_trouble": troubled}


if __name__ == "__main__":
    main()
