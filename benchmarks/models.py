"""Measures how fast each model labels 1080p video here, and prints the table of models for README.

    uv run python -m benchmarks.models --clip street.mp4 --frames 48 --rounds 3

Speed does not depend on the values of the weights, so each network is made with random ones and run by
`prelabel run` with the defaults of its adapter. AP and licence are those of the model card, as its publisher gives
them. Models take turns, round after round; medians of the frames/s in report.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import torchvision
import yaml
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
NAMES = [
    "yolo11n",
    "yolo26n",
    "yolo26s",
    "ssdlite320_mobilenet_v3_large",
    "fcos_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "fasterrcnn_resnet50_fpn_v2",
]


def main() -> None:
    """Measures, prints a table in Markdown, and ends with one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=NAMES)
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    taken: dict[str, list[float]] = {name: [] for name in args.models}
    with tempfile.TemporaryDirectory() as folder:
        made = {name: _make(name, Path(folder)) for name in args.models}
        for number in range(args.rounds):
            for name in args.models if number % 2 == 0 else args.models[::-1]:
                taken[name].append(_pace(args, made[name], Path(folder) / "out"))
    table = Table("weights", "parameters, million", "AP, publisher's", "licence", "frames/s", box=None)
    for name, (_, millions) in made.items():
        card = yaml.safe_load((ROOT / "models" / f"{name}.yaml").read_text())
        pace = statistics.median(taken[name])
        table.add_row(name, f"{millions:.1f}", str(card["score"]).split()[0], card["licence"], f"{pace:.1f}")
    Console(highlight=False).print(table)
    print(json.dumps({"frames": args.frames, "frames_per_second": taken, "cores": os.cpu_count()}))


def _make(name: str, folder: Path) -> tuple[dict[str, object], float]:
    """Returns the config section of a network with random weights, and its parameters in millions."""
    card = yaml.safe_load((ROOT / "models" / f"{name}.yaml").read_text())
    path = folder / f"{name}.pt"
    if card["use"] == "ultralytics":
        from ultralytics import YOLO

        model = YOLO(f"{name}.yaml")
        model.save(str(path))
        section: dict[str, object] = {"use": "ultralytics", "weights": str(path)}
        network: torch.nn.Module = model.model
    else:
        network = getattr(torchvision.models.detection, card["builder"])(weights=None, weights_backbone=None)
        torch.save(network.state_dict(), path)
        section = {"use": "torchvision", "weights": str(path), "builder": card["builder"]}
    return section, sum(parameter.numel() for parameter in network.parameters()) / 1e6


def _pace(args: argparse.Namespace, made: tuple[dict[str, object], float], output: Path) -> float:
    config = output.parent / "config.yaml"
    values = {
        "source": {"path": str(args.clip.resolve()), "output": str(output)},
        "reader": {"frame_ranges": [[0, args.frames - 1]]},
        "detector": {**made[0], "conf": 0.9},  # few boxes pass, as with trained weights
    }
    config.write_text(json.dumps(values))
    command = [sys.executable, "-m", "prelabel", "run", str(config)]
    subprocess.run(["rm", "-rf", str(output)], check=True)
    subprocess.run(command, check=True, capture_output=True)
    return float(json.loads((output / "report.json").read_text())["frames_per_second"])


if __name__ == "__main__":
    main()
