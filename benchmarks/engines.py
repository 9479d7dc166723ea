"""What runs the network: torch, ONNX Runtime, OpenVINO, TensorRT; their pace, and the score they keep.

Each goes over the same frames in turn, round after round; medians count. The score is COCO's mAP on pictures; boxes
of the ground truth lie `offset_x` and `offset_y` pixels off, as in a COCO file that was made for a clip of them.

    uv run python -m benchmarks.engines --weights yolo11n --clip street.mp4 --truth coco_mini.json --pictures images/
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path

from prelabel.runtime.process_settings import set_up_process

set_up_process()  # as the command line does, for all ways alike

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from prelabel.data.detections import Detections
from prelabel.data.frames import FrameBatch, Media
from prelabel.inference.batch_runner import BatchRunner
from prelabel.media.pyav import PyAVReader
from prelabel.models.detectors.ultralytics import UltralyticsDetector
from prelabel.models.replicas import count_streams, on_streams
from prelabel.plugins.protocols import Detector

ENGINES: dict[str, dict[str, object]] = {
    "torch": {"engine": "torch"},
    "onnx": {"engine": "onnx"},
    "openvino": {"engine": "openvino", "half": False},
    "openvino, bfloat16": {"engine": "openvino", "half": True},
}
ENGINES_ON_A_GPU: dict[str, dict[str, object]] = {
    "torch": {"engine": "torch"},
    "torch, float32": {"engine": "torch", "half": False},
    "onnx": {"engine": "onnx"},
    "tensorrt": {"engine": "tensorrt"},
}


def main() -> None:
    """Measures, prints a table, and ends with one line of JSON."""
    args = _parse()
    torch.set_num_threads(os.cpu_count() or 1)
    detectors = _detectors(args)
    batches = _read(args.clip, args.batch_size, args.frames)
    ways: dict[str, Detector] = {**detectors}
    num_streams = count_streams(detectors["torch"], "auto")
    if num_streams > 1:
        ways["torch, in streams"] = on_streams(detectors["torch"], num_streams)
    wall: dict[str, list[float]] = {name: [] for name in ways}
    processor: dict[str, list[float]] = {name: [] for name in ways}
    for detector in ways.values():
        detector.detect(batches[0])
    for _ in range(args.rounds):
        for name, detector in ways.items():
            began, began_processor = time.perf_counter(), time.process_time()
            num_frames = sum(map(len, BatchRunner(detector).run(batches, args.clip.name)))
            wall[name].append(1000 * (time.perf_counter() - began) / num_frames)
            processor[name].append(1000 * (time.process_time() - began_processor) / num_frames)
    result = {
        "weights": args.weights,
        "clip": args.clip.name,
        "batch_size": args.batch_size,
        "machine": _machine(args.device),
        "engines": {
            name: detector.traits.model.engine if detector.traits.model else None
            for name, detector in detectors.items()
        },
        "ms_a_frame": {name: round(statistics.median(values), 2) for name, values in wall.items()},
        "processor_ms_a_frame": {name: round(statistics.median(values), 2) for name, values in processor.items()},
        "times_as_fast_as_torch": {
            name: round(statistics.median(a / b for a, b in zip(wall["torch"], values, strict=True)), 3)
            for name, values in wall.items()
        },
        "map": _scores(args),
    }
    _print(result)
    print(json.dumps(result))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--weights", default="yolo11n", help="Ultralytics checkpoint: a card's name or a path")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--truth", type=Path, help="COCO ground truth; without it no score")
    parser.add_argument("--pictures", type=Path, help="folder of the pictures that the truth names")
    return parser.parse_args()


def _detectors(args: argparse.Namespace, **options: object) -> dict[str, UltralyticsDetector]:
    """Returns a detector for each engine that can be had here."""
    engines = ENGINES_ON_A_GPU if args.device != "cpu" and torch.cuda.is_available() else ENGINES
    detectors = {}
    for name, engine in engines.items():
        try:
            detector = UltralyticsDetector(weights=args.weights, device=args.device, **engine, **options)
        except Exception as error:
            print(f"{name}: not here: {error}")
            continue
        if detector.warnings:
            print(f"{name}: not here: {detector.warnings[0]}")
            continue
        detectors[name] = detector
    return detectors


def _read(clip: Path, batch_size: int, num_frames: int) -> list[FrameBatch]:
    with PyAVReader(Media("video", (clip,))) as reader:
        wanted = np.arange(min(num_frames, reader.info.num_frames))
        return [
            FrameBatch(batch.data.clone(), batch.frame_indices, batch.pts_seconds)
            for batch in reader.batches(wanted, batch_size)
        ]


def _scores(args: argparse.Namespace) -> dict[str, float]:
    if args.truth is None:
        return {}
    truth = json.loads(args.truth.read_text())
    batches = []
    for image in truth["images"]:
        picture = np.array(Image.open(args.pictures / image["file_name"]).convert("RGB"))
        batches.append(FrameBatch(torch.from_numpy(picture[None]), np.zeros(1, np.int64), np.zeros(1)))
    scores = {}
    for name, detector in _detectors(args, conf=0.001, raw_conf=0.001).items():
        found = [detections for batch in batches for detections in detector.detect(batch)]
        scores[name] = round(_average_precision(truth, found, tuple(detector.class_names)), 4)
    return scores


def _average_precision(truth: dict, found: list[Detections], class_names: tuple[str, ...]) -> float:
    from faster_coco_eval import COCO, COCOeval_faster

    ids = {category["name"]: category["id"] for category in truth["categories"]}
    rows = [
        {
            "image_id": image["id"],
            "category_id": ids[class_names[class_id]],
            "bbox": [x1 + image["offset_x"], y1 + image["offset_y"], x2 - x1, y2 - y1],
            "score": float(confidence),
        }
        for image, detections in zip(truth["images"], found, strict=True)
        for (x1, y1, x2, y2), confidence, class_id in zip(
            detections.xyxy.tolist(), detections.confidence, detections.class_id, strict=True
        )
        if class_names[class_id] in ids
    ]
    coco = COCO(truth)
    evaluation = COCOeval_faster(coco, coco.loadRes(rows), "bbox", print_function=lambda *_: None)
    evaluation.run()
    return float(evaluation.stats[0])


def _machine(device: str) -> str:
    if device != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def _print(result: dict) -> None:
    title = f"{result['clip']}, batches of {result['batch_size']}, {result['machine']}"
    table = Table("engine", title=title, box=None)
    for heading in ("ms a frame", "processor ms", "times torch", "mAP"):
        table.add_column(heading, justify="right")
    for name, milliseconds in result["ms_a_frame"].items():
        cells = (
            result["processor_ms_a_frame"][name],
            result["times_as_fast_as_torch"][name],
            result["map"].get(name, ""),
        )
        table.add_row(name, f"{milliseconds:.1f}", *map(str, cells))
    Console(highlight=False).print(table)


if __name__ == "__main__":
    main()
