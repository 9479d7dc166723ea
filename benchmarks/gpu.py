"""Each stage alone and the whole run beside it, by reader, sessions, resolution, batch, precision and number of videos.

It says which way of each kind is best.

Everything that is compared runs in turn, round after round; medians count, and ratios are taken within a round. The
limit of a run is the slower of decoding alone and detecting alone. Runs on a GPU where there is one, else on the CPU.

    python -m benchmarks.gpu --weights yolo11n --frames 1200 --videos 1 8 --sizes 1080 720 --picture gpu.svg

No round is begun that would not end within `--seconds`; what is known after each is in the file that `--json` names.

Ways:
    decode READER, SESSIONS       a reader alone, frames left where it puts them; by batch if there are several sessions
    prepare NV12 or RGB           the network's input, on the device, by the kernel or in torch; by batch and precision
    forward, suppress             of the detector, on inputs that are on its device
    detect                        RGB to boxes on the host, one batch begun ahead
    run                           `prelabel run`: decode, detect, raw store, label row; with most videos also by reader,
                                  with the kernel and in torch
    predict                       `ultralytics predict(stream=True)` on the file's first frames
    one by one                    the same, a decoded frame at a time
"""

from __future__ import annotations

import argparse
import html
import itertools
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
from unittest import mock

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
from prelabel.data.surfaces import Surfaces
from prelabel.inference.batch_runner import BatchRunner
from prelabel.media import decord, nvdec, torchcodec
from prelabel.media.choose import select_reader
from prelabel.media.cuda import count_engines
from prelabel.media.index import index_video
from prelabel.media.parallel import ParallelReader
from prelabel.models.detectors import preprocess
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
        "best": {},
    }
    for size in args.sizes:
        clip = write_moving_clip(folder / f"{size}p.mp4", size, args.frames)
        for num_rounds, rows in enumerate(_measure_size(args, clip, until)):
            result["sizes"][f"{size}p"], result["rounds"][f"{size}p"] = rows, num_rounds
            result["best"][f"{size}p"] = _best_ways(rows)
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
    parser.add_argument("--memory-videos", type=int, default=50, help="videos to watch the GPU's memory over")
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--peer-frames", type=int, default=300, help="frames that the other ways go over at most")
    parser.add_argument("--picture", type=Path, help="an SVG of the table")
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
    for reader, name in itertools.product(_readers(clip), _preparations()):
        ways[f"run, {max(args.videos)} videos, {reader}, {name}"] = _prepared(
            name, partial(_run, args, clip, max(args.videos), detectors[main_precision], reader)
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


def _best_ways(rows: dict[str, dict[str, float]]) -> dict[str, str]:
    """Returns the fastest way of each kind: decode, prepare NV12, prepare RGB, detect, and run by number of videos."""
    best: dict[str, str] = {}
    for name, row in rows.items():
        words = name.replace(",", "").split()
        kind = " ".join(words[: {"prepare": 2, "run": 3}.get(words[0], 1)])
        if kind not in best or row["frames_per_second"] > rows[best[kind]]["frames_per_second"]:
            best[kind] = name
    return {kind: name for kind, name in best.items() if kind.startswith(("decode", "prepare", "detect", "run"))}


def _readers(clip: Path) -> list[str]:
    """Returns the readers that decode a clip on the GPU here; on a CPU, none."""
    index = index_video(clip)
    refusals = {
        "decord": decord.probe(0) or decord.refuse(index, on_gpu=True),
        "nvdec": nvdec.probe() or nvdec.refuse(index),
        "torchcodec": torchcodec.probe("cuda") or torchcodec.refuse(index, on_gpu=True),
    }
    return [name for name, refusal in refusals.items() if refusal is None] if ON_GPU else []


def _preparations() -> list[str]:
    """Returns the ways to make the network's input that this machine has."""
    has_kernel = ON_GPU and preprocess.is_kernel_right(torch.device(DEVICE))
    return ["kernel", "torch"] if has_kernel else ["torch"]


def _prepared(preparation: str, way: Way) -> Way:
    """Returns a way that makes the network's input by the kernel or in torch."""

    def prepared() -> int:
        with mock.patch.object(preprocess, "is_kernel_right", return_value=preparation == "kernel"):
            return way()

    return prepared


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
    on_gpu: dict[str, Callable[[], VideoReader]] = {
        "decord": partial(DecordReader, media, device="cuda"),
        "nvdec": partial(nvdec.NvdecReader, media),
        "torchcodec": partial(TorchCodecReader, media, device="cuda"),
    }
    makers |= {f"{name}, cuda": on_gpu[name] for name in _readers(clip)}
    if not ON_GPU and torchcodec.probe("cpu") is None and torchcodec.refuse(index, on_gpu=False) is None:
        makers["torchcodec, cpu"] = partial(TorchCodecReader, media, device="cpu")

    def way(make: Callable[[], VideoReader], sessions: int, gpu: str | None, batch_size: int) -> int:
        with make() if sessions == 1 else ParallelReader(media, make, sessions, 8e9, gpu) as reader:
            return sum(len(batch) for batch in reader.batches(np.arange(args.frames), batch_size))

    print(f"auto: {select_reader(index, 'auto')}")
    ways: dict[str, Way] = {}
    for name, make in makers.items():
        gpu = DEVICE if "cuda" in name else None
        for sessions in args.sessions if gpu is not None or not ON_GPU else [1]:
            label = f"decode {name}, {sessions} session{'s' if sessions > 1 else ''}"
            for size in args.batches if sessions > 1 else args.batches[:1]:
                ways[f"{label}, batch {size}"] = partial(way, make, sessions, gpu, size)
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

    surfaces = [_as_surfaces(batch) for batch in batches]

    @torch.inference_mode()
    def prepare(sources: list[torch.Tensor | Surfaces]) -> int:
        for source in sources:
            path._prepare(source)
        return num_frames

    prepare_ways = {
        f"prepare {source}, {preparation}, {name}": _prepared(preparation, partial(prepare, sources))
        for source, sources in {"NV12": surfaces, "RGB": [batch.data for batch in batches]}.items()
        for preparation in _preparations()
    }
    return prepare_ways | {
        f"forward, {name}": partial(each, lambda batch: detector._loaded.forward(inputs[0][: len(batch)])),
        f"suppress, {name}": partial(each, lambda batch: path._keep(prediction[: len(batch)])),
        f"detect, {name}": detect,
    }


def _as_surfaces(batch: FrameBatch) -> Surfaces:
    """Returns NV12 surfaces of a batch's size; their content is noise."""
    num, height, width, _ = batch.shape
    planes = torch.randint(0, 256, (num, height * 3 // 2, width), dtype=torch.uint8, device=DEVICE)
    return Surfaces(planes, "bt709", is_full_range=False)


def _run(
    args: argparse.Namespace, clip: Path, num_videos: int, detector: UltralyticsDetector, reader: str = "auto"
) -> int:
    """Runs the whole job with weights that are loaded already, as every task after a run's first has them."""
    with tempfile.TemporaryDirectory() as folder:
        videos = Path(folder) / "videos"
        videos.mkdir()
        for number in range(num_videos):
            (videos / f"{number}.mp4").symlink_to(clip)
        values = {
            "source": {"use": "folder", "path": str(videos), "output": f"{folder}/out"},
            "detector": {"use": "ultralytics", "weights": args.weights, "device": DEVICE},
            "reader": {"use": reader},
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
    """Returns what all of the GPU's memory held after a tenth of many videos and after all of them."""
    if not ON_GPU:
        return {}
    detector, reader = _detector(args, half=True), (_readers(clip) or ["auto"])[0]
    memory: dict[str, float] = {}
    for num_videos in (args.memory_videos // 10, args.memory_videos):
        _run(args, clip, num_videos, detector, reader)
        free, total = torch.cuda.mem_get_info()
        memory[f"after_{num_videos}_videos"] = round((total - free) / 1e6, 1)
    return memory


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
        for kind, name in result["best"][size].items():
            print(f"best to {kind}: {name}")


def _draw(result: dict, path: Path) -> None:
    """Writes the table as bars, with the best of each kind in colour. Machines with torch alone have no matplotlib."""
    bars: list[str] = []
    for size, ways in result["sizes"].items():
        best = set(result["best"][size].values())
        fastest = max(row["frames_per_second"] for row in ways.values())
        bars.append(_text(0, len(bars), f"{size}, {result['machine']}, frames a second"))
        for name, row in ways.items():
            rate, y = row["frames_per_second"], len(bars) * 20
            colour = "#0a7" if name in best else "#bbb"
            bar = f'<rect x="380" y="{y + 4}" width="{rate / fastest * 420:.1f}" height="13" fill="{colour}"/>'
            bars.append(_text(10, len(bars), name) + bar + _text(385, len(bars), f"{rate:,.0f}"))
    size_in_pixels = f'width="860" height="{len(bars) * 20 + 10}"'
    style = 'font-family="sans-serif" font-size="12"'
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" {size_in_pixels} {style}>{"".join(bars)}</svg>', encoding="utf-8"
    )


def _text(x: int, line: int, text: str) -> str:
    return f'<text x="{x}" y="{line * 20 + 15}">{html.escape(text)}</text>'


if __name__ == "__main__":
    main()
