"""Classifiers of Ultralytics: YOLO checkpoints whose name ends in -cls."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prelabel.errors import MachineError, WeightsError
from prelabel.models.classifiers.base import ClassifierFacts, ClassifierOptions, NetworkClassifier
from prelabel.models.classifiers.preparation import Preparation
from prelabel.models.ultralytics_models import contained, load_checkpoint, names_in_order
from prelabel.models.weights import Weights

if TYPE_CHECKING:
    import torch

_DEFAULT_IMGSZ = 224


class UltralyticsClassifier(NetworkClassifier):
    """Runs an Ultralytics classification checkpoint on whole batches.

    It calls the network directly and gives the same probabilities as `predict`.
    """

    packages = ("torch", "ultralytics")

    class Options(ClassifierOptions):
        """Named as in Ultralytics.

        Attributes:
            weights: a card's name, a path or an address: a .pt checkpoint for classification.
            imgsz: side in pixels of the square that the network sees; by default what it was trained on.
        """

    def _variant(self, weights: Weights) -> str:
        return "classify"

    def _build(self, weights: Weights) -> tuple[torch.nn.Module, ClassifierFacts]:
        network, checkpoint = _load(weights.path)
        preparation = _preparation_of(network, checkpoint, self._options.imgsz)
        facts = ClassifierFacts(tuple(names_in_order(network.names)), preparation, checkpoint.get("license"))
        network.model[-1].export = True  # the head then returns the probabilities alone, without the logits
        return network.float().fuse().eval(), facts


def _load(path: Path) -> tuple[Any, dict[str, Any]]:
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
    return Preparation(side, side, "bilinear", mean, std)
