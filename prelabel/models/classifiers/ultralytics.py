"""Classifiers of Ultralytics: YOLO checkpoints whose name ends in -cls."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from prelabel.errors import MachineError, WeightsError
from prelabel.models.classifiers.forward import Preparation, forward
from prelabel.models.devices import pick_device
from prelabel.models.ultralytics_models import contained, load_checkpoint, names_in_order
from prelabel.models.weights import resolve_weights
from prelabel.plugins.protocols import ModelRecord
from prelabel.plugins.traits import ModelTraits

_DEFAULT_IMGSZ = 224


class UltralyticsClassifier:
    """Runs an Ultralytics classification checkpoint on whole batches.

    It calls the network directly and gives the same probabilities as `predict`.

    Attributes:
        class_names: names by class id.
        traits: the model and the batch size.
    """

    class Options(BaseModel):
        """Named as in Ultralytics.

        Attributes:
            weights: a card's name, a path or an address: a .pt checkpoint for classification.
            imgsz: side in pixels of the square that the network sees; by default what it was trained on.
            device: auto, cpu, cuda or cuda:N.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)

        weights: str
        imgsz: int | None = Field(default=None, ge=32)
        device: str = "auto"

    def __init__(self, **options: object) -> None:
        asked = self.Options.model_validate(options)
        self._device = pick_device(asked.device)
        weights = resolve_weights(asked.weights)
        network, checkpoint = _load(weights.path)
        self.class_names: Sequence[str] = names_in_order(network.names)
        self._preparation = _preparation_of(network, checkpoint, asked.imgsz)
        self._network = network.float().fuse().eval().to(self._device)
        record = ModelRecord(weights.name, weights.sha256, weights.licence or checkpoint.get("license"))
        self.traits = ModelTraits(model=record, batch_size=32 if self._device.type == "cpu" else 128)

    def classify(self, images: Sequence[torch.Tensor]) -> NDArray[np.float32]:
        """Returns the network's probabilities, float32 (N, C)."""
        if not images:
            return np.zeros((0, len(self.class_names)), np.float32)
        outputs = forward(self._network, self._preparation, images, self._device)
        # In evaluation mode the head returns the probabilities first, then the logits.
        probabilities = outputs[0] if isinstance(outputs, tuple | list) else outputs
        found: NDArray[np.float32] = probabilities.float().cpu().numpy()
        return found


def _load(path: Path) -> tuple[torch.nn.Module, dict[str, Any]]:
    if importlib.util.find_spec("ultralytics") is None:
        raise MachineError(
            "classifier 'ultralytics' needs the package ultralytics (AGPL-3.0): uv add ultralytics, or use: torchvision"
        )
    if path.suffix.lower() != ".pt":
        raise WeightsError(f"{path}: got {path.suffix or 'a file without suffix'}, expected a .pt checkpoint")
    with contained():
        network, checkpoint = load_checkpoint(path)
    task = getattr(network, "task", None)
    if task != "classify":
        raise WeightsError(f"{path}: holds a model for {task!r}, expected one for 'classify', such as yolo11n-cls")
    return network, checkpoint


def _preparation_of(network: torch.nn.Module, checkpoint: dict[str, Any], imgsz: int | None) -> Preparation:
    """Returns the preparation that is saved with a network, or else the default of Ultralytics."""
    from torchvision import transforms

    trained_on = (checkpoint.get("train_args") or {}).get("imgsz")
    side = imgsz or (trained_on if isinstance(trained_on, int) else _DEFAULT_IMGSZ)
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    for step in getattr(getattr(network, "transforms", None), "transforms", ()):
        if isinstance(step, transforms.Normalize):
            mean, std = tuple(map(float, step.mean)), tuple(map(float, step.std))
    return Preparation(side, side, transforms.InterpolationMode.BILINEAR, mean, std)
