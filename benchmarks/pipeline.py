"""Frames a second of the whole run, beside its limit and beside other ways to do the same.

Each way goes over the same clip in turn, round after round, so that a noisy neighbour meets them all; medians count.

    uv run python -m benchmarks.pipeline --clip street.mp4 --weights yolo11n --rounds 5

Ways:
    limit          the detector alone, on frames that are in memory already, all cores on a batch at a time
    streams        the same, as a run has it on a CPU: parts of a batch beside each other, the next batch begun ahead
    decode         the reader alone
    run            `prelabel run`: decode, detect, raw store, label row
    predict        `ultralytics predict(stream=True)` on the file, by batch size and number of threads
    one by one     a frame at a time with the SDK's own object instances, as published agents do it
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from prelabel.runtime.process_settings import set_up_process

set_up_process()  # as the command line does, for all ways alike

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from prelabel.assembly.assemble import Assembly, assemble
from prelabel.config.load import check_config
from prelabel.data.frames import FrameBatch, Media
from prelabel.inference.batch_runner import BatchRunner
from prelabel.labels.row.offline import encord_ontology
from prelabel.media.pyav import PyAVReader
from prelabel.run.runner import run_tasks
from prelabel.runtime.interrupts import StopSignal
from prelabel.runtime.progress import NullProgress

Way = Callable[[], int]


def main() -> None:
    """Measures, prints a table, and ends with one line of JSON."""
    args = _parse()
    torch.set_num_threads(os.cpu_count() or 1)
    assembly = _assembly(args.clip, args.weights, Path(tempfile.mkdtemp()))
    batches = _read_all(args.clip, assembly.detection.batch_size, args.frames)
    num_frames = sum(len(batch) for batch in batches)
    assembly.detection.asked_detector.detect(batches[0])
    assembly.detection.detector.detect(batches[0])
    ways = _ways(args, assembly, batches)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            done = way()
            rates[name].append(done / (time.perf_counter() - began))
    result = {
        "clip": args.clip.name,
        "num_frames": num_frames,
        "rounds": args.rounds,
        "cpu_cores": os.cpu_count(),
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "frames_per_second": {name: round(statistics.median(values), 2) for name, values in rates.items()},
        "ratio_to_limit": _ratios(rates, "limit"),
        "ratio_to_streams": _ratios(rates, "streams"),
        "all": {name: [round(value, 2) for value in values] for name, values in rates.items()},
    }
    _print(result)
    print(json.dumps(result))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--weights", default="yolo11n", help="Ultralytics weights: a card's name or a path")
    parser.add_argument("--frames", type=int, default=160, help="frames of the clip to go over")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--peers", action=argparse.BooleanOptionalAction, default=True, help="measure the other ways too"
    )
    return parser.parse_args()


def _assembly(clip: Path, weights: str, output: Path, last_frame: int | None = None) -> Assembly:
    values = {
        "source": {"use": "folder", "path": str(clip), "output": str(output)},
        "detector": {"use": "ultralytics", "weights": weights, "engine": "torch"},
        "reader": {} if last_frame is None else {"frame_ranges": [[0, last_frame]]},
    }
    return assemble(check_config(values, "benchmark"), Path())


def _read_all(clip: Path, batch_size: int, num_frames: int) -> list[FrameBatch]:
    with PyAVReader(Media("video", (clip,))) as reader:
        wanted = np.arange(min(num_frames, reader.info.num_frames))
        return [
            FrameBatch(batch.data.clone(), batch.frame_indices, batch.pts_seconds)
            for batch in reader.batches(wanted, batch_size)
        ]


def _ways(args: argparse.Namespace, assembly: Assembly, batches: list[FrameBatch]) -> dict[str, Way]:
    num_frames = sum(len(batch) for batch in batches)
    ways: dict[str, Way] = {
        "limit": lambda: sum(len(assembly.detection.asked_detector.detect(batch)) for batch in batches),
        "streams": lambda: sum(map(len, BatchRunner(assembly.detection.detector).run(batches, args.clip.name))),
        "decode": lambda: _decode(args.clip, assembly.detection.batch_size, num_frames),
        "run": lambda: _run(args.clip, args.weights, assembly, num_frames),
    }
    if args.peers:
        from prelabel.models.weights import resolve_weights

        weights = resolve_weights(args.weights).path
        clip = _cut(args.clip, num_frames)
        for threads in sorted({1, os.cpu_count() or 1}):
            for batch_size in (1, 4, 8):
                name = f"predict, batch {batch_size}, {threads} thread{'s' if threads > 1 else ''}"
                ways[name] = _predict(weights, clip, batch_size, threads)
        ways["one by one"] = _one_by_one(weights, args.clip, assembly, batches)
    return ways


def _decode(clip: Path, batch_size: int, num_frames: int) -> int:
    with PyAVReader(Media("video", (clip,))) as reader:
        return sum(len(batch) for batch in reader.batches(np.arange(num_frames), batch_size))


def _run(clip: Path, weights: str, warm: Assembly, num_frames: int) -> int:
    """Runs the whole job with weights that are loaded already, as every task after a run's first has them."""
    torch.set_num_threads(os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as output:
        assembly = _assembly(clip, weights, Path(output), num_frames - 1)
        assembly.detection.provider.__dict__["detector"] = warm.detection.provider.detector
        report = run_tasks(assembly, NullProgress(), StopSignal())
    assert not report.failed, report.failed
    return report.num_inferred


def _predict(weights: Path, clip: Path, batch_size: int, threads: int) -> Way:
    from ultralytics import YOLO

    model = YOLO(str(weights))

    def way() -> int:
        results = model.predict(str(clip), stream=True, batch=batch_size, verbose=False, device="cpu")
        torch.set_num_threads(threads)
        done = 0
        for result in results:
            if not done:
                torch.set_num_threads(threads)  # predict sets its own on its first frame
            _ = result.boxes.xyxy.numpy(), result.boxes.conf.numpy()
            done += 1
        torch.set_num_threads(os.cpu_count() or 1)
        return done

    return way


def _one_by_one(weights: Path, clip: Path, assembly: Assembly, batches: list[FrameBatch]) -> Way:
    """Returns the loop of published agents: decode a frame, predict it, make instances of the SDK's own types."""
    import av
    from encord.objects import LabelRowV2, Object
    from encord.objects.coordinates import BoundingBoxCoordinates
    from encord.orm.storage import CustomerProvidedVideoMetadata
    from ultralytics import YOLO

    model = YOLO(str(weights))
    num_frames = sum(len(batch) for batch in batches)
    height, width = batches[0].data.shape[1:3]
    media = CustomerProvidedVideoMetadata(
        fps=30, duration=num_frames / 30, width=width, height=height, file_size=0, mime_type="video/mp4"
    )

    def way() -> int:
        row = LabelRowV2.from_media_metadata(encord_ontology(assembly.ontology), media)
        structure = row.ontology_structure
        objects = {item.name: structure.get_child_by_title(item.name, Object) for item in assembly.ontology.objects}
        with av.open(str(clip)) as container:
            for number, frame in enumerate(islice(container.decode(video=0), num_frames)):
                found = model.predict(frame.to_ndarray(format="bgr24"), verbose=False, device="cpu")[0].boxes
                for (x, y, w, h), conf, class_id in zip(found.xywhn.tolist(), found.conf, found.cls, strict=True):
                    instance = objects[model.names[int(class_id)]].create_instance()
                    box = BoundingBoxCoordinates(height=h, width=w, top_left_x=x - w / 2, top_left_y=y - h / 2)
                    instance.set_for_frames(box, number, confidence=float(conf), manual_annotation=False)
                    row.add_object_instance(instance)
        row.to_encord_dict()
        torch.set_num_threads(os.cpu_count() or 1)
        return num_frames

    return way


def _cut(clip: Path, num_frames: int) -> Path:
    """Returns the clip's first frames as a file of their own, its packets untouched."""
    import av

    target = Path(tempfile.mkdtemp()) / clip.name
    with av.open(str(clip)) as source, av.open(str(target), "w") as output:
        stream = source.streams.video[0]
        copy = output.add_stream_from_template(stream)
        for number, packet in enumerate(source.demux(stream)):
            if packet.dts is None or number == num_frames:
                break
            packet.stream = copy
            output.mux(packet)
    return target


def _ratios(rates: dict[str, list[float]], base: str) -> dict[str, float]:
    """Returns the median over rounds of each way's rate by that of `base` in the same round."""
    return {
        name: round(statistics.median(value / limit for value, limit in zip(values, rates[base], strict=True)), 3)
        for name, values in rates.items()
    }


def _print(result: dict) -> None:
    table = Table(
        "way", title=f"{result['clip']}, {result['num_frames']} frames, {result['cpu_cores']} cores", box=None
    )
    table.add_column("frames/s", justify="right")
    table.add_column("to limit", justify="right")
    table.add_column("to streams", justify="right")
    for name, rate in result["frames_per_second"].items():
        ratios = (result[f"ratio_to_{base}"][name] for base in ("limit", "streams"))
        table.add_row(name, f"{rate:.1f}", *(f"{ratio:.3f}" for ratio in ratios))
    Console(highlight=False).print(table)


if __name__ == "__main__":
    main()
