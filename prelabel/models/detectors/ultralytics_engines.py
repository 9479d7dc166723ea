"""Runs Ultralytics checkpoints in runtimes other than torch.

A checkpoint is exported once and cached. It runs without Ultralytics' own backends.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prelabel.data.boxes import Letterbox
from prelabel.errors import ConfigError, MachineError
from prelabel.models.engines import (
    EngineKey,
    InputShapes,
    OnnxSession,
    Session,
    TensorRtSession,
    build_tensorrt,
    built_engine,
    package_version,
)
from prelabel.models.openvino import PixelSession, cpu_has_bfloat16
from prelabel.models.ultralytics_models import (
    LoadedModel,
    NetworkFacts,
    check_channels,
    check_task,
    contained,
    keypoint_facts,
    load_checkpoint,
    names_in_order,
)
from prelabel.models.weights import Weights

if TYPE_CHECKING:
    import torch

EngineName = Literal["torch", "onnx", "openvino", "tensorrt"]

MAX_FRAMES, USUAL_FRAMES = 64, 16  # frames per batch, for TensorRT
_GRAPH, _FACTS, _PLAN = "model.onnx", "model.json", "model.engine"
_PACKAGES: dict[EngineName, tuple[str, ...]] = {
    "torch": (),
    "onnx": ("onnx", "onnxruntime"),
    "openvino": ("onnx", "openvino"),
    "tensorrt": ("onnx", "tensorrt"),
}


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """Which runtime runs a checkpoint, and how.

    Attributes:
        weights: an Ultralytics .pt file.
        engine: onnx, openvino or tensorrt.
        device: cpu or cuda:N.
        half: float16 on a GPU, bfloat16 on a CPU; auto: what the processor computes fastest at hardly any loss.
        imgsz: longest side of the input, in pixels.
        nms_head: use the head that needs NMS, even if the model also has an end-to-end head.
    """

    weights: Weights
    engine: EngineName
    device: str
    half: bool | Literal["auto"]
    imgsz: int
    nms_head: bool

    @property
    def is_on_cpu(self) -> bool:
        """Whether it runs on the CPU."""
        return self.device == "cpu"

    @property
    def precision(self) -> str:
        """The type of the graph's input."""
        return "float32" if self.half is False or self.is_on_cpu else "float16"

    def uses_bfloat16(self, facts: NetworkFacts) -> bool:
        """Returns whether a model computes in bfloat16, which has 8 significant bits.

        RT-DETR gives corners as fractions of the frame: 8 bits of them are some pixels, so `auto` leaves it in float32.
        """
        if not self.is_on_cpu or self.engine != "openvino":
            return False
        return not facts.rtdetr and cpu_has_bfloat16() if self.half == "auto" else self.half


def choose_engine(asked: EngineName | Literal["auto"], device: str, weights: Path) -> EngineName:
    """Returns the engine for a weights file.

    `auto` is OpenVINO on a CPU and torch on a GPU. TensorRT builds for minutes, so a config has to name it.

    Raises:
        ConfigError: the weights are an export, or the engine does not run on the device.
        MachineError: packages that the engine needs are not installed.
    """
    if weights.suffix.lower() != ".pt":
        if asked not in ("torch", "auto"):
            raise ConfigError(
                f"detector.engine: got {asked}, but {weights.name} is an export, which brings its own: leave engine out"
            )
        return "torch"
    if asked == "auto":
        return "openvino" if device == "cpu" and not _missing("openvino") else "torch"
    fitting = ("torch",) if device == "mps" else ("torch", "onnx", "openvino" if device == "cpu" else "tensorrt")
    if asked not in fitting:
        raise ConfigError(f"detector.engine: {asked} does not run on {device}, these do: auto, {', '.join(fitting)}")
    missing = _missing(asked)
    if missing:
        raise MachineError(f"detector.engine: {asked} needs {' and '.join(missing)}: uv add {' '.join(missing)}")
    return asked


def load_engine(request: EngineRequest) -> LoadedModel:
    """Returns the checkpoint in the requested engine, which is built unless it is cached.

    Raises:
        WeightsError: the checkpoint holds no model that outputs boxes.
        MachineError: the engine cannot be built or started here.
    """
    try:
        folder = built_engine(_key(request), lambda folder: _build(request, folder))
        facts = _read_facts(folder / _FACTS)
        half = request.uses_bfloat16(facts)
        if request.engine == "openvino":
            return _in_openvino(request, facts, folder, half=half)
        session = _start_session(request, folder)
    except (ImportError, RuntimeError, ValueError, TypeError, AttributeError, AssertionError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MachineError(f"engine {request.engine}: {reason}") from error
    return LoadedModel(
        facts=facts,
        forward=lambda inputs: session(inputs)[0],
        forward_masks=(lambda inputs: _boxes_and_prototypes(session(inputs))) if facts.task == "segment" else None,
        dtype=request.precision,
        input_size=None,
        engine=_in_words(request, request.precision),
    )


def _in_openvino(request: EngineRequest, facts: NetworkFacts, folder: Path, *, half: bool) -> LoadedModel:
    """Returns the checkpoint in OpenVINO, which runs without torch. Masks and rotated boxes are read in torch."""
    session = PixelSession(folder / _GRAPH, half=half)

    def forward(inputs: torch.Tensor) -> list[torch.Tensor]:
        import torch

        return [torch.from_numpy(output) for output in session(inputs.numpy())]

    return LoadedModel(
        facts=facts,
        forward=lambda inputs: forward(inputs)[0],
        forward_masks=(lambda inputs: tuple(forward(inputs))) if facts.task == "segment" else None,
        dtype="uint8",
        input_size=None,
        engine=_in_words(request, "bfloat16" if half else "float32"),
        pixels=session,
    )


def _in_words(request: EngineRequest, precision: str) -> str:
    return f"{request.engine} {package_version(_PACKAGES[request.engine][-1])}, {precision}"


def _start_session(request: EngineRequest, folder: Path) -> Session:
    import torch

    device = torch.device(request.device)
    if request.engine == "onnx":
        return OnnxSession(folder / _GRAPH, device)
    return TensorRtSession(folder / _PLAN, device, MAX_FRAMES)


def _boxes_and_prototypes(outputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    boxes, prototypes = outputs
    return boxes, prototypes.clone()  # masks are read after the next call, which may overwrite an output


def _read_facts(path: Path) -> NetworkFacts:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    tuples = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return NetworkFacts(**{**values, **tuples})


def _input_shapes(request: EngineRequest, channels: int = 3) -> InputShapes:
    usual = Letterbox.fit(1080, 1920, request.imgsz)
    return InputShapes(MAX_FRAMES, USUAL_FRAMES, request.imgsz, (usual.height, usual.width), channels)


def _key(request: EngineRequest) -> EngineKey:
    packages = ("torch", "ultralytics", *_PACKAGES[request.engine])
    return EngineKey(
        weights_sha256=request.weights.sha256,
        engine=request.engine,
        device=platform.machine() if request.is_on_cpu else _gpu_name(request.device),
        input_shape=str(_input_shapes(request)) if request.engine == "tensorrt" else "any",
        precision=request.precision,  # on a CPU, bfloat16 uses the same float32 graph
        head="nms" if request.nms_head else "end2end",
        versions=", ".join(f"{name} {package_version(name)}" for name in packages),
    )


def _gpu_name(device: str) -> str:
    import torch

    return str(torch.cuda.get_device_name(device))


def _build(request: EngineRequest, folder: Path) -> None:
    """Writes the graph, the facts about the model and, for TensorRT, the engine into a folder."""
    with contained():
        facts = _export_graph(request, folder / _GRAPH)
    (folder / _FACTS).write_text(json.dumps(asdict(facts)), encoding="utf-8")
    if request.engine == "tensorrt":
        import torch

        shapes = _input_shapes(request, facts.channels)
        build_tensorrt(folder / _GRAPH, folder / _PLAN, shapes, torch.device(request.device))


def _export_graph(request: EngineRequest, target: Path) -> NetworkFacts:
    """Writes an ONNX graph for any batch and input size, with Ultralytics' exporter."""
    from ultralytics.engine.exporter import Exporter

    model, checkpoint = load_checkpoint(request.weights.path)
    check_task(request.weights.path, getattr(model, "task", None))
    options = {
        "format": "onnx",
        "dynamic": True,
        "imgsz": request.imgsz,
        "batch": 1,
        "simplify": False,  # it needs another package, and the runtimes simplify graphs themselves
        "device": request.device.removeprefix("cuda:"),
        "quantize": 16 if request.precision == "float16" else None,
        "nms": None if request.nms_head else False,
        "verbose": False,
    }
    model.pt_path = str(target.with_suffix(".pt"))  # the exporter writes its file next to this path
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's tracing exporter warns about its newer replacement
        exporter = Exporter(overrides=options)
        exporter(model)
    known = exporter.metadata
    check_channels(request.weights.path, int(known.get("channels", 3)))
    return NetworkFacts(
        class_names=names_in_order(known["names"]),
        task=known["task"],
        stride=int(known["stride"]),
        rtdetr=known["head"] == "RTDETRDecoder",
        end2end=bool(known["end2end"]),
        licence=checkpoint.get("license") or known["license"],
        channels=int(known.get("channels", 3)),
        **keypoint_facts(known.get("kpt_shape"), known.get("kpt_names")),
    )


def _missing(engine: EngineName) -> list[str]:
    return [package for package in _PACKAGES[engine] if importlib.util.find_spec(package) is None]
