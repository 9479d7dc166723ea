"""Measures each model on 1080p video and on labelled pictures, and prints the table of docs/models.md.

    uv run python -m benchmarks.models --clip street.mp4 --pictures coco_mini.mp4 --truth coco_mini.json \
        --weights yolo11n.pt

The cost is the processor time of one frame in memory on one thread: to prepare it, to run the network with the
defaults of its adapter, and to read the boxes. Weights that are not given are random ones, since the cost does not
depend on their values. The score is AP over IoU 0.50 to 0.95 of `prelabel run` on the pictures, for the given weights
only. Models take turns, round after round; medians. AP and licence of the model card are those of its publisher.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
import yaml
from rich.console import Console
from rich.table import Table

from prelabel import Detector, FrameBatch, Media
from prelabel.config.sections import ReaderSection
from prelabel.media.open import open_frames
from prelabel.plugins.load import load_plugin

ROOT = Path(__file__).parents[1]
BATCH_SIZE = 4
NAMES = [
    "yolo11n",
    "yolo26n",
    "yolo26s",
    "ssdlite320_mobilenet_v3_large",
    "fcos_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "fasterrcnn_resnet50_fpn_v2",
]


@dataclass
class Model:
    """A model of the table.

    Attributes:
        card: the model card.
        section: its section `detector`.
        millions: parameters.
        ap: on the pictures; None without its weights.
        cost_ms: processor time a frame, in each round.
    """

    card: dict[str, Any]
    section: dict[str, object]
    millions: float
    ap: float | None = None
    cost_ms: list[float] = field(default_factory=list)


def main() -> None:
    """Measures, prints a table in Markdown, and ends with one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--pictures", type=Path, help="a video of labelled pictures")
    parser.add_argument("--truth", type=Path, help="COCO file about it, whose image ids are frame numbers")
    parser.add_argument("--weights", type=Path, nargs="*", default=[], help="files whose names begin with a card's")
    parser.add_argument("--models", nargs="+", default=NAMES)
    parser.add_argument("--batches", type=int, default=4, help=f"of {BATCH_SIZE} frames, in a round")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)  # threads that wait for each other would count
    with tempfile.TemporaryDirectory() as folder:
        models = {name: _make(name, Path(folder), args.weights) for name in args.models}
        for name, model in models.items():
            if args.pictures is not None and any(path.name.startswith(name) for path in args.weights):
                model.ap = _score(args.pictures, args.truth, model, Path(folder))
        batches = _frames(args.clip, args.batches)
        detectors = {name: _build(model) for name, model in models.items()}
        for detector in detectors.values():
            detector.detect(batches[0])
        for number in range(args.rounds):
            for name in list(models)[:: 1 if number % 2 == 0 else -1]:
                models[name].cost_ms.append(_cost_ms(detectors[name], batches))
    table = Table("weights", "million parameters", "AP, publisher's", "AP here", "ms a frame", "licence", box=None)
    for name, model in models.items():
        published, here = str(model.card["score"]).split()[0], "" if model.ap is None else f"{100 * model.ap:.1f}"
        cost = f"{statistics.median(model.cost_ms):.0f}"
        table.add_row(name, f"{model.millions:.1f}", published, here, cost, model.card["licence"])
    Console(highlight=False).print(table)
    costs = {name: [round(cost, 1) for cost in model.cost_ms] for name, model in models.items()}
    print(json.dumps({"frames": args.batches * BATCH_SIZE, "cost_ms": costs, "cores": os.cpu_count()}))


def _make(name: str, folder: Path, weights: list[Path]) -> Model:
    """Returns a model with the given weights that bear its name, or else with random ones."""
    card = yaml.safe_load((ROOT / "models" / f"{name}.yaml").read_text())
    given = next((path for path in weights if path.name.startswith(name)), None)
    path = folder / f"{name}.pt" if given is None else given.resolve()
    section: dict[str, object] = {"use": card["use"], "weights": str(path)}
    if card["use"] == "ultralytics":
        from ultralytics import RTDETR, YOLO

        model = (RTDETR if "rtdetr" in name else YOLO)(f"{name}.yaml")
        network: torch.nn.Module = model.model
        if given is None:
            model.save(str(path))
    else:
        network = getattr(torchvision.models.detection, card["builder"])(weights=None, weights_backbone=None)
        section["builder"] = card["builder"]
        if given is None:
            _favour_background(network)
            torch.save(network.state_dict(), path)
    return Model(card, section, sum(parameter.numel() for parameter in network.parameters()) / 1e6)


def _favour_background(network: Any) -> None:
    """Makes a random SSD as sure of the background as a trained one; otherwise NMS over all classes takes most time."""
    head: Any = getattr(getattr(network, "head", None), "classification_head", None)  # Faster R-CNN has no `head`
    for layer in getattr(head, "module_list", ()):
        torch.nn.init.constant_(layer[-1].bias.data[:: head.num_columns], 10.0)


def _build(model: Model) -> Detector:
    """Returns the detector of a model; few boxes pass its threshold, as with trained weights."""
    options = {**model.section, "conf": 0.9, "raw_conf": 0.9}
    plugin = load_plugin("detector", str(options.pop("use")), Path())
    detector: Detector = plugin.build(options=options)
    return detector


def _score(pictures: Path, truth: Path, model: Model, folder: Path) -> float:
    """Returns AP over IoU 0.50 to 0.95 on labelled pictures."""
    known = json.loads(truth.read_text())
    known["images"] = [{**image, "video": pictures.name, "frame_index": image["id"]} for image in known["images"]]
    (folder / "truth.json").write_text(json.dumps(known))
    source = {"path": str(pictures.resolve()), "truth": str(folder / "truth.json")}
    report = _run(folder, {"source": source, "detector": {**model.section, "conf": 0.001, "raw_conf": 0.001}})
    return float(report["score"]["map_50_95"])


def _cost_ms(detector: Detector, batches: list[FrameBatch]) -> float:
    """Returns the processor time of a frame, in milliseconds."""
    began = time.process_time()
    for batch in batches:
        detector.detect(batch)
    return 1000 * (time.process_time() - began) / sum(map(len, batches))


def _frames(clip: Path, num_batches: int) -> list[FrameBatch]:
    """Returns the first frames of a video in batches."""
    wanted = np.arange(num_batches * BATCH_SIZE)
    with open_frames(Media("video", (clip,)), ReaderSection(use="pyav", isolate="never"), Path()) as opened:
        return list(opened.batches(wanted, BATCH_SIZE))


def _run(folder: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Runs a config and returns its report."""
    output, config = folder / "out", folder / "config.yaml"
    shutil.rmtree(output, ignore_errors=True)
    config.write_text(json.dumps({**values, "source": {**values["source"], "output": str(output)}}))
    command = [sys.executable, "-m", "prelabel", "run", str(config)]
    subprocess.run(command, check=True, capture_output=True)
    report: dict[str, Any] = json.loads((output / "report.json").read_text())
    return report


if __name__ == "__main__":
    main()
