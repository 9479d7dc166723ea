"""Workers on Ray: how they scale, what they cost, and how many the run can keep busy.

    uv run python -m benchmarks.scale_out
    uv run python -m benchmarks.scale_out --only ceiling memory --tasks 2000

Lines:

    scaling    videos of 150 small frames and a detector that waits 8 ms a frame, as a device would: frames/s of one,
               two and four workers, in turn
    overhead   40 videos of 25 frames, the same detector: seconds of one worker and of a run without workers, in turn
    ceiling    64 workers that answer at once with the labels of 4,000 boxes a task: processor seconds of the run for
               each task, and for how many GPUs of 1,800 frames/s on videos of 1,000 frames that is enough
    memory     10,000 tasks through 8 such workers, 40 boxes a task: growth of the run's memory
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml

from prelabel import Detections, ModelTraits
from prelabel.assembly.assemble import assemble
from prelabel.assembly.detectors import LiveDetector
from prelabel.assembly.stored_detector import ReplayDetector
from prelabel.config.load import check_config
from prelabel.config.sections import Config
from prelabel.data.detections import concatenate
from prelabel.data.frames import MediaLocation, VideoInfo
from prelabel.run.actor import ModelDescription, Status
from prelabel.run.agents.box_labels import Detected, LabelledByWorker, label_in_worker
from prelabel.run.checks import prepare
from prelabel.run.placement import WorkersDetector
from prelabel.run.ray_cluster import connect, import_ray
from prelabel.run.runner import run_tasks
from prelabel.run.work import InferredTask, Work
from prelabel.run.worker_handle import WorkerHandle
from prelabel.run.workers import RayWorkers
from prelabel.runtime.interrupts import StopSignal
from prelabel.runtime.progress import NullProgress
from prelabel.store.raw_detections import DetectionProvenance, RawRecord
from tests.make_media import Recipe, write_clip

WAITS = """
import time
from prelabel import Detections

class Waits:
    class_names = ("thing",)

    def detect(self, batch):
        time.sleep(0.008 * len(batch.frame_indices))
        return [Detections([(2, 2, 40, 40)], [0.9], [0]) for _ in batch.frame_indices]
"""
GPU_FRAMES_PER_SECOND, FRAMES_PER_VIDEO = 1_800, 1_000
NUM_FRAMES = 20


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale_out", description=__doc__)
    lines = {"scaling": scaling, "overhead": overhead, "ceiling": ceiling, "memory": memory}
    parser.add_argument("--only", nargs="+", choices=lines, default=list(lines))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=0, help="of ceiling and memory; default: 300 and 10,000")
    options = parser.parse_args()
    for name in options.only:
        print(name, json.dumps(lines[name](options.rounds, options.tasks)), flush=True)


def scaling(rounds: int, _: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        config = scene(Path(folder), num_videos=32, num_frames=150)
        rates: dict[int, list[float]] = {1: [], 2: [], 4: []}
        for _ in range(rounds):
            for num, found in rates.items():
                found.append(run(config, Path(folder), num)["frames_per_second"])
    medians = {num: statistics.median(found) for num, found in rates.items()}
    return {
        **{f"{num} workers, frames/s": round(rate, 1) for num, rate in medians.items()},
        "2 / 1": round(medians[2] / medians[1], 2),
        "4 / 1": round(medians[4] / medians[1], 2),
    }


def overhead(rounds: int, _: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        config = scene(Path(folder), num_videos=40, num_frames=25)
        seconds: dict[int, list[float]] = {0: [], 1: []}
        for _ in range(rounds):
            for num, found in seconds.items():
                found.append(run(config, Path(folder), num)["seconds"])
    plain, one = (statistics.median(seconds[num]) for num in (0, 1))
    return {"without workers, s": round(plain, 2), "one worker, s": round(one, 2), "ratio": round(one / plain, 3)}


def scene(folder: Path, num_videos: int, num_frames: int) -> Path:
    """Writes videos, a detector and a config."""
    (folder / "clips").mkdir()
    first = write_clip(folder / "clips" / "0.mp4", Recipe(num_frames=num_frames)).path
    for number in range(1, num_videos):
        os.link(first, first.with_name(f"{number}.mp4"))
    (folder / "waits.py").write_text(WAITS)
    config = {"source": {"path": str(folder / "clips")}, "detector": {"use": "waits.py:Waits", "batch_size": 8}}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def run(config: Path, folder: Path, num_workers: int) -> dict[str, Any]:
    """Returns the report of a run in a process of its own; its seconds begin once all models are loaded."""
    output = folder / f"out-{time.monotonic_ns()}"
    command = [sys.executable, "-m", "prelabel", "run", str(config), "--output", str(output)]
    if num_workers:
        command += ["--workers", str(num_workers), "--set", "workers.cpus=1"]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    report: dict[str, Any] = json.loads((output / "report.json").read_text())
    return report


class CannedDetector(LiveDetector):
    """The facts about a detector that is not there."""

    detector = ReplayDetector(("thing",), ModelTraits())


class Canned:
    """An actor in the place of many workers. It makes the labels of all tasks before the run asks for them."""

    def __init__(self, config: Config, boxes_per_frame: int) -> None:
        assembly = assemble(config, Path())
        provider = CannedDetector(config, Path(), lambda: None)
        self._parts = replace(assembly.detection, provider=provider)
        rng = np.random.default_rng(0)
        corners = rng.uniform(0, 300, (boxes_per_frame, 2))
        xyxy = np.concatenate([corners, corners + 40], axis=1).astype(np.float32)
        one = Detections(
            xyxy, np.linspace(0.3, 0.9, boxes_per_frame, dtype=np.float32), np.zeros(boxes_per_frame, np.int64)
        )
        self._raw = RawRecord(
            info=VideoInfo(640, 360, NUM_FRAMES, 25.0, NUM_FRAMES / 25),
            detections=concatenate([(frame, one) for frame in range(NUM_FRAMES)]),
            origin=DetectionProvenance(class_names=("thing",), model=None, fingerprint="", lowest_conf=None),
        )

        self._made: dict[str, LabelledByWorker] = {}

    def prepare(self, works: list[Work]) -> None:
        """Makes the labels for each work, of the same boxes."""
        for work in works:
            self._made[work.key] = label_in_worker(self._parts, work, Detected(self._raw, "none"))

    def infer(self, works: list[Work]) -> tuple[list[InferredTask[LabelledByWorker]], Status]:
        """Returns the labels for each work."""
        seconds = {"fetch": 0.0, "detect": 0.0}
        return [InferredTask(work.key, self._made.pop(work.key), seconds=seconds) for work in works], Status(())

    def status(self) -> Status:
        """Returns no events."""
        return Status(())


class CannedWorkers(RayWorkers):
    """Workers that are one actor in truth."""

    num = 64
    boxes_per_frame = 200
    actor: Any = None

    def _start(self) -> ModelDescription:
        ray = import_ray()
        self._has_connected = connect(ray, self._section)
        self.actor = ray.remote(Canned).options(num_cpus=0, max_concurrency=self.num)
        self.actor = self.actor.remote(self._config, self.boxes_per_frame)
        self._handles = [WorkerHandle(f"worker {number}", self.actor) for number in range(self.num)]
        return ModelDescription("here", ("thing",))


def canned_run(num_tasks: int, num: int, boxes_per_frame: int) -> tuple[float, int]:
    """Returns the processor seconds of a run, and by how many bytes its memory grew after the first tenth."""
    with tempfile.TemporaryDirectory() as folder:
        clips = Path(folder) / "clips"
        clips.mkdir()
        for number in range(num_tasks):
            (clips / f"{number}.mp4").write_bytes(b"")
        values = {
            "source": {"path": str(clips), "output": f"{folder}/out"},
            "detector": {"use": "torchvision", "weights": "ssdlite320_mobilenet_v3_large"},
        }
        config = check_config(values | {"workers": {}}, "benchmark")
        assembly = assemble(config, Path())
        workers = CannedWorkers(config, Path(), lambda: None)
        workers.num, workers.boxes_per_frame = num, boxes_per_frame
        provider = WorkersDetector(config, Path(), lambda: None, workers=workers)
        assembly = replace(assembly, detection=replace(assembly.detection, provider=provider))
        prepare(assembly)
        nowhere = MediaLocation("video", ())
        works = [Work.of(task, nowhere, assembly.expected_row(task)) for task in assembly.source.tasks()]
        _ = assembly.detection.label_fingerprint  # it imports the detector's module
        import_ray().get(workers.actor.prepare.remote(works))
        growth = Growth(num_tasks // 10)
        began = time.process_time()
        report = run_tasks(assembly, growth, StopSignal(), workers=workers)
        seconds = time.process_time() - began
        workers.close()
        if len([task for task in report.tasks if task.status == "done"]) != num_tasks:
            raise SystemExit(f"not all tasks are done: {report.tasks[:3]}, {report.aborted}")
        return seconds, growth.grown_bytes


class Growth(NullProgress):
    """Measures how this process grows after so many tasks."""

    def __init__(self, num_tasks: int) -> None:
        self._left, self._before = num_tasks, 0

    def event(self, name: str, **values: object) -> None:
        """Counts tasks."""
        self._left -= name == "task_done"
        if self._left == 0 and not self._before:
            self._before = psutil.Process().memory_info().rss

    @property
    def grown_bytes(self) -> int:
        """Growth since then."""
        return psutil.Process().memory_info().rss - self._before


def ceiling(_: int, asked: int) -> dict[str, float]:
    num_tasks: int = asked or 300
    per_task = canned_run(num_tasks, num=64, boxes_per_frame=200)[0] / num_tasks
    gpus = FRAMES_PER_VIDEO / GPU_FRAMES_PER_SECOND / per_task
    return {"boxes a task": 200 * NUM_FRAMES, "processor ms a task": round(per_task * 1000, 1), "GPUs": round(gpus)}


def memory(_: int, asked: int) -> dict[str, float]:
    num_tasks: int = asked or 10_000
    grown_bytes = canned_run(num_tasks, num=8, boxes_per_frame=2)[1]
    return {"tasks": num_tasks, "grown MB": round(grown_bytes / 1e6, 1)}


if __name__ == "__main__":
    main()
