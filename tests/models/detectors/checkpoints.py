"""Checkpoints that nobody trained, made offline from the architectures that the libraries ship."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from prelabel import FrameBatch

os.environ.setdefault("YOLO_OFFLINE", "true")  # these tests import ultralytics by themselves, too


def make_checkpoint(architecture: str, folder: Path) -> Path:
    """Writes an Ultralytics checkpoint whose random head finds boxes of many classes and confidences."""
    from ultralytics import RTDETR, YOLO

    torch.manual_seed(0)
    model = (RTDETR if "rtdetr" in architecture else YOLO)(f"{architecture}.yaml")
    if "rtdetr" not in architecture:
        _settle_statistics(model.model)
        _spread_confidences(model.model.model[-1])
    model.model.names = {index: f"class {index}" for index in range(80)}
    path = folder / f"{architecture}.pt"
    model.save(path)
    return path


def _settle_statistics(network: torch.nn.Module) -> None:
    """Without it every layer's output is smaller than the one before, and all boxes are alike."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.from_numpy(blocky_frames(2, 96, 160)).permute(0, 3, 1, 2) / 255)
    network.eval()


def _spread_confidences(head: torch.nn.Module) -> None:
    for branch in ("cv3", "one2one_cv3"):
        for layers in getattr(head, branch, None) or ():
            torch.nn.init.normal_(layers[-1].weight, std=0.3)
            torch.nn.init.constant_(layers[-1].bias, -4.0)
    if getattr(head, "reg_max", None) == 1:  # sides come as they are, and may be negative
        for branch in ("cv2", "one2one_cv2"):
            for layers in getattr(head, branch, None) or ():
                torch.nn.init.normal_(layers[-1].weight, std=0.002)
                torch.nn.init.constant_(layers[-1].bias, 2.0)


def blocky_frames(num: int, height: int = 180, width: int = 320) -> np.ndarray:
    """Returns uint8 (num, height, width, 3) of coloured blocks."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (num, -(-height // 12), -(-width // 12), 3), dtype=np.uint8)
    return np.ascontiguousarray(blocks.repeat(12, axis=1).repeat(12, axis=2)[:, :height, :width])


def as_batch(frames: np.ndarray) -> FrameBatch:
    indices = np.arange(len(frames))
    return FrameBatch(torch.from_numpy(frames), indices, indices / 25.0)


def make_word_checkpoint(architecture: str, folder: Path) -> Path:
    """Writes a YOLO-World or YOLOE checkpoint whose random head finds boxes of any word."""
    from ultralytics import YOLO

    torch.manual_seed(0)
    model = YOLO(f"{architecture}.yaml")
    network = model.model
    _settle_statistics(network)
    for branch in ("cv4", "one2one_cv4"):
        for contrast in getattr(network.model[-1], branch, None) or ():
            torch.nn.init.constant_(contrast.bias, -2.0)
            torch.nn.init.constant_(contrast.logit_scale, -5.0)
    network.names, network.task = {index: f"class {index}" for index in range(80)}, model.task
    path = folder / f"{architecture}.pt"
    model.save(path)
    return path


_TELL_IMPORTS = """
import json, sys
from prelabel.cli.app import main
try:
    main()
finally:
    print(json.dumps([name for name in ("torch", "torchvision", "ultralytics", "supervision") if name in sys.modules]))
"""


def heavy_imports(*arguments: object) -> list[str]:
    """Runs a command in a new process; returns which packages it imported, of those that take seconds."""
    command = [sys.executable, "-c", _TELL_IMPORTS, *map(str, arguments)]
    told = subprocess.run(command, check=True, capture_output=True, text=True)
    imported: list[str] = json.loads(told.stdout.splitlines()[-1])
    return imported
