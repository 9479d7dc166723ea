"""Each stage alone and the whole run beside it, by reader, sessions, resolution, batch, precision and number of videos.

Everything that is compared runs in turn, round after round; medians count, and ratios are taken within a round. The
limit of a run is the slower of decoding alone and detecting alone. Runs on a GPU where there is one, else on the CPU.

    python -m benchmarks.gpu --weights yolo11n --frames 1200 --videos 1 8 --sizes 1080 720 --picture gpu.png

No round is begun that would not end within `--seconds`; what is known after each is in the file that `--json` names.

Ways:
    decode READER, SESSIONS       a reader alone, frames left where it puts them
    prepare, forward, suppress    of the detector, on frames that are on its device; by batch and precision
    detect                        all three and the way back to the host, one batch begun ahead
    run                           `prelabel run`: decode, detect, raw store, label row
    predict                       `ultralytics predict(stream=True)` on the file's first frames
    one by one                    the same, a decoded frame at a time
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from prelabel.runtime.process_settings import set_up_process

set_up_process()  # as the command line does, for all ways alike

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.moving_clip import write_moving_clip
from prelabel.assembly.assemble import assemble
from prelabel.config.load import check_config
from prelabel.data.frames import FrameBatch, Media
from prelabel.inference.batch_runner import BatchRunner
from prelabel.media import decord, nvdec, torchcodec
from prelabel.media.choose import select_reader
from prelabel.media.cuda import count_engines
from prelabel.media.index import index_video
from prelabel.media.parallel import ParallelReader
from prelabel.models.detectors.ultralytics import UltralyticsDetector
from prelabel.models.weights import resolve_weights
from prelabel.plugins.protocols import VideoReader
from prelabel.run.runner import run_tasks
from prelabel.runtime.interrupts import StopSignal
from prelabel.runtime.progress import NullProgress

Way = Callable[[], int]
ON_GPU = torch.cuda.is_available()
DEVICE = "cuda:0" if ON_GPU else "cpu"


def main() -> None:
    """Measures, prints a table, and ends with one line of JSON."""
    args = _parse()
    until = time.monotonic() + args.seconds
    torch.set_num_threads(os.cpu_count() or 1)
    folder = Path(tempfile.mkdtemp())
    result: dict = {
        "machine": torch.cuda.get_device_name() if ON_GPU else f"{platform.machine()}, {os.cpu_count()} cores",
        "torch": torch.__version__,
        "weights": args.weights,
        "num_frames": args.frames,
        "rounds": {},
        "sizes": {},
    }
    for size in args.sizes:
        clip = write_moving_clip(folder / f"{size}p.mp4", size, args.frames)
        for num_rounds, rows in enumerate(_measure_size(args, clip, until)):
            result["sizes"][f"{size}p"], result["rounds"][f"{size}p"] = rows, num_rounds
            _save(result, args.json)
    result["memory_mb"] = _memory(args, clip)
    _save(result, args.json)
    _print(result)
    if args.picture is not None:
        _draw(result, args.picture)
    print(json.dumps(result))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="yolo11n", help="Ultralytics checkpoint: a card's name or a path")
    parser.add_argument("--frames", type=int, default=1200, help="frames of each clip, which is made on the spot")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1080], help="heights of the clips")
    parser.add_argument("--videos", type=int, nargs="+", default=[1, 8], help="videos of a run")
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 32, 64])
    engines = count_engines(DEVICE, "h264") if ON_GPU else 2
    parser.add_argument("--sessions", type=int, nargs="+", default=sorted({1, engines}), help="readers of one video")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=600, help="time for all rounds")
    parser.add_argument("--json", type=Path, help="a file for what is known so far")
    parser.add_argument("--only", nargs="+", default=[""], help="ways whose names begin so")
    parser.add_argument("--memory-frames", type=int, default=10_000, help="frames to watch the GPU's memory over")
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--peer-frames", type=int, default=300, help="frames that the other ways go over at most")
    parser.add_argument("--picture", type=Path, help="a PNG or SVG of the table")
    return parser.parse_args()


def _measure_size(args: argparse.Namespace, clip: Path, until: float) -> Iterator[dict[str, dict[str, float]]]:
    """Yields frames a second and ratio to the limit, by way, of a clip: after warming up, then after each round."""
    detectors = {
        "half" if half else "float32": _detector(args, half) for half in ([True, False] if ON_GPU else [False])
    }
    main_precision = next(iter(detectors))
    batches = list(_frames_on_device(clip, max(args.batches), args.frames))
    ways = _decode_ways(args, clip)
    for precision, detector in detectors.items():
        for size in args.batches if precision == main_precision else args.batches[:1]:
            ways |= _stage_ways(detector, _cut(batches, size), f"batch {size}, {precision}")
    for num_videos in args.videos:
        ways[f"run, {num_videos} video{'s' if num_videos > 1 else ''}"] = partial(
            _run, args, clip, num_videos, detectors[main_precision]
        )
    if args.peers:
        ways |= _peer_ways(args, resolve_weights(args.weights).path, clip)
    ways = {name: way for name, way in ways.items() if name.startswith(tuple(args.only))}
    for rates in _take_turns(ways, args.rounds, until):
        yield _rows(rates)


def _rows(rates: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    num_rounds = min(map(len, rates.values()))
    limits = [min(_best(rates, "decode", turn), _best(rates, "detect", turn)) for turn in range(num_rounds)]
    return {
        name: {
            "frames_per_second": round(statistics.median(values), 1),
            "ratio_to_limit": round(statistics.median(a / b for a, b in zip(values, limits, strict=True)), 3),
        }
        for name, values in rates.items()
    }


def _take_turns(ways: dict[str, Way], rounds: int, until: float) -> Iterator[dict[str, list[float]]]:
    """Yields each way's frames a second so far: of the round for warming up alone, then of those after it."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        round_began = time.monotonic()
        if turn == 1:
            rates = {name: [] for name in ways}
        for name, way in ways.items():
            began = time.perf_counter()
            num_frames = way()
            _wait()
            rates[name].append(num_frames / (time.perf_counter() - began))
            print(f"round {turn}: {name}: {rates[name][-1]:.1f} frames/s", flush=True)
        yield rates
        if 2 * time.monotonic() - round_began > until:
            return


def _best(rates: dict[str, list[float]], kind: str, turn: int) -> float:
    return max((values[turn] for name, values in rates.items() if name.startswith(kind)), default=np.inf)


def _wait() -> None:
    if ON_GPU:
        torch.cuda.synchronize()


def _detector(args: argparse.Namespace, half: bool) -> UltralyticsDetector:
    return UltralyticsDetector(weights=args.weights, device=DEVICE, half=half)


def _frames_on_device(clip: Path, batch_size: int, num_frames: int) -> Iterable[FrameBatch]:
    """Yields the clip's frames on the device, no more of them than four batches."""
    from prelabel.media.pyav import PyAVReader

    with PyAVReader(Media("video", (clip,))) as reader:
        wanted = np.arange(min(num_frames, 4 * batch_size))
        for batch in reader.batches(wanted, batch_size):
            yield FrameBatch(batch.data.to(DEVICE, copy=True), batch.frame_indices, batch.pts_seconds)


def _cut(batches: list[FrameBatch], size: int) -> list[FrameBatch]:
    return [batch.part(at, at + size) for batch in batches for at in range(0, len(batch), size)]


def _decode_ways(args: argparse.Namespace, clip: Path) -> dict[str, Way]:
    from prelabel.media.decord import DecordReader
    from prelabel.media.pyav import PyAVReader
    from prelabel.media.torchcodec import TorchCodecReader

    media = Media("video", (clip,))
    index = index_video(clip)
    makers: dict[str, Callable[[], VideoReader]] = {"pyav, cpu": partial(PyAVReader, media)}
    if decord.probe(0) is None and decord.refuse(index, on_gpu=True) is None:
        makers["decord, cuda"] = partial(DecordReader, media, device="cuda")
    if nvdec.probe() is None and nvdec.refuse(index) is None:
        makers["nvdec, cuda"] = partial(nvdec.NvdecReader, media)
    device = "cuda" if ON_GPU else "cpu"
    if torchcodec.probe(device) is None and torchcodec.refuse(index, on_gpu=ON_GPU) is None:
        makers[f"torchcodec, {device}"] = partial(TorchCodecReader, media, device=device)

    def way(make: Callable[[], VideoReader], sessions: int, gpu: str | None) -> int:
        with make() if sessions == 1 else ParallelReader(media, make, sessions, 8e9, gpu) as reader:
            return sum(len(batch) for batch in reader.batches(np.arange(args.frames), min(args.batches)))

    print(f"auto: {select_reader(index, 'auto')}")
    ways: dict[str, Way] = {}
    for name, make in makers.items():
        gpu = DEVICE if "cuda" in name else None
        for sessions in args.sessions if gpu is not None or not ON_GPU else [1]:
            label = f"decode {name}, {sessions} session{'s' if sessions > 1 else ''}"
            ways[label] = partial(way, make, sessions, gpu)
    return ways


@torch.inference_mode()
def _stage_ways(detector: UltralyticsDetector, batches: list[FrameBatch], name: str) -> dict[str, Way]:
    num_frames = sum(len(batch) for batch in batches)
    path = detector._torch_path
    inputs = [path._prepare(batch.data)[0] for batch in batches[:1]]
    prediction = detector._loaded.forward(inputs[0]).clone()

    @torch.inference_mode()
    def each(stage: Callable[[FrameBatch], object]) -> int:
        for batch in batches:
            stage(batch)
        return num_frames

    def detect() -> int:
        return sum(len(found) for found in BatchRunner(detector).run(iter(batches), "benchmark"))

    return {
        f"prepare, {name}": partial(each, lambda batch: path._prepare(batch.data)),
        f"forward, {name}": partial(each, lambda batch: detector._loaded.forward(inputs[0][: len(batch)])),
        f"suppress, {name}": partial(each, lambda batch: path._keep(prediction[: len(batch)])),
        f"detect, {name}": detect,
    }


def _run(args: argparse.Namespace, clip: Path, num_videos: int, detector: UltralyticsDetector) -> int:
    """Runs the whole job with weights that are loaded already, as every task after a run's first has them."""
    with tempfile.TemporaryDirectory() as folder:
        videos = Path(folder) / "videos"
        videos.mkdir()
        for number in range(num_videos):
            (videos / f"{number}.mp4").symlink_to(clip)
        values = {
            "source": {"use": "folder", "path": str(videos), "output": f"{folder}/out"},
            "detector": {"use": "ultralytics", "weights": args.weights, "device": DEVICE},
        }
        assembly = assemble(check_config(values, "benchmark"), Path())
        assembly.detection.provider.__dict__["detector"] = detector
        report = run_tasks(assembly, NullProgress(), StopSignal())
    assert not report.failed, report.failed
    return report.num_inferred


def _peer_ways(args: argparse.Namespace, weights: Path, clip: Path) -> dict[str, Way]:
    from ultralytics import YOLO

    model, batch_size = YOLO(str(weights)), min(args.batches)
    options = {"verbose": False, "device": DEVICE, "half": ON_GPU}

    def predict(batch: int) -> int:
        results = model.predict(str(clip), stream=True, batch=batch, **options)
        return sum(result.boxes is not None for result in islice(results, args.peer_frames))

    def one_by_one() -> int:
        import av

        with av.open(str(clip)) as container:
            decoded = islice(container.decode(video=0), args.peer_frames)
            frames = (frame.to_ndarray(format="bgr24") for frame in decoded)
            return sum(len(model.predict(frame, **options)) for frame in frames)

    return {"predict, batch 1": partial(predict, 1), f"predict, batch {batch_size}": partial(predict, batch_size)} | {
        "one by one": one_by_one
    }


def _memory(args: argparse.Namespace, clip: Path) -> dict[str, float]:
    """Returns what the GPU's memory held after a tenth of many frames and after all of them, and at most."""
    if not ON_GPU:
        return {}
    detector = _detector(args, half=True)
    batches = list(_frames_on_device(clip, args.batches[0], args.frames))
    runner, seen, early = BatchRunner(detector), 0, 0.0
    torch.cuda.reset_peak_memory_stats()
    while seen < args.memory_frames:
        seen += sum(len(found) for found in runner.run(iter(batches), "memory"))
        early = early or (torch.cuda.memory_reserved() / 1e6 if seen >= args.memory_frames / 10 else 0.0)
    _wait()
    return {
        "after_a_tenth": round(early, 1),
        "at_the_end": round(torch.cuda.memory_reserved() / 1e6, 1),
        "at_most": round(torch.cuda.max_memory_reserved() / 1e6, 1),
    }


def _save(result: dict, path: Path | None) -> None:
    if path is not None:
        path.write_text(json.dumps(result), encoding="utf-8")


def _print(result: dict) -> None:
    for size, ways in result["sizes"].items():
        table = Table("way", title=f"{size}, {result['machine']}", box=None)
        table.add_column("frames/s", justify="right")
        table.add_column("to the run's limit", justify="right")
        for name, values in ways.items():
            table.add_row(name, f"{values['frames_per_second']:,.1f}", f"{values['ratio_to_limit']:.3f}")
        Console(highlight=False, width=120).print(table)


def _draw(result: dict, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    num_rows = sum(len(ways) for ways in result["sizes"].values())
    figure, axes = plt.subplots(len(result["sizes"]), figsize=(9, 1 + 0.25 * num_rows), squeeze=False)
    for axis, (size, ways) in zip(axes[:, 0], result["sizes"].items(), strict=True):
        names = list(reversed(ways))
        axis.barh(names, [ways[name]["frames_per_second"] for name in names])
        axis.set(title=f"{size}, {result['machine']}", xlabel="frames a second", xscale="log")
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    main()
