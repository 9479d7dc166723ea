"""Formats of exported detectors: how each wants its frames, and how its outputs become boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from prelabel.errors import ConfigError
from prelabel.models.detectors.host import Array, on_host
from prelabel.models.detectors.onnx_graph import SIZES_INPUT, Outputs

if TYPE_CHECKING:
    import torch

FormatName = Literal["yolov5", "yolov8", "yolov10", "yolox", "rtdetr", "rfdetr", "detr", "ssd"]
BoxUnits = Literal["pixels", "fractions"]

_STRIDES = ((8, 16, 32), (8, 16, 32, 64), (16, 32))  # of the usual heads, of those for large inputs, of tiny ones
_LARGEST_LOGARITHM = 12.0  # of a side in strides: exp(12) * 8 pixels are more than a million


@dataclass(frozen=True, slots=True)
class Preparation:
    """How frames become a network's input.

    Attributes:
        resize: letterbox keeps the aspect ratio and pads with grey; stretch does not.
        align: the place of the frame in a letterbox.
        channels: order of the channels.
        scale: pixels, 0 to 255, are divided by this.
        mean: subtracted after that, for each channel in its order.
        std: divisor after that, for each channel in its order.
        antialias: whether each pixel is a mean of all pixels that it covers, as in Pillow; otherwise as in OpenCV.
    """

    resize: Literal["letterbox", "stretch"] = "letterbox"
    align: Literal["centre", "top_left"] = "centre"
    channels: Literal["rgb", "bgr"] = "rgb"
    scale: float = 255.0
    mean: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 1.0
    antialias: bool = False


_STRETCHED = Preparation(resize="stretch", antialias=True)
_IMAGENET = replace(_STRETCHED, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))  # torchvision's statistics


@dataclass(frozen=True, slots=True)
class Format:
    """A tool's export.

    Attributes:
        outputs: the outputs, in words.
        preparation: how the tool prepares frames.
        iou: the overlap that the tool's NMS allows; None if the format needs no NMS.
        scores_from: the first column of class scores, in a format with one output.
    """

    outputs: str
    preparation: Preparation
    iou: float | None = None
    scores_from: int = 4


FORMATS: dict[FormatName, Format] = {
    "yolov5": Format(
        "one output (N, boxes, 5 + classes): centre, size, objectness, scores",
        Preparation(),
        iou=0.45,
        scores_from=5,
    ),
    "yolov8": Format("one output (N, 4 + classes, boxes): centre, size, scores", Preparation(), iou=0.7),
    "yolov10": Format("one output (N, boxes, 6): corners, confidence, class", Preparation()),
    "yolox": Format(
        "one output (N, boxes, 5 + classes): centre, size, objectness, scores",
        Preparation(align="top_left", channels="bgr", scale=1.0),
        iou=0.45,
        scores_from=5,
    ),
    "rtdetr": Format("logits (N, queries, classes) and boxes (N, queries, 4), or labels, boxes and scores", _STRETCHED),
    "rfdetr": Format("dets (N, queries, 4) and labels (N, queries, classes)", _IMAGENET),
    "detr": Format("logits (N, queries, classes + 1) and boxes (N, queries, 4)", _IMAGENET),
    "ssd": Format("boxes ([N,] boxes, 4), labels and scores ([N,] boxes)", Preparation(resize="stretch")),
}


@dataclass(frozen=True, slots=True)
class Form:
    """The form of a graph's outputs.

    Attributes:
        kind: table: one output (N, ..., ...); queries: class logits (N, Q, C) and boxes (N, Q, 4); labelled: boxes
            ([N,] K, 4), labels and scores ([N,] K).
        names: names of these outputs in this order.
        shape: shape of the first of them.
        num_masks: number of mask coefficients, which follow the class scores in a table.
    """

    kind: Literal["table", "queries", "labelled"]
    names: tuple[str, ...]
    shape: tuple[int, ...]
    num_masks: int = 0

    @property
    def has_one_frame(self) -> bool:
        """Whether the outputs have no batch dimension, as in torchvision's exports."""
        return len(self.shape) == 2

    @property
    def is_tensorflow(self) -> bool:
        """Whether the graph comes from TensorFlow's detection API: fractions, y before x."""
        return "detection_boxes" in self.names[0]


@dataclass(frozen=True, slots=True)
class Reading:
    """How outputs are read.

    Attributes:
        name: the format.
        form: the form of the outputs.
        height: of the network's input, in pixels.
        width: of the network's input, in pixels.
        num_classes: number of classes.
        first_label: the label that the graph gives to the first class, if it gives labels.
        box_units: unit of the boxes, if the graph gives labels.
        is_raw: whether YOLOX's boxes are relative to their cells.
    """

    name: FormatName
    form: Form
    height: int
    width: int
    num_classes: int
    first_label: int = 0
    box_units: BoxUnits = "pixels"
    is_raw: bool = False


def read_boxes(outputs: Outputs, reading: Reading) -> Array:
    """Returns the boxes in outputs, in pixels of the network's input, in float32, where the outputs are.

    Returns:
        For a format that needs NMS, predictions (N, 4 + classes, A), as `nms_per_image` takes them. Otherwise rows
        (N, K, 6): corners, confidence, class id.
    """
    xp = array_namespace(*outputs.values())
    arrays = [xp.astype(outputs[name], xp.float32) for name in reading.form.names]
    if reading.form.kind == "labelled":
        return _read_labelled(arrays, reading)
    if reading.form.kind == "queries":
        return _read_queries(arrays, reading)
    (table,) = arrays
    if reading.name == "yolov10":
        return table
    if reading.name == "rtdetr":
        return _read_probabilities(table, reading)
    if reading.name == "yolov8":
        if table.shape[1] > table.shape[2]:  # some tools swap the last two dimensions
            table = xp.matrix_transpose(table)
        return table[:, : 4 + reading.num_classes]
    boxes = _decode_yolox(table, reading) if reading.is_raw else table[..., :4]
    scores = table[..., 4:5] * table[..., 5 : 5 + reading.num_classes]
    return xp.matrix_transpose(xp.concat([boxes, scores], axis=-1))


def _decode_yolox(table: Array, reading: Reading) -> Array:
    """Returns centres and sizes in pixels, as `decode_outputs` in YOLOX's yolo_head.py."""
    xp = array_namespace(table)
    cells = _cells_beside(table, reading.height, reading.width)
    assert cells is not None  # `is_raw_yolox` has checked it
    strides = cells[:, 2:]
    return xp.concat([(table[..., :2] + cells[:, :2]) * strides, xp.exp(table[..., 2:4]) * strides], axis=-1)


def _read_queries(arrays: Sequence[Array], reading: Reading) -> Array:
    xp = array_namespace(*arrays)
    logits, boxes = arrays
    boxes = _corners(boxes, reading)
    if reading.name == "detr":  # the last column means "no object"
        odds = xp.exp(logits - xp.max(logits, axis=-1, keepdims=True))
        probabilities = (odds / xp.sum(odds, axis=-1, keepdims=True))[..., :-1]
        return _rows(boxes, xp.max(probabilities, axis=-1), xp.argmax(probabilities, axis=-1))
    # As in RT-DETR's post-processing, a query may yield several classes.
    num_frames, num_queries, num_classes = logits.shape
    logits = xp.reshape(logits, (num_frames, -1))
    place = xp.argsort(logits, axis=1, descending=True)[:, :num_queries]
    confidence = 1 / (1 + xp.exp(-xp.take_along_axis(logits, place, axis=1)))
    query = xp.broadcast_to((place // num_classes)[..., None], (num_frames, num_queries, 4))
    return _rows(xp.take_along_axis(boxes, query, axis=1), confidence, place % num_classes)


def _read_probabilities(table: Array, reading: Reading) -> Array:
    """Reads RT-DETR as Ultralytics exports it: probabilities of the classes, or the best one and its class."""
    xp = array_namespace(table)
    boxes, scores = _corners(table[..., :4], reading), table[..., 4:]
    if table.shape[-1] == 6:
        return xp.concat([boxes, scores], axis=-1)
    return _rows(boxes, xp.max(scores, axis=-1), xp.argmax(scores, axis=-1))


def _read_labelled(arrays: Sequence[Array], reading: Reading) -> Array:
    boxes, labels, scores = arrays
    if reading.form.has_one_frame:
        boxes, labels, scores = boxes[None], labels[None], scores[None]
    if reading.form.is_tensorflow:
        boxes = boxes[..., [1, 0, 3, 2]]
    if reading.box_units == "fractions":
        boxes = _to_pixels(boxes, reading)
    return _rows(boxes, scores, labels - reading.first_label)


def _corners(boxes: Array, reading: Reading) -> Array:
    """Converts centres and sizes in fractions of the input to corners in its pixels."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return _to_pixels(array_namespace(boxes).concat([centre - half, centre + half], axis=-1), reading)


def _to_pixels(corners: Array, reading: Reading) -> Array:
    xp = array_namespace(corners)
    pixels = xp.stack([corners[..., 0::2] * reading.width, corners[..., 1::2] * reading.height], axis=-1)
    return xp.reshape(pixels, corners.shape)


def _rows(boxes: Array, confidence: Array, class_id: Array) -> Array:
    xp = array_namespace(boxes)
    return xp.concat([boxes, confidence[..., None], xp.astype(class_id, xp.float32)[..., None]], axis=-1)


# What outputs tell about their format


def find_form(outputs: Outputs) -> Form:
    """Returns the form of a graph's outputs.

    Raises:
        ConfigError: they have none of the known forms.
    """
    queries, labelled = _find_queries(outputs), _find_labelled(outputs)
    if queries is not None:
        return Form("queries", queries, tuple(outputs[queries[0]].shape))
    if labelled is not None:
        return Form("labelled", labelled, tuple(outputs[labelled[0]].shape))
    tables = [name for name, output in outputs.items() if output.ndim == 3]
    if len(tables) != 1:  # other outputs may be feature maps (5 dimensions, old YOLOv5) and mask prototypes (4)
        raise _unknown_format(outputs)
    num_masks = next((output.shape[1] for output in outputs.values() if output.ndim == 4), 0)
    return Form("table", (tables[0],), tuple(outputs[tables[0]].shape), num_masks)


def _find_queries(outputs: Outputs) -> tuple[str, str] | None:
    tables = {name: output for name, output in outputs.items() if output.ndim == 3 and _is_floating(output)}
    boxes = [name for name, output in tables.items() if output.shape[-1] == 4 and "logits" not in name]
    if len(boxes) > 1:
        boxes = [name for name in boxes if "box" in name or name == "dets"]
    logits = [name for name in tables if name not in boxes]
    if len(logits) > 1:  # transformers' graphs may have hidden states too
        logits = [name for name in logits if "logits" in name]
    if len(boxes) != 1 or len(logits) != 1 or tables[boxes[0]].shape[:2] != tables[logits[0]].shape[:2]:
        return None
    return logits[0], boxes[0]


def _find_labelled(outputs: Outputs) -> tuple[str, str, str] | None:
    boxes = [name for name, output in outputs.items() if output.ndim in (2, 3) and output.shape[-1] == 4]
    boxes = [name for name in boxes if outputs[name].ndim == max(outputs[each].ndim for each in boxes)]
    if len(boxes) != 1:
        return None
    columns = {name: output for name, output in outputs.items() if output.shape == outputs[boxes[0]].shape[:-1]}
    labels = [
        name
        for name, output in columns.items()
        if not _is_floating(output) or "label" in name.lower() or "class" in name.lower()
    ]
    scores = [name for name in columns if name not in labels]
    return (boxes[0], labels[0], scores[0]) if len(labels) == len(scores) == 1 else None


def count_classes(name: FormatName, form: Form, outputs: Outputs) -> int | None:
    """Returns the number of classes; None if the outputs do not tell.

    Raises:
        ConfigError: the outputs are not of this format.
    """
    if form.kind == "queries" and name in ("rtdetr", "rfdetr", "detr"):
        return form.shape[-1] - (name == "detr")
    if form.kind == "labelled" and name in ("rtdetr", "ssd"):
        return None
    if form.kind == "table" and name not in ("rfdetr", "detr", "ssd"):
        num_columns = min(form.shape[1:]) if name == "yolov8" else form.shape[2]
        if num_columns == 6 and name in ("yolov10", "rtdetr"):
            return None
        count = num_columns - FORMATS[name].scores_from - form.num_masks
        if count > 0 and name != "yolov10":
            return count
    raise ConfigError(
        f"detector.format: {name} has {FORMATS[name].outputs}; this graph has the outputs {_shapes(outputs)}"
    )


def settle_detr(asked: FormatName, form: Form, num_classes: int | None) -> FormatName:
    """Returns which of the DETR formats the outputs have, if `detr` is asked for."""
    if asked != "detr":
        return asked
    if form.kind != "queries":
        return "rtdetr"
    if form.names[1] == "dets":
        return "rfdetr"
    return "rtdetr" if form.shape[-1] == num_classes else "detr"


def guess_box_units(form: Form, outputs: Outputs) -> BoxUnits:
    """Returns the unit of an SSD's boxes.

    Raises:
        ConfigError: the outputs do not tell.
    """
    if form.is_tensorflow:
        return "fractions"
    if form.has_one_frame:
        return "pixels"
    largest = float(outputs[form.names[0]].max()) if all(form.shape) else 0.0
    if largest <= 0:
        raise ConfigError(
            "detector.box_units: cannot be told, since the graph finds nothing in noise: set pixels (of the input) or "
            "fractions"
        )
    return "pixels" if largest > 2 else "fractions"


def _num_cells(height: int, width: int, strides: Sequence[int]) -> int:
    return sum((height // stride) * (width // stride) for stride in strides)


def _cells_beside(table: Array, height: int, width: int) -> Array | None:
    """Returns `_cells` of the input's size on the device of a table (N, cells, ...)."""
    if isinstance(table, np.ndarray):
        return _cells(height, width, table.shape[1])
    return _cells_on(table.device, height, width, table.shape[1])


@lru_cache(maxsize=8)  # without the cache, every batch would copy them to the GPU, and the thread would wait
def _cells_on(device: torch.device, height: int, width: int, num_cells: int) -> torch.Tensor | None:
    import torch

    cells = _cells(height, width, num_cells)
    return None if cells is None else torch.from_numpy(cells).to(device)


@lru_cache(maxsize=8)
def _cells(height: int, width: int, num_cells: int) -> NDArray[np.float32] | None:
    """Returns the column, row and stride of each cell, float32 (num_cells, 3); None if no strides fit the number."""
    strides = next((each for each in _STRIDES if _num_cells(height, width, each) == num_cells), None)
    if strides is None:
        return None
    levels = []
    for stride in strides:
        rows, columns = np.mgrid[: height // stride, : width // stride]
        levels.append(np.stack([columns, rows, np.full_like(rows, stride)], axis=-1).reshape(-1, 3))
    return np.concatenate(levels).astype(np.float32)


def is_raw_yolox(form: Form, outputs: Outputs, size: tuple[int, int]) -> bool:
    """Returns whether boxes are relative to their cells, as YOLOX exports them without `decode_in_inference`.

    In a decoded output, the centre of a box is near its cell. In a raw output, it is near 0, and its sides are
    logarithms.
    """
    table = on_host(outputs[form.names[0]]).astype(np.float32)
    cells = _cells(*size, table.shape[1])
    if cells is None or table[..., 2:4].max() > _LARGEST_LOGARITHM:
        return False
    column = table[0, :, 0]
    return bool(np.median(np.abs(column)) < np.median(np.abs(column - cells[:, 0] * cells[:, 2])))


def guess_format(
    form: Form,
    outputs: Outputs,
    metadata: Mapping[str, str],
    inputs: Sequence[str],
    num_classes: int | None,
    size: tuple[int, int],
) -> tuple[FormatName, str]:
    """Returns the format of a graph, and what it was recognised by.

    Args:
        form: the form of the outputs.
        outputs: of a run with any input.
        metadata: of the graph.
        inputs: names of the graph's inputs.
        num_classes: number of class names; None without names.
        size: height and width of the input, in pixels.

    Raises:
        ConfigError: the graph could have several formats, or has none of them.
    """
    names = ", ".join(form.names)
    if form.kind == "queries":
        _refuse_probabilities(form, outputs)
        return _guess_detr(form, num_classes)
    if form.kind == "table":
        if "rtdetr" in (metadata.get("head", "") + metadata.get("description", "")).lower():
            return "rtdetr", "its metadata"
        return _guess_yolo(form, outputs, size)
    if SIZES_INPUT in inputs:
        return "rtdetr", f"the input {SIZES_INPUT}"
    if form.is_tensorflow or form.has_one_frame:
        return "ssd", f"the outputs {names}"
    raise _unknown_format(outputs, {"ssd": "labels from 1", "rtdetr": "labels from 0"})


def _refuse_probabilities(form: Form, outputs: Outputs) -> None:
    """Raises an error if what stands in the place of logits lies within 0 to 1, as in DAMO-YOLO and YOLO-NAS.

    Their boxes come before NMS and as corners in pixels. Read as a DETR's, they would be wrong without an error.
    """
    scores, boxes = form.names
    xp = array_namespace(outputs[scores])
    if 0 not in form.shape and float(xp.min(outputs[scores])) >= 0 and float(xp.max(outputs[scores])) <= 1:
        raise ConfigError(
            f"detector.format: cannot be told: {scores!r} and {boxes!r} have a DETR's shapes, but {scores!r} lies "
            "within 0 to 1, so it holds probabilities and no logits: export the graph with NMS inside, or set "
            "the format if it is a DETR"
        )


def _guess_detr(form: Form, num_classes: int | None) -> tuple[FormatName, str]:
    (logits, boxes), num_columns = form.names, form.shape[-1]
    if boxes == "dets":
        return "rfdetr", f"the outputs {boxes} and {logits}"
    if num_classes == num_columns:
        return "rtdetr", f"one column per class in {logits}"
    if num_classes == num_columns - 1:
        return "detr", f"one column more than classes in {logits}"
    got = "is missing" if num_classes is None else f"got {num_classes} names"
    raise ConfigError(
        f"detector.classes: {got}, but {logits!r} has {num_columns} columns: give {num_columns} names (format rtdetr: "
        f"a column per class), or {num_columns - 1} (format detr: the last column means no object)"
    )


def _guess_yolo(form: Form, outputs: Outputs, size: tuple[int, int]) -> tuple[FormatName, str]:
    reason = f"the output's shape (N, {form.shape[1]}, {form.shape[2]})"
    cells = [_num_cells(*size, strides) for strides in _STRIDES]
    if form.shape[2] in cells:
        return "yolov8", reason
    if form.shape[1] in [3 * num for num in cells]:  # three anchors per cell
        return "yolov5", reason
    if form.shape[1] in cells:
        if is_raw_yolox(form, outputs, size):
            return "yolox", f"{reason}, and boxes relative to their cells"
        raise _unknown_format(outputs, {"yolox": "BGR, 0 to 255", "yolov5": "RGB, 0 to 1, such as YOLOv6"})
    if form.shape[2] == 6:
        return "yolov10", reason
    raise _unknown_format(outputs)


def _is_floating(output: Array) -> bool:
    return bool(array_namespace(output).isdtype(output.dtype, "real floating"))


def _shapes(outputs: Outputs) -> str:
    return ", ".join(f"{name} {tuple(output.shape)}" for name, output in outputs.items())


def _unknown_format(outputs: Outputs, choices: Mapping[str, str] | None = None) -> ConfigError:
    known = choices or {name: form.outputs for name, form in FORMATS.items()}
    listed = "; ".join(f"{name}: {what}" for name, what in known.items())
    return ConfigError(
        f"detector.format: cannot be told from the outputs {_shapes(outputs)}: set the format of the tool that "
        f"exported the graph. {listed}"
    )
