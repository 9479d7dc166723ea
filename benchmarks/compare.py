"""Compares this checkout with another one, from the outside: the same commands, in turn, round after round.

    uv run python -m benchmarks.compare --data DATA --against ../other-checkout --rounds 3
    uv run python -m benchmarks.compare --data DATA --only street decode --rounds 5

Each checkout runs its own `prelabel` from its own `.venv`, so a line of the table is what a user gets. Lines:

    start      16 frames of a small clip: wall and processor seconds from the command to its end, peak of memory
    demo       the demo: the same
    street     YOLO11n with defaults on 1080p: frames/s as the report has them, and the peak of memory (PSS of all
               processes), and processor seconds
    decode     a detector that costs nothing on 1080p: frames/s, and its share of those of PyAV alone, measured after it
    short      40 short videos with a detector that waits 8 ms a frame: wall seconds
    rows       instances into a label row and its request body, by each checkout's `benchmarks.labels`
    relabel    ten minutes of a clip's boxes, by each checkout's `benchmarks.relabel`: processor seconds
    labels     100,000 boxes into a label row: processor seconds of `relabel`
    tracks     the same boxes as tracks: processor seconds of `relabel`
    export     the same boxes in each format that both checkouts have: processor seconds
    evaluate   the same boxes against themselves: processor seconds
    classify   MobileNetV2 over a folder of images: images/s as the report has them, processor seconds, peak of memory

DATA is a folder with `clips/`, `coco_mini/` and `weights/`, as the tests use it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import psutil
from rich.console import Console
from rich.table import Table

DETECTORS = '''
import time
import numpy as np
from prelabel import Detections

class Nothing:
    class_names = ("thing",)
    def detect(self, batch):
        return [Detections.empty()] * len(batch.frame_indices)

class Waits:
    class_names = ("thing",)
    def detect(self, batch):
        time.sleep(0.008 * len(batch.frame_indices))
        return [Detections(xyxy=[[2, 2, 40, 40]], confidence=[0.9], class_id=[0])] * len(batch.frame_indices)

class Many:
    """A hundred boxes a frame that drift to the right, so that a tracker can follow them."""
    class_names = ("thing", "other")
    def detect(self, batch):
        return [self._boxes(int(index)) for index in batch.frame_indices]
    def _boxes(self, index):
        x, y = np.meshgrid(np.arange(10) * 60 + index % 20, np.arange(10) * 34)
        left, top = x.ravel() + 0.37, y.ravel() + 0.21
        xyxy = np.stack([left, top, left + 40, top + 24], axis=1).astype(np.float32)
        return Detections(xyxy=xyxy, confidence=np.linspace(0.5, 0.95, 100).astype(np.float32),
                          class_id=np.arange(100) % 2)
'''


@dataclass(frozen=True)
class Checkout:
    """A checkout of prelabel with a `.venv`.

    Attributes:
        name: for the table.
        root: its folder.
    """

    name: str
    root: Path

    def prelabel(self, *arguments: str, cwd: Path) -> Usage:
        """Runs a command of this checkout.

        Raises:
            subprocess.CalledProcessError: it failed.
        """
        command = [str(self.root / ".venv/bin/prelabel"), *arguments]
        with tempfile.TemporaryFile() as told, _PeakOfMemory() as peak:
            before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            process = subprocess.Popen(command, cwd=cwd, stdout=told, stderr=subprocess.STDOUT)
            peak.watch(process.pid)
            code = process.wait()
            seconds = time.perf_counter() - began
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            if code:
                told.seek(0)
                raise subprocess.CalledProcessError(code, command, told.read().decode()[-2000:])
        used = (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)
        return Usage(seconds, used, peak.megabytes)

    def benchmark(self, name: str, *arguments: str) -> dict[str, Any]:
        """Returns what a benchmark of this checkout prints on its last line.

        Raises:
            subprocess.CalledProcessError: it failed.
        """
        command = [str(self.root / ".venv/bin/python"), "-m", f"benchmarks.{name}", *arguments]
        told = subprocess.run(command, cwd=self.root, check=True, capture_output=True, text=True).stdout
        found: dict[str, Any] = json.loads(told.splitlines()[-1])
        return found


@dataclass(frozen=True)
class Usage:
    """What a command took.

    Attributes:
        seconds: by the clock.
        processor_seconds: of the process and all that it started and waited for.
        peak_mb: largest sum of proportional set sizes of its processes, in 10^6 bytes.
    """

    seconds: float
    processor_seconds: float
    peak_mb: float


class _PeakOfMemory:
    """Samples the memory of a process and its children; proportional, so that shared pages count once."""

    def __init__(self) -> None:
        self.megabytes, self._pid, self._over = 0.0, 0, threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> _PeakOfMemory:
        return self

    def watch(self, pid: int) -> None:
        self._pid = pid
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._over.wait(0.2):
            try:
                parent = psutil.Process(self._pid)
                total = sum(part.memory_full_info().pss for part in (parent, *parent.children(recursive=True)))
            except (psutil.Error, OSError):
                continue
            self.megabytes = max(self.megabytes, total / 1e6)


@dataclass(frozen=True)
class Bench:
    """Where clips, weights and outputs lie.

    Attributes:
        data: the folder of real clips and weights.
        work: a temporary folder for configs, clips and outputs.
        frames: of the 1080p clip that `street` labels.
    """

    data: Path
    work: Path
    frames: int

    def prepare(self) -> None:
        """Makes what the commands read."""
        (self.work / "detectors.py").write_text(DETECTORS)
        street = self.data / "clips/street_1080p30.mp4"
        _ffmpeg("-stream_loop", "4", "-i", str(street), "-c", "copy", str(self.work / "long.mp4"))
        _ffmpeg("-f", "lavfi", "-i", "testsrc=s=640x360:r=25:d=40", "-pix_fmt", "yuv420p", str(self.work / "many.mp4"))
        _ffmpeg("-f", "lavfi", "-i", "testsrc=s=320x192:r=16:d=1", "-pix_fmt", "yuv420p", str(self.work / "small.mp4"))
        (self.work / "short").mkdir()
        for number in range(40):
            shutil.copy(self.work / "small.mp4", self.work / f"short/{number:02}.mp4")

    def run(self, checkout: Checkout, name: str, config: Mapping[str, object]) -> tuple[Usage, dict[str, object]]:
        """Runs a config afresh; returns what it took and its report."""
        output = self.output(checkout, name)
        shutil.rmtree(output, ignore_errors=True)
        path = self.config(checkout, name, config)
        usage = checkout.prelabel("run", str(path), cwd=self.work)
        return usage, json.loads((output / "report.json").read_text())

    def config(self, checkout: Checkout, name: str, config: Mapping[str, object]) -> Path:
        """Writes a config whose output is of this checkout alone."""
        values = dict(config)
        source = values.pop("source")
        assert isinstance(source, dict)
        path = self.work / f"{name}-{checkout.name}.yaml"
        path.write_text(json.dumps({"source": {**source, "output": str(self.output(checkout, name))}, **values}))
        return path

    def output(self, checkout: Checkout, name: str) -> Path:
        """Returns the output folder of a line and a checkout."""
        return self.work / f"out-{name}-{checkout.name}"


Figures = dict[str, float]
Line = Callable[[Bench, Checkout], Figures]


def start(bench: Bench, checkout: Checkout) -> Figures:
    """Labels 16 frames of a small clip by YOLO11n."""
    config = {"source": {"path": "small.mp4"}, "detector": _yolo(bench)}
    usage, _ = bench.run(checkout, "start", config)
    return {"start, s": usage.seconds, "start, processor s": usage.processor_seconds, "start, peak MB": usage.peak_mb}


def demo(bench: Bench, checkout: Checkout) -> Figures:
    """Runs the demo."""
    output = bench.output(checkout, "demo")
    shutil.rmtree(output, ignore_errors=True)
    config = str(checkout.root / "configs/demo.yaml")
    usage = checkout.prelabel("run", config, "--set", f"source.output={output}", cwd=bench.work)
    return {"demo, s": usage.seconds, "demo, processor s": usage.processor_seconds, "demo, peak MB": usage.peak_mb}


def street(bench: Bench, checkout: Checkout) -> Figures:
    """Labels the street clip by YOLO11n with defaults."""
    config = {
        "source": {"path": str(bench.data / "clips/street_1080p30.mp4")},
        "reader": {"frame_ranges": [[0, bench.frames - 1]]},
        "detector": _yolo(bench),
    }
    usage, report = bench.run(checkout, "street", config)
    return {
        "street, frames/s": _pace(report),
        "street, processor s": usage.processor_seconds,
        "street, peak MB": usage.peak_mb,
    }


def decode(bench: Bench, checkout: Checkout) -> Figures:
    """Runs a detector that costs nothing, so that decoding sets the pace."""
    config = {"source": {"path": "long.mp4"}, "detector": {"use": "detectors.py:Nothing"}}
    pace, alone = _pace(bench.run(checkout, "decode", config)[1]), _decode_alone(bench.work / "long.mp4")
    return {"decode, frames/s": pace, "decode, of PyAV alone": pace / alone}


def short(bench: Bench, checkout: Checkout) -> Figures:
    """Labels 40 short videos by a detector that waits as a device would."""
    config = {"source": {"path": "short"}, "detector": {"use": "detectors.py:Waits"}}
    return {"short, s": bench.run(checkout, "short", config)[0].seconds}


def rows(bench: Bench, checkout: Checkout) -> Figures:
    """Writes instances into a label row, and beside that by the SDK."""
    figures = {}
    for result in checkout.benchmark("labels")["results"]:
        name = f"row of {result['instances']:,}"
        figures[f"{name}, processor s"] = result["prelabel"]["all"]
        if "times_faster" in result:
            figures[f"{name}, times the SDK"] = result["times_faster"]
    return figures


def relabel(bench: Bench, checkout: Checkout) -> Figures:
    """Labels ten minutes of stored boxes in four ways."""
    clip, weights = bench.data / "clips/bottles_360p.mp4", bench.data / "weights/yolo11n_coco.pt"
    told = checkout.benchmark("relabel", "--clip", str(clip), "--weights", str(weights), "--minutes", "10")
    return {f"relabel, {row['labels']}, processor s": row["seconds"] for row in told["rows"]}


def labels(bench: Bench, checkout: Checkout) -> Figures:
    """Labels 100,000 stored boxes with another threshold."""
    return {"labels, processor s": _relabel(bench, checkout, "labels", {}).processor_seconds}


def tracks(bench: Bench, checkout: Checkout) -> Figures:
    """Labels 100,000 stored boxes as tracks."""
    return {"tracks, processor s": _relabel(bench, checkout, "tracks", {"instances": "tracks"}).processor_seconds}


def export(bench: Bench, checkout: Checkout) -> Figures:
    """Writes 100,000 stored boxes in each format."""
    path, figures = _many(bench, checkout), {}
    for name in ("coco", "yolo", "mot", "encord", "cvat", "voc", "labelstudio"):
        target = bench.output(checkout, f"export-{name}")
        shutil.rmtree(target, ignore_errors=True)
        try:
            usage = checkout.prelabel("export", str(path), str(target), "-f", name, cwd=bench.work)
        except subprocess.CalledProcessError as error:
            if error.returncode != 2:  # an older checkout lacks the format
                raise
            continue
        figures[f"export {name}, processor s"] = usage.processor_seconds
    return figures


def evaluate(bench: Bench, checkout: Checkout) -> Figures:
    """Compares 100,000 stored boxes with themselves."""
    usage = checkout.prelabel("evaluate", str(_many(bench, checkout)), cwd=bench.work)
    return {"evaluate, processor s": usage.processor_seconds}


def classify(bench: Bench, checkout: Checkout) -> Figures:
    """Classifies a folder of images by MobileNetV2."""
    weights = next((bench.data / "weights").glob("mobilenet_v2*.pth"))
    config = {
        "source": {"path": str(bench.data / "coco_mini/images")},
        "classifier": {"use": "torchvision", "weights": str(weights), "builder": "mobilenet_v2",
                       "published": "IMAGENET1K_V1"},
        "labels": {"classification": "Scene"},
    }  # fmt: skip
    usage, report = bench.run(checkout, "classify", config)
    return {
        "classify, images/s": _pace(report),
        "classify, processor s": usage.processor_seconds,
        "classify, peak MB": usage.peak_mb,
    }


LINES: Mapping[str, Line] = {
    line.__name__: line
    for line in (start, demo, street, decode, short, rows, relabel, labels, tracks, export, evaluate, classify)
}


def main() -> None:
    """Measures, prints a table, and ends with one line of JSON."""
    args = _parse()
    checkouts = [Checkout("here", Path(__file__).resolve().parents[1])]
    if args.against is not None:
        checkouts.append(Checkout("there", args.against.resolve()))
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args.data.resolve(), Path(folder), args.frames)
        bench.prepare()
        figures = {checkout.name: _measure(bench, checkout, {}, args.only) for checkout in checkouts[::-1]}
        for values in figures.values():
            values.clear()  # the first round warms caches up
        for number in range(args.rounds):
            for checkout in checkouts if number % 2 == 0 else checkouts[::-1]:
                _measure(bench, checkout, figures[checkout.name], args.only)
    medians = {name: {line: statistics.median(taken) for line, taken in of.items()} for name, of in figures.items()}
    _show(medians)
    print(json.dumps({"rounds": args.rounds, "medians": medians, "all": figures}))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--against", type=Path, help="another checkout, with a .venv of its own")
    parser.add_argument("--only", nargs="+", choices=LINES, default=list(LINES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=160, help="frames of the street clip")
    return parser.parse_args()


def _measure(bench: Bench, checkout: Checkout, into: dict[str, list[float]], only: list[str]) -> dict[str, list[float]]:
    for name in only:
        print(f"{checkout.name}: {name}", file=sys.stderr)
        for line, value in LINES[name](bench, checkout).items():
            into.setdefault(line, []).append(value)
    return into


def _show(medians: Mapping[str, Figures]) -> None:
    columns = ["here", "there", "here / there"] if "there" in medians else ["here"]
    table = Table("line", *columns, box=None)
    for line, value in medians["here"].items():
        there = medians.get("there", {}).get(line)
        table.add_row(line, f"{value:.2f}", *([] if there is None else [f"{there:.2f}", f"{value / there:.2f}"]))
    Console(highlight=False).print(table)


def _yolo(bench: Bench) -> dict[str, object]:
    return {"use": "ultralytics", "weights": str(bench.data / "weights/yolo11n_coco.pt")}


def _pace(report: Mapping[str, object]) -> float:
    value = report["frames_per_second"]
    assert isinstance(value, int | float)
    return float(value)


def _many(bench: Bench, checkout: Checkout) -> Path:
    """Returns a config whose run has stored 100,000 boxes."""
    config = {"source": {"path": "many.mp4"}, "detector": {"use": "detectors.py:Many"}}
    if not (bench.output(checkout, "many") / "report.json").exists():
        bench.run(checkout, "many", config)
    return bench.config(checkout, "many", config)


def _relabel(bench: Bench, checkout: Checkout, name: str, extra: Mapping[str, object]) -> Usage:
    path = _many(bench, checkout)
    output = bench.output(checkout, name)
    shutil.rmtree(output, ignore_errors=True)
    shutil.copytree(bench.output(checkout, "many"), output)
    labels = json.dumps({**extra, "conf": 0.01})
    arguments = ["relabel", str(path), "--set", f"source.output={output}", "--set", f"labels={labels}"]
    return checkout.prelabel(*arguments, cwd=bench.work)


def _decode_alone(path: Path) -> float:
    """Returns frames/s of PyAV to RGB, in this process."""
    began, number = time.perf_counter(), 0
    with av.open(path) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(video=0):
            frame.to_ndarray(format="rgb24")
            number += 1
    return number / (time.perf_counter() - began)


def _ffmpeg(*arguments: str) -> None:
    subprocess.run(
        ["ffmpeg", "-y", "-v", "error", *arguments], check=True, env={**os.environ, "AV_LOG_FORCE_NOCOLOR": "1"}
    )


if __name__ == "__main__":
    main()
