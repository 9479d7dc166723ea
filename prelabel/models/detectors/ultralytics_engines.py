"""Ultralytics checkpoints in other runtimes: exported once, kept, and run below its own backends."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import platform
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from prelabel.data.boxes import Letterbox
from prelabel.errors import ConfigError, MachineError
from prelabel.models.detectors.ultralytics_loading import LoadedModel, ModelFacts, check_task, keypoint_facts
from prelabel.models.engines.cache import EngineKey, built_engine
from prelabel.models.engines.onnx import OnnxSession
from prelabel.models.engines.openvino import OpenVinoSession
from prelabel.models.engines.tensorrt import InputShapes, TensorRtSession, build_engine
from prelabel.models.ultralytics_checkpoint import contained, load_checkpoint, names_in_order
from prelabel.models.weights import Weights

EngineName = Literal["torch", "onnx", "openvino", "tensorrt"]

LARGEST_BATCH, USUAL_BATCH = 64, 16
_GRAPH, _FACTS, _PLAN = "model.onnx", "model.json", "model.engine"
_PACKAGES: dict[EngineName, tuple[str, ...]] = {
    "torch": (),
    "onnx": ("onnx", "onnxruntime"),
    "openvino": ("onnx", "openvino"),
    "tensorrt": ("onnx", "tensorrt"),
}


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """What is to run a checkpoint, and how.

    Attributes:
        weights: of Ultralytics, a .pt file.
        engine: onnx, openvino or tensorrt.
        device: where it runs.
        half: float16 on a GPU, bfloat16 on a CPU.
        imgsz: longest side of the input, in pixels.
        nms_head: run the head that needs NMS, where a model has an end-to-end one as well.
    """

    weights: Weights
    engine: EngineName
    device: torch.device
    half: bool
    imgsz: int
    nms_head: bool

    @property
    def dtype(self) -> torch.dtype:
        """Of what goes into the engine."""
        return torch.float16 if self.half and self.device.type == "cuda" else torch.float32

    @property
    def precision(self) -> str:
        """In which it computes."""
        return "bfloat16" if self.half and self.device.type == "cpu" else str(self.dtype).removeprefix("torch.")


def choose_engine(asked: EngineName | Literal["auto"], device: torch.device, weights: Path) -> EngineName:
    """Returns the engine for a weights file: `auto` is the quickest that is installed here.

    Raises:
        ConfigError: the weights are an export, or the engine does not run on the device.
        MachineError: its packages are not installed.
    """
    if weights.suffix.lower() != ".pt":
        if asked not in ("torch", "auto"):
            raise ConfigError(
                f"detector.engine: got {asked}, but {weights.name} is an export, which brings its own: leave engine out"
            )
        return "torch"
    if asked == "auto":
        quickest: EngineName = "tensorrt" if device.type == "cuda" else "openvino"
        return quickest if not _missing(quickest) else "torch"
    fitting = {"cpu": ("torch", "onnx", "openvino"), "cuda": ("torch", "onnx", "tensorrt")}[device.type]
    if asked not in fitting:
        raise ConfigError(f"detector.engine: {asked} does not run on {device}, these do: auto, {', '.join(fitting)}")
    missing = _missing(asked)
    if missing:
        raise MachineError(f"detector.engine: {asked} needs {' and '.join(missing)}: uv add {' '.join(missing)}")
    return asked


def load_engine(request: EngineRequest) -> LoadedModel:
    """Returns the checkpoint in the engine that is asked for, built first if it is not kept.

    Raises:
        WeightsError: the checkpoint holds no model that gives boxes.
        MachineError: the engine cannot be built or started here.
    """
    shapes = _input_shapes(request)
    try:
        with contained():
            folder = built_engine(_key(request, shapes), lambda folder: _build(request, shapes, folder))
            start = _SESSIONS[request.engine]
            forward = start(request, folder)
    except (ImportError, RuntimeError, ValueError, TypeError, AttributeError, AssertionError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MachineError(f"engine {request.engine}: {reason}") from error
    facts = _read_facts(folder / _FACTS)
    return LoadedModel(
        facts=facts,
        forward=forward,
        dtype=request.dtype,
        input_size=None,
        engine=f"{request.engine} {_version(_PACKAGES[request.engine][-1])}, {request.precision}",
    )


def _read_facts(path: Path) -> ModelFacts:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    names = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return ModelFacts(**{**values, **names})


_SESSIONS: dict[EngineName, Callable[[EngineRequest, Path], Callable[[torch.Tensor], torch.Tensor]]] = {
    "onnx": lambda request, folder: OnnxSession(folder / _GRAPH, request.device),
    "openvino": lambda request, folder: OpenVinoSession(folder / _GRAPH, half=request.half),
    "tensorrt": lambda request, folder: TensorRtSession(folder / _PLAN, request.device, LARGEST_BATCH),
}


def _input_shapes(request: EngineRequest) -> InputShapes:
    usual = Letterbox.fit(1080, 1920, request.imgsz)
    return InputShapes(LARGEST_BATCH, USUAL_BATCH, request.imgsz, (usual.height, usual.width))


def _key(request: EngineRequest, shapes: InputShapes) -> EngineKey:
    is_cpu = request.device.type == "cpu"
    written_by = ("torch", "ultralytics", *_PACKAGES[request.engine])
    return EngineKey(
        weights_sha256=request.weights.sha256,
        engine=request.engine,
        device=platform.machine() if is_cpu else torch.cuda.get_device_name(request.device),
        input_shape=str(shapes) if request.engine == "tensorrt" else "any",
        # On a CPU one graph serves all precisions.
        precision=str(request.dtype).removeprefix("torch."),
        head="nms" if request.nms_head else "end2end",
        versions=", ".join(f"{name} {_version(name)}" for name in written_by),
    )


def _build(request: EngineRequest, shapes: InputShapes, folder: Path) -> None:
    """Writes the graph, what is known of the model, and TensorRT's engine into a folder."""
    facts = _export_graph(request, folder / _GRAPH)
    (folder / _FACTS).write_text(json.dumps(asdict(facts)), encoding="utf-8")
    if request.engine == "tensorrt":
        build_engine(folder / _GRAPH, folder / _PLAN, shapes, request.device)


def _export_graph(request: EngineRequest, target: Path) -> ModelFacts:
    """Writes an ONNX graph of any batch size and any input size with Ultralytics' own exporter."""
    from ultralytics.engine.exporter import Exporter

    model, checkpoint = load_checkpoint(request.weights.path)
    check_task(request.weights.path, getattr(model, "task", None))
    options = {
        "format": "onnx",
        "dynamic": True,
        "imgsz": request.imgsz,
        "batch": 1,
        "simplify": False,  # it would want a package more; the runtimes simplify by themselves
        "device": "cpu" if request.device.type == "cpu" else str(request.device.index or 0),
        "quantize": 16 if request.dtype == torch.float16 else None,
        "nms": None if request.nms_head else False,
        "verbose": False,
    }
    model.pt_path = str(target.with_suffix(".pt"))  # the exporter puts its file beside it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own exporter warns that there is a newer one
        exporter = Exporter(overrides=options)
        exporter(model)
    known = exporter.metadata
    return ModelFacts(
        class_names=names_in_order(known["names"]),
        task=known["task"],
        stride=int(known["stride"]),
        rtdetr=known["head"] == "RTDETRDecoder",
        end2end=bool(known["end2end"]),
        licence=checkpoint.get("license") or known["license"],
        **keypoint_facts(known.get("kpt_shape"), known.get("kpt_names")),
    )


def _missing(engine: EngineName) -> list[str]:
    return [package for package in _PACKAGES[engine] if importlib.util.find_spec(package) is None]


def _version(package: str) -> str:
    for name in (package, f"{package}-gpu"):  # ONNX Runtime's build for GPUs has another name
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "of unknown version"
