"""The base class of classifiers that run a network: options, weights, engine, batches.

In OpenVINO, a network is exported once. Later runs need neither torch nor the library that built the network.
"""

from __future__ import annotations

import json
import logging
import platform
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from prelabel.data.frames import Frames
from prelabel.errors import ConfigError, MachineError
from prelabel.models.classifiers.preparation import Preparation
from prelabel.models.devices import DeviceName, name_device
from prelabel.models.engines import EngineKey, built_engine, package_version
from prelabel.models.openvino import PixelSession, cpu_has_bfloat16
from prelabel.models.weights import Weights, resolve_weights
from prelabel.plugins.protocols import ModelRecord
from prelabel.plugins.traits import ModelTraits

if TYPE_CHECKING:
    import torch

# Larger batches are slower on a CPU: the activations between two layers no longer fit into its caches.
_CPU_BATCH, _GPU_BATCH = 16, 128
_GRAPH, _FACTS = "model.onnx", "model.json"
_log = logging.getLogger(__name__)

Network: TypeAlias = Callable[[Sequence[Frames]], NDArray[np.float32]]
"""Takes images as `Preparation.crop` returns them. Returns probabilities, (N, C)."""


class ClassifierOptions(BaseModel):
    """Options of classifiers that run a network.

    Attributes:
        weights: a card's name, a path or an address.
        imgsz: side in pixels of the square that the network sees.
        device: auto, cpu, cuda or cuda:N.
        engine: what runs the network; auto: OpenVINO on a CPU, for which the network is exported once; torch on a GPU.
        half: bfloat16 in OpenVINO, where the processor has it: faster, and moves probabilities by some hundredths.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: str
    imgsz: int | None = Field(default=None, ge=32)
    device: DeviceName = "auto"
    engine: Literal["auto", "openvino", "torch"] = "auto"
    half: bool = False


@dataclass(frozen=True, slots=True)
class ClassifierFacts:
    """Facts about a network that do not depend on the engine.

    Attributes:
        class_names: names by class id.
        preparation: how images become its input.
        licence: the licence that the weights state.
    """

    class_names: tuple[str, ...]
    preparation: Preparation
    licence: str | None = None

    @classmethod
    def read(cls, path: Path) -> ClassifierFacts:
        """Returns the facts in a file that holds them as JSON."""
        values = json.loads(path.read_text(encoding="utf-8"))
        known = values["preparation"]
        preparation = Preparation(**{**known, "mean": tuple(known["mean"]), "std": tuple(known["std"])})
        return cls(tuple(values["class_names"]), preparation, values["licence"])


class NetworkClassifier(ABC):
    """A classifier that runs a network on whole batches.

    Attributes:
        class_names: names by class id.
        traits: the model and the batch size.
        warnings: what the user should know about how the model was loaded.
    """

    Options: ClassVar[type[ClassifierOptions]] = ClassifierOptions
    packages: ClassVar[tuple[str, ...]]
    """The packages that build the network. An export is made again if their versions change."""

    def __init__(self, **options: object) -> None:
        self._options = self.Options.model_validate(options)
        self.warnings: tuple[str, ...] = ()
        self._device_name = name_device(self._options.device)
        weights = resolve_weights(self._options.weights)
        facts, engine = self._load(weights)
        self.class_names: Sequence[str] = facts.class_names
        self._preparation = facts.preparation
        self.traits = ModelTraits(
            model=ModelRecord(weights.name, weights.sha256, weights.licence or facts.licence, engine),
            batch_size=_CPU_BATCH if self._device_name == "cpu" else _GPU_BATCH,
        )

    @abstractmethod
    def _variant(self, weights: Weights) -> str:
        """Returns what sets the network and its facts beside the weights and `imgsz`, as text for a cache key."""

    @abstractmethod
    def _build(self, weights: Weights) -> tuple[torch.nn.Module, ClassifierFacts]:
        """Returns the network on the CPU, and facts about it.

        It takes normalised float32 (N, 3, side, side), and returns probabilities, (N, C).
        """

    def prepare(self, image: Frames) -> Frames:
        """Returns an image, uint8 (H, W, 3), as `classify_prepared` takes it; it shares no memory with `image`."""
        return self._preparation.crop(image)

    def classify_prepared(self, images: Sequence[Frames]) -> NDArray[np.float32]:
        """Returns probabilities, float32 (N, C), for images that `prepare` returned."""
        if not images:
            return np.zeros((0, len(self.class_names)), np.float32)
        return self._network(images)

    def classify(self, images: Sequence[torch.Tensor]) -> NDArray[np.float32]:
        """Returns probabilities, float32 (N, C), for images of any size, uint8 (H, W, 3)."""
        return self.classify_prepared([self.prepare(image) for image in images])

    def _load(self, weights: Weights) -> tuple[ClassifierFacts, str]:
        """Sets the network. Returns facts about it, and its engine in words."""
        if self._uses_openvino():
            try:
                return self._load_in_openvino(weights)
            except (ImportError, RuntimeError, ValueError, TypeError, AttributeError, OSError) as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                self.warnings = (f"classifier.engine: openvino: {reason}: the model runs in torch instead",)
                _log.warning("%s", self.warnings[0])
        from prelabel.models.classifiers.torch_network import TorchNetwork

        network, facts = self._build(weights)
        self._network: Network = TorchNetwork(network, facts.preparation, self._device_name)
        return facts, f"torch {package_version('torch')}, float32"

    def _uses_openvino(self) -> bool:
        """Returns whether OpenVINO runs the network.

        Raises:
            ConfigError: the engine does not run on the device, or has no `half`.
            MachineError: the processor has no bfloat16.
        """
        options, is_on_cpu = self._options, self._device_name == "cpu"
        if options.engine == "openvino" and not is_on_cpu:
            raise ConfigError(f"classifier.engine: openvino does not run on {self._device_name}: set engine: torch")
        uses_openvino = options.engine != "torch" and is_on_cpu
        if options.half and not uses_openvino:
            raise ConfigError("classifier.half: got true, but torch computes in float32: leave half out")
        if options.half and not cpu_has_bfloat16():
            raise MachineError("classifier.half: this processor does not compute in bfloat16: leave half out")
        return uses_openvino

    def _load_in_openvino(self, weights: Weights) -> tuple[ClassifierFacts, str]:
        half, side = self._options.half, self._options.imgsz
        key = EngineKey(
            weights_sha256=weights.sha256,
            engine="openvino",
            device=platform.machine(),
            input_shape="default" if side is None else str(side),
            precision="float32",  # bfloat16 uses the same graph
            head=self._variant(weights),
            versions=", ".join(f"{name} {package_version(name)}" for name in (*self.packages, "onnx", "openvino")),
        )
        folder = built_engine(key, lambda folder: self._export(weights, folder))
        session = PixelSession(folder / _GRAPH, half=half)
        self._network = lambda images: session(np.stack([_on_host(image) for image in images]))[0]
        precision = "bfloat16" if half else "float32"
        return ClassifierFacts.read(folder / _FACTS), f"openvino {package_version('openvino')}, {precision}"

    def _export(self, weights: Weights, folder: Path) -> None:
        """Writes the network as a graph, and the facts about it, into a folder."""
        from prelabel.models.classifiers.torch_network import export_network

        network, facts = self._build(weights)
        export_network(network, facts.preparation, folder / _GRAPH)
        (folder / _FACTS).write_text(json.dumps(asdict(facts)), encoding="utf-8")


def _on_host(image: Frames) -> NDArray[np.uint8]:
    """Returns an image as an array. A reader may leave frames on a GPU though the network runs on the CPU."""
    return image if isinstance(image, np.ndarray) else image.numpy(force=True)
