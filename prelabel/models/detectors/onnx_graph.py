"""Reads what an ONNX file says about its graph: inputs, outputs, metadata, class names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from prelabel.errors import ConfigError, WeightsError
from prelabel.models.weights import Weights
from prelabel.runtime.yaml_files import parse_yaml, read_yaml

Layout = Literal["nchw", "nhwc"]

SIZES_INPUT = "orig_target_sizes"
"""RT-DETR's second input: the width and height, in pixels, to which its boxes are scaled."""
MASK_INPUT = "pixel_mask"
"""DETR's second input: which pixels belong to the frame."""
_NAME_KEYS = ("names", "classes", "class_names", "labels")


@dataclass(frozen=True, slots=True)
class GraphInput:
    """An input of a graph.

    Attributes:
        name: its name.
        shape: its dimensions; None where any size is accepted.
        dtype: its type.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: torch.dtype


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
        onnx.TensorProto.FLOAT: torch.float32,
        onnx.TensorProto.FLOAT16: torch.float16,
        onnx.TensorProto.UINT8: torch.uint8,
        onnx.TensorProto.INT32: torch.int32,
        onnx.TensorProto.INT64: torch.int64,
        onnx.TensorProto.BOOL: torch.bool,
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
            f"{path}: the graph's inputs are {names}: expected one for the image, and besides it only {SIZES_INPUT} "
            f"(width and height) or {MASK_INPUT}: export the model with these"
        )
    (image,) = images
    if len(image.shape) not in (3, 4) or image.dtype not in (torch.float32, torch.float16, torch.uint8):
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
