"""Reads what an ONNX file says about its graph, and runs the graph."""

from __future__ import annotations

import importlib.util
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from prelabel.errors import ConfigError, MachineError, WeightsError
from prelabel.models.detectors.host import Array
from prelabel.models.engines import OnnxHostSession, OnnxSession, package_version
from prelabel.models.openvino import OpenVinoSession
from prelabel.models.weights import Weights
from prelabel.runtime.yaml_files import parse_yaml, read_yaml

EngineName = Literal["onnx", "openvino"]
Layout = Literal["nchw", "nhwc"]
Outputs = Mapping[str, Array]
"""A graph's outputs by name."""

SIZES_INPUT = "orig_target_sizes"
"""RT-DETR's second input: the width and height, in pixels, to which its boxes are scaled."""
MASK_INPUT = "pixel_mask"
"""DETR's second input: which pixels belong to the frame."""
_PACKAGES: dict[EngineName, str] = {"onnx": "onnxruntime", "openvino": "openvino"}
_TRIAL_FRAMES = 2
_NAME_KEYS = ("names", "classes", "class_names", "labels")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GraphInput:
    """An input of a graph.

    Attributes:
        name: its name.
        shape: its dimensions; None where any size is accepted.
        dtype: its type, by numpy's name.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Graph:
    """What a file says about its graph.

    Attributes:
        inputs: inputs in the graph's order.
        output_names: outputs in the graph's order.
        metadata: texts by key.
        data_files: further files that hold its weights.
        image: the input for frames, of 3 or 4 dimensions.
        layout: order of that input's dimensions.
    """

    inputs: tuple[GraphInput, ...]
    output_names: tuple[str, ...]
    metadata: Mapping[str, str]
    data_files: tuple[Path, ...]
    image: GraphInput
    layout: Layout

    @property
    def batch(self) -> int | None:
        """Frames per call; None if any number is accepted. Without a batch dimension, it is one."""
        return 1 if len(self.image.shape) == 3 else self.image.shape[0]

    @property
    def channels(self) -> int:
        """Channels of a frame: 3, or 1 for grey."""
        return self.image.shape[-3 if self.layout == "nchw" else -1] or 3

    @property
    def size(self) -> tuple[int | None, int | None]:
        """Height and width of the input in pixels; None where any size is accepted."""
        height, width = self.image.shape[-2:] if self.layout == "nchw" else self.image.shape[-3:-1]
        return height, width

    @property
    def metadata_size(self) -> tuple[int, int] | None:
        """Height and width that Ultralytics writes into the metadata; None without them."""
        match _plain(self.metadata.get("imgsz", "")):
            case int(side):
                return side, side
            case [int(height), int(width)]:
                return height, width
        return None


def read_graph(path: Path, layout: Layout | None) -> Graph:
    """Returns what a file says about its graph.

    Args:
        path: an .onnx file.
        layout: order of the input's dimensions; None: as its shape tells.

    Raises:
        WeightsError: the file is no graph, or its inputs are not those of a detector.
        ConfigError: the layout is not set, and the shape does not tell it.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except (DecodeError, OSError) as error:
        raise WeightsError(f"{path}: is no ONNX file, or is not complete") from error
    initial = {tensor.name for tensor in model.graph.initializer}
    inputs = tuple(_input_of(path, each) for each in model.graph.input if each.name not in initial)
    image = _image_of(path, inputs)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    task = metadata.get("task", "detect")
    if task != "detect":
        raise WeightsError(f"{path}: is Ultralytics' export of a model for {task!r}: set use: ultralytics")
    return Graph(
        inputs=inputs,
        output_names=tuple(output.name for output in model.graph.output),
        metadata=metadata,
        data_files=_data_files(path, model),
        image=image,
        layout=_layout_of(path, image, layout),
    )


def _input_of(path: Path, value: Any) -> GraphInput:
    import onnx

    types = {
        onnx.TensorProto.FLOAT: "float32",
        onnx.TensorProto.FLOAT16: "float16",
        onnx.TensorProto.UINT8: "uint8",
        onnx.TensorProto.INT32: "int32",
        onnx.TensorProto.INT64: "int64",
        onnx.TensorProto.BOOL: "bool",
    }
    tensor = value.type.tensor_type
    if tensor.elem_type not in types:
        name = onnx.TensorProto.DataType.Name(tensor.elem_type)
        raise WeightsError(f"{path}: the input {value.name!r} is of type {name}, expected float32, float16 or uint8")
    shape = tuple(dimension.dim_value or None for dimension in tensor.shape.dim)
    return GraphInput(value.name, shape, types[tensor.elem_type])


def _image_of(path: Path, inputs: Sequence[GraphInput]) -> GraphInput:
    images = [each for each in inputs if each.name not in (SIZES_INPUT, MASK_INPUT)]
    if len(images) != 1:
        names = ", ".join(each.name for each in inputs) or "none"
        raise WeightsError(
            f"{path}: the graph's inputs are {names}: expected one for the image, and otherwise only {SIZES_INPUT} "
            f"(width and height) or {MASK_INPUT}: export the model with these"
        )
    (image,) = images
    if len(image.shape) not in (3, 4) or image.dtype not in ("float32", "float16", "uint8"):
        raise WeightsError(
            f"{path}: the input {image.name!r} is {image.dtype} with {len(image.shape)} dimensions: expected an image: "
            "3 or 4 dimensions of float32, float16 or uint8"
        )
    return image


def _layout_of(path: Path, image: GraphInput, asked: Layout | None) -> Layout:
    first, last = image.shape[-3], image.shape[-1]
    guessed: Layout | None = "nchw" if first in (1, 3) else "nhwc" if last in (1, 3) else None
    layout = asked or guessed
    shown = " x ".join("any" if side is None else str(side) for side in image.shape)
    if layout is None:
        raise ConfigError(f"detector.input.layout: cannot be told from the input's shape {shown}: set nchw or nhwc")
    if (first if layout == "nchw" else last) not in (1, 3, None):
        raise WeightsError(f"{path}: the input's shape is {shown}: expected 3 channels (RGB) or 1 (grey) in {layout}")
    return layout


def _data_files(path: Path, model: Any) -> tuple[Path, ...]:
    """Returns the files next to a graph that hold its weights, sorted.

    Raises:
        WeightsError: one of them is missing.
    """
    entries = (entry for tensor in model.graph.initializer for entry in tensor.external_data)
    files = sorted({path.parent / entry.value for entry in entries if entry.key == "location"})
    for file in files:
        if not file.is_file():
            raise WeightsError(f"{file}: no such file, but {path.name} has its weights there: copy it to this place")
    return tuple(files)


class GraphRunner:
    """Runs a graph on frames of one size.

    Args:
        graph: what the file says about it.
        path: the file.
        size: height and width of the frames, in pixels.
        device: cpu or cuda:N.
        engine: the runtime; auto: OpenVINO on a CPU, or else ONNX Runtime.

    Attributes:
        engine: the runtime and its precision, in words.
        batch: frames per call; None if any number is accepted.
        warnings: why another runtime is used than the first choice.

    Raises:
        WeightsError: no runtime can run the graph.
        ConfigError: the runtime does not run on the device.
        MachineError: the runtime is not installed.
    """

    def __init__(
        self,
        graph: Graph,
        path: Path,
        size: tuple[int, int],
        device: str,
        engine: EngineName | Literal["auto"],
    ) -> None:
        self._graph, self._size, self._device = graph, size, device
        self.batch = graph.batch
        failures: list[str] = []
        for name in _choose_engines(engine, device):
            try:
                self._session = _start_session(name, path, device)
                self._find_batch()
            except MachineError:
                raise
            except Exception as error:  # ONNX Runtime's errors have no other base class in common
                failures.append(f"{name}: {_first_line(error)}")
                continue
            self.engine = f"{name} {package_version(_PACKAGES[name])}, float32"
            self.warnings = [f"detector.engine: {failure}: the graph runs in {name} instead" for failure in failures]
            return
        raise WeightsError(f"{path}: cannot be run with {size[0]} x {size[1]} pixels: {'; '.join(failures)}")

    def _find_batch(self) -> None:
        """Runs the graph, and finds out whether it takes a batch.

        Some graphs declare any batch size, but contain the one that they were exported with.
        """
        if self.batch is None:
            try:
                outputs = self(self._noise(_TRIAL_FRAMES)).values()
                lengths = {len(output) for output in outputs if output.ndim >= 3}  # torchvision's boxes have 2
                if lengths == {_TRIAL_FRAMES}:
                    return
            except Exception as error:  # as in `__init__`
                _log.info("the graph runs frame by frame: %s", _first_line(error))
            self.batch = 1
        self(self._noise(1))

    def try_noise(self) -> Outputs:
        """Returns the outputs for one frame of noise."""
        return self(self._noise(1))

    def _noise(self, num_frames: int) -> Array:
        shape = (num_frames, *self._size, self._graph.channels)
        noise = np.random.default_rng(0).random(shape, np.float32)
        return self.to_device(noise * 255 if self._graph.image.dtype == "uint8" else noise)

    def __call__(self, values: Array) -> Outputs:
        """Returns the graph's outputs. On a CPU, the next call may overwrite them.

        Args:
            values: frames as the graph wants them, but always (N, H, W, C), and at most as many as one call takes.
        """
        xp, graph, num_frames = array_namespace(values), self._graph, len(values)
        num_missing = (self.batch or num_frames) - num_frames
        if num_missing:
            values = xp.concat([values, *[values[:1]] * num_missing])
        image = xp.permute_dims(values, (0, 3, 1, 2)) if graph.layout == "nchw" else values
        if len(graph.image.shape) == 3:
            image = image[0]
        inputs = [
            xp.astype(image, getattr(xp, each.dtype))
            if each is graph.image
            else self.to_device(self._further_input(each, len(values)))
            for each in graph.inputs
        ]
        outputs = dict(zip(graph.output_names, self._session(*inputs), strict=True))
        return {name: output[:num_frames] for name, output in outputs.items()} if num_missing else outputs

    def _further_input(self, wanted: GraphInput, num_frames: int) -> NDArray[Any]:
        """Returns RT-DETR's sizes, which scale its boxes to pixels of the input, or DETR's mask, all ones."""
        if wanted.name == SIZES_INPUT:
            return np.tile(np.array(self._size[::-1], wanted.dtype), (num_frames, 1))
        height, width = (own or side for own, side in zip(wanted.shape[-2:], self._size, strict=True))
        return np.ones((num_frames, height, width), wanted.dtype)

    def to_device(self, array: NDArray[Any]) -> Array:
        """Returns the array; for a GPU, as a tensor there."""
        if self._device == "cpu":
            return array
        import torch

        return torch.from_numpy(array).to(self._device)


def _start_session(engine: EngineName, path: Path, device: str) -> Callable[..., Sequence[Array]]:
    if engine == "openvino":
        return OpenVinoSession(path, half=False)
    if device == "cpu":
        return OnnxHostSession(path)
    import torch

    return OnnxSession(path, torch.device(device))


def _choose_engines(asked: EngineName | Literal["auto"], device: str) -> list[EngineName]:
    """Returns the runtimes to try, in order."""
    if asked == "openvino" and device != "cpu":
        raise ConfigError(f"detector.engine: openvino does not run on {device}: leave engine out, or set device: cpu")
    has_onnx = importlib.util.find_spec("onnxruntime") is not None
    if device == "cpu" and asked != "onnx":
        return ["openvino", "onnx"] if asked == "auto" and has_onnx else ["openvino"]
    if not has_onnx:
        raise MachineError(f"detector.engine: onnx on {device} needs the package onnxruntime, or set device: cpu")
    return ["onnx"]


def runs_on_gpu() -> bool:
    """Returns whether the installed ONNX Runtime runs on GPUs."""
    if importlib.util.find_spec("onnxruntime") is None:
        return False
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def _first_line(error: BaseException) -> str:
    """Returns the first line of an error, without the places in OpenVINO's sources that it begins with."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = (line for line in lines if not re.match(r"Exception from|Check '|FrontEnd API", line))
    return next(told, type(error).__name__)


def class_names_of(
    asked: Sequence[str] | str | None, weights: Weights, metadata: Mapping[str, str]
) -> tuple[tuple[str, ...] | None, str]:
    """Returns the class names by class id, None if there are none, and where they come from.

    Args:
        asked: the config's names, or a file with them, relative to the working directory or to the weights.
        weights: their card may have names.
        metadata: of the graph.

    Raises:
        ConfigError: the file does not exist or holds no names.
    """
    if isinstance(asked, str):
        return _read_names(asked, weights.path.parent), asked
    if asked is not None:
        return tuple(asked), "the list"
    if weights.card is not None and weights.card.classes is not None:
        return weights.card.classes, f"the card {weights.card.name!r}"
    for key in _NAME_KEYS:
        names = _names_in(_plain(metadata.get(key, "")))
        if names is not None:
            return names, f"the graph's metadata {key!r}"
    return None, ""


def _read_names(name: str, folder: Path) -> tuple[str, ...]:
    places = [Path(name).expanduser(), folder / name]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise ConfigError(
            f"detector.classes: there is no file {name!r}, neither in the working directory nor next to the weights; "
            "names themselves are a list: [car, bus]"
        )
    if path.suffix.lower() in (".yaml", ".yml"):
        content = read_yaml(path, ConfigError)
        names = _names_in(content.get("names") if isinstance(content, dict) else content)
    else:
        try:
            names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"detector.classes: {path} cannot be read as text") from error
    if not names:
        raise ConfigError(f"detector.classes: {path} has no names: expected one on each line, or YAML with `names`")
    return names


def _names_in(value: object) -> tuple[str, ...] | None:
    """Returns the names in a list, or in a mapping whose keys are 0, 1, 2 and so on; None for anything else."""
    if isinstance(value, dict) and sorted(map(str, value)) == sorted(map(str, range(len(value)))):
        value = [value[key] for key in sorted(value, key=int)]
    return tuple(map(str, value)) if isinstance(value, list) and value else None


def _plain(text: str) -> object:
    """Returns the value in a text as Python or JSON writes it; None if the text holds no such value."""
    try:
        return parse_yaml(text)
    except ValueError:
        return None
