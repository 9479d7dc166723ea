"""Runtimes for ONNX graphs (ONNX Runtime, OpenVINO, TensorRT), and the cache of built engines."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from prelabel.errors import MachineError
from prelabel.models.weights import user_cache

if TYPE_CHECKING:
    import torch

_KEY_FILE = "key.json"
_MAX_NAME_LENGTH = 32  # a folder's name may have 255 bytes


@dataclass(frozen=True, slots=True)
class EngineKey:
    """The cache key of a built engine. If any value changes, a new engine is built.

    Attributes:
        weights_sha256: sha256 of the weights that the engine is built from.
        engine: onnx, openvino or tensorrt.
        device: name of the processor or GPU.
        input_shape: accepted shapes, in words.
        precision: float32, float16 or bfloat16.
        head: which of a model's heads the engine holds.
        versions: versions of the packages that write and run the graph.
    """

    weights_sha256: str
    engine: str
    device: str
    input_shape: str
    precision: str
    head: str
    versions: str

    @property
    def folder_name(self) -> str:
        """Name of the engine's folder. It has no versions, so a new version replaces the old engine."""
        parts = (self.engine, self.precision, self.head, self.input_shape, self.device)
        return "-".join(map(_for_file_name, parts))


def _for_file_name(part: str) -> str:
    """Returns a text in the letters of file names; a long one, such as of many class names, ends in its hash."""
    name = re.sub(r"[^a-z0-9.]+", "_", part.lower()).strip("_")
    if len(name) <= _MAX_NAME_LENGTH:
        return name
    return f"{name[:_MAX_NAME_LENGTH]}_{hashlib.sha256(part.encode()).hexdigest()[:12]}"


def engines_folder() -> Path:
    """Returns the folder of cached engines: `$XDG_CACHE_HOME/prelabel/engines`."""
    return user_cache() / "engines"


def built_engine(key: EngineKey, build: Callable[[Path], None]) -> Path:
    """Returns the folder of an engine: the cached one if its key is the same, or else a new one.

    Args:
        key: key of the engine.
        build: writes the engine into an empty folder. If it raises, nothing is cached.
    """
    folder = engines_folder() / key.weights_sha256[:12] / key.folder_name
    if _is_built(folder, key):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Several processes may build the same engine. Each builds in its own folder, and the rename is atomic.
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}."[:100], dir=folder.parent))
    try:
        build(unfinished)
        if _is_built(folder, key):  # another process was faster, and may be reading its engine now
            return folder
        (unfinished / _KEY_FILE).write_text(json.dumps(asdict(key), indent=2), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        try:
            unfinished.rename(folder)
        except OSError:  # another process was faster by a moment
            if not _is_built(folder, key):
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _is_built(folder: Path, key: EngineKey) -> bool:
    try:
        return bool(json.loads((folder / _KEY_FILE).read_text(encoding="utf-8")) == asdict(key))
    except (OSError, ValueError):
        return False


def package_version(package: str) -> str:
    """Returns the installed version of a package, or else of its GPU build."""
    for name in (package, f"{package}-gpu"):  # ONNX Runtime's GPU build has another name
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "of unknown version"


Session = Callable[["torch.Tensor"], Sequence["torch.Tensor"]]
"""Runs a graph of one input: takes (N, C, H, W) and returns its outputs, which the next call may overwrite."""


class OnnxSession:
    """Runs a graph in ONNX Runtime.

    Inputs and outputs are bound in place, on the host or on a GPU, so nothing is copied.

    Args:
        path: the graph.
        device: `cpu` or a GPU. On a GPU, the session uses the CUDA stream that is current when it is created.

    Raises:
        MachineError: the installed ONNX Runtime has no GPU support.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        self._device = device
        self._session = _onnx_session(path, _onnx_providers(device))
        # ONNX Runtime falls back to the CPU without an error.
        if device.type == "cuda" and "CUDAExecutionProvider" not in self._session.get_providers():
            raise MachineError(f"engine onnx on {device}: ONNX Runtime could not start its CUDA provider")
        self._inputs = [each.name for each in self._session.get_inputs()]
        self._outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
        """Returns the outputs in the graph's order, on the same device, for inputs in the graph's order."""
        import torch

        place = (self._device.type, self._device.index or 0)
        binding = self._session.io_binding()
        tensors = [tensor.contiguous() for tensor in inputs]  # held until the run ends, since only addresses are bound
        for name, tensor in zip(self._inputs, tensors, strict=True):
            dtype = np.dtype(str(tensor.dtype).removeprefix("torch.")).type
            binding.bind_input(name, *place, dtype, tuple(tensor.shape), tensor.data_ptr())
        for name in self._outputs:
            binding.bind_output(name, *place)
        self._session.run_with_iobinding(binding)
        return [torch.from_dlpack(output) for output in binding.get_outputs()]


class OnnxHostSession:
    """Runs a graph in ONNX Runtime on the CPU, on arrays, without torch."""

    def __init__(self, path: Path) -> None:
        self._session = _onnx_session(path, ["CPUExecutionProvider"])
        self._inputs = [each.name for each in self._session.get_inputs()]

    def __call__(self, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
        """Returns the outputs in the graph's order, for inputs in the graph's order."""
        outputs: list[NDArray[Any]] = self._session.run(None, dict(zip(self._inputs, inputs, strict=True)))
        return outputs


def _onnx_session(path: Path, providers: Sequence[object]) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    # Its waiting threads would spin, and take CPU time from the decoder.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=providers)


def _onnx_providers(device: torch.device) -> list[str | tuple[str, dict[str, str]]]:
    import onnxruntime

    if device.type == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise MachineError(
            f"engine onnx on {device}: the installed ONNX Runtime {onnxruntime.__version__} runs on the CPU only: "
            "install onnxruntime-gpu in its place, or set another engine or device: cpu"
        )
    import torch

    # On torch's stream, the graph runs after the frames are prepared, so no synchronisation is needed.
    stream = str(torch.cuda.current_stream(device).cuda_stream)
    return [("CUDAExecutionProvider", {"device_id": str(device.index or 0), "user_compute_stream": stream})]


@dataclass(frozen=True, slots=True)
class InputShapes:
    """The input shapes that a TensorRT engine accepts, and the one it is optimised for.

    Attributes:
        max_frames: most frames per batch.
        usual_frames: frames per batch that the engine is optimised for.
        imgsz: longest side, in pixels.
        usual: height and width that the engine is optimised for.
        channels: channels of the input.
        min_side: shortest side, in pixels.
    """

    max_frames: int
    usual_frames: int
    imgsz: int
    usual: tuple[int, int]
    channels: int = 3
    min_side: int = 32

    def __str__(self) -> str:
        sides = f"{self.min_side}..{self.imgsz}, usual {self.usual[0]} x {self.usual[1]}"
        return f"1..{self.max_frames} x {self.channels} x {sides}"


def build_tensorrt(graph: Path, target: Path, shapes: InputShapes, device: torch.device) -> None:
    """Builds a TensorRT engine in the precision of the graph. This takes minutes.

    Raises:
        MachineError: TensorRT does not accept the graph, or cannot build it here.
    """
    import tensorrt as trt
    import torch

    with torch.cuda.device(device):
        builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
        # Since TensorRT 11, every network is strongly typed and the flag does not exist.
        flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        network = builder.create_network(0 if flag is None else 1 << int(flag))
        parser = trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR))
        if not parser.parse_from_file(str(graph)):
            reasons = "; ".join(str(parser.get_error(number)) for number in range(parser.num_errors))
            raise MachineError(f"TensorRT {trt.__version__} does not take the graph: {reasons}")
        profile = builder.create_optimization_profile()
        profile.set_shape(
            network.get_input(0).name,
            min=(1, shapes.channels, shapes.min_side, shapes.min_side),
            opt=(shapes.usual_frames, shapes.channels, *shapes.usual),
            max=(shapes.max_frames, shapes.channels, shapes.imgsz, shapes.imgsz),
        )
        options = builder.create_builder_config()
        options.add_optimization_profile(profile)
        engine = builder.build_serialized_network(network, options)
    if engine is None:
        raise MachineError(f"TensorRT {trt.__version__} could not build the engine on {device}")
    target.write_bytes(engine)


class TensorRtSession:
    """Runs a TensorRT engine of one input on torch's current stream. Not tested on a GPU.

    Args:
        path: the file that `build_tensorrt` wrote.
        device: the GPU that the engine was built for.
        max_frames: most frames per call; larger batches are split.

    Raises:
        MachineError: the engine is not for this GPU or this version of TensorRT.
    """

    def __init__(self, path: Path, device: torch.device, max_frames: int) -> None:
        import tensorrt as trt
        import torch

        self._device, self._max_frames = device, max_frames
        with torch.cuda.device(device):
            runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
            self._engine = runtime.deserialize_cuda_engine(path.read_bytes())
            if self._engine is None:
                raise MachineError(f"{path}: TensorRT {trt.__version__} cannot load it on {device}")
            self._context = self._engine.create_execution_context()
        types = {trt.DataType.HALF: torch.float16, trt.DataType.FLOAT: torch.float32}
        names = [self._engine.get_tensor_name(number) for number in range(self._engine.num_io_tensors)]
        is_input = {name: self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
        self._input = next(name for name in names if is_input[name])
        self._outputs = {
            name: types.get(self._engine.get_tensor_dtype(name), torch.float32)
            for name in sorted(names)
            if not is_input[name]
        }

    def __call__(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        """Returns the outputs for (N, C, H, W)."""
        import torch

        parts = [self._run(part.contiguous()) for part in inputs.split(self._max_frames)]
        return parts[0] if len(parts) == 1 else [torch.cat(outputs) for outputs in zip(*parts, strict=True)]

    def _run(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        import torch

        if not self._context.set_input_shape(self._input, tuple(inputs.shape)):
            raise ValueError(f"got {tuple(inputs.shape)}, the engine was built for other shapes")
        self._context.set_tensor_address(self._input, inputs.data_ptr())
        outputs = []
        for name, dtype in self._outputs.items():
            shape = tuple(self._context.get_tensor_shape(name))
            outputs.append(torch.empty(shape, dtype=dtype, device=self._device))
            self._context.set_tensor_address(name, outputs[-1].data_ptr())
        stream = torch.cuda.current_stream(self._device).cuda_stream
        if not self._context.execute_async_v3(stream):
            raise RuntimeError(f"TensorRT could not run {tuple(inputs.shape)} on {self._device}")
        return outputs
