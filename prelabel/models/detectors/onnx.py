"""Detectors that other tools exported to ONNX. `onnx_formats.py` has the formats of their outputs."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from array_api_compat import array_namespace
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, TypeAdapter

from prelabel.data.boxes import Letterbox
from prelabel.data.detections import Detections
from prelabel.data.frames import FrameBatch
from prelabel.data.surfaces import Surfaces
from prelabel.errors import ConfigError
from prelabel.models.detectors.base import DetectorOptions, ModelFacts, NetworkDetector, PendingBatch, class_ids_of
from prelabel.models.detectors.host import (
    Array,
    NmsConfig,
    Pixels,
    Rows,
    detections_of_rows,
    filter_sorted,
    grey_pixels,
    letterbox_pixels,
    move_to_frame,
    nms_rows,
    on_host,
    with_area,
)
from prelabel.models.detectors.onnx_formats import (
    FORMATS,
    BoxUnits,
    Form,
    FormatName,
    Preparation,
    Reading,
    count_classes,
    find_form,
    guess_box_units,
    guess_format,
    is_raw_yolox,
    read_boxes,
    settle_detr,
)
from prelabel.models.detectors.onnx_graph import (
    EngineName,
    Graph,
    GraphRunner,
    Layout,
    Outputs,
    class_names_of,
    read_graph,
    runs_on_gpu,
)
from prelabel.models.weights import ModelCard, Weights, sha256_of

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)


class InputOptions(BaseModel):
    """How frames become the graph's input. What is not set is as the format's own tool does it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: tuple[PositiveInt, PositiveInt] | None = Field(
        None, description="height and width in pixels, for a graph that takes any size"
    )
    resize: Literal["letterbox", "stretch"] | None = Field(
        None, description="letterbox (keeps the aspect ratio, pads with grey) | stretch"
    )
    align: Literal["centre", "top_left"] | None = Field(
        None, description="place of the frame in a letterbox: centre | top_left"
    )
    channels: Literal["rgb", "bgr"] | None = Field(None, description="order of the channels: rgb | bgr")
    layout: Layout | None = Field(
        None, description="order of the dimensions: nchw | nhwc; by default as the graph's shape tells"
    )
    scale: float | None = Field(None, gt=0, description="pixels, 0 to 255, are divided by this, such as 255 or 1")
    mean: float | tuple[float, float, float] | None = Field(
        None, description="subtracted after that; one number, or one for each channel in its order"
    )
    std: float | tuple[float, float, float] | None = Field(
        None, description="divisor after that; one number, or one for each channel in its order"
    )
    antialias: bool | None = Field(None, description="scale frames as Pillow does, not as OpenCV does")


class OnnxOptions(DetectorOptions):
    """What an exported graph does not say by itself has to be set.

    Attributes:
        weights: an .onnx file: a path, a card's name or an address
        format: the tool's form of outputs; auto: told from their names and shapes, where that is safe
        classes: names in the order of the class ids, or a file: a name on each line, or YAML with `names`; by default
            from the graph's metadata
        input: how frames are prepared: size, resize, align, channels, layout, scale, mean, std, antialias; by default
            as the format's tool does it
        device: auto | cpu | cuda | cuda:N
        iou: of two boxes of one class that overlap more than this, the more confident one stays; by default 0.45 for
            yolov5 and yolox, 0.7 for yolov8; the other formats need no such step
        first_label: label of the first class, in outputs with labels; by default 1 for ssd, otherwise 0
        box_units: pixels or fractions of the input, in outputs with labels; auto: told from the outputs
        engine: auto: OpenVINO on a CPU, ONNX Runtime on a GPU
    """

    format: FormatName | Literal["auto"] = "auto"
    classes: tuple[str, ...] | str | None = Field(default=None, min_length=1)
    input: InputOptions = Field(default_factory=InputOptions)
    iou: float | None = Field(default=None, ge=0, le=1)
    first_label: Literal[0, 1] | None = None
    box_units: BoxUnits | Literal["auto"] = "auto"
    engine: EngineName | Literal["auto"] = "auto"


class OnnxDetector(NetworkDetector):
    """Runs a detector that any tool exported to ONNX, if its outputs have one of the known formats."""

    Options: ClassVar[type[DetectorOptions]] = OnnxOptions
    _options: OnnxOptions

    def _choose_device(self) -> str:
        """Returns the device; `auto` is a CPU where ONNX Runtime does not run on the GPU."""
        device = super()._choose_device()
        if device == "mps":
            raise ConfigError(
                "detector.device: mps is for networks in torch, but use: onnx runs a graph: set device: cpu"
            )
        if device == "cpu" or self._options.device != "auto" or runs_on_gpu():
            return device
        self._warn("detector.device: the graph runs in OpenVINO on the CPU: for the GPU install onnxruntime-gpu")
        return "cpu"

    def _resolve_weights(self) -> Weights:
        weights = super()._resolve_weights()
        self._graph = read_graph(weights.path, self._options.input.layout)
        if not self._graph.data_files:
            return weights
        digests = [weights.sha256, *(sha256_of(path) for path in self._graph.data_files)]
        return replace(weights, sha256=hashlib.sha256(" ".join(digests).encode()).hexdigest())

    def _load(self, weights: Weights) -> ModelFacts:
        options, graph = self._options, self._graph
        self._size = _choose_size(graph, options.input.size)
        self._runner = GraphRunner(graph, weights.path, self._size, self._device_name, options.engine)
        for warning in self._runner.warnings:
            self._warn(warning)
        outputs = self._runner.try_noise()
        form = find_form(outputs)
        names, origin = class_names_of(options.classes, weights, graph.metadata)
        name = self._choose_format(weights.card, form, outputs, None if names is None else len(names))
        known = None if weights.card is None or weights.card.classes is None else len(weights.card.classes)
        names = _check_names(names, origin, count_classes(name, form, outputs) or known)
        first_label = int(name == "ssd") if options.first_label is None else options.first_label
        if first_label == 1 and names[0].strip("_").lower() == "background":
            names = names[1:]
        if first_label == 1 and names[11:12] == ("stop sign",):
            self._warn(
                "detector.classes: the 12th name is 'stop sign', as in the list of 80 names of COCO. Most graphs of "
                "this format count COCO's classes up to 90 with gaps, and 'stop sign' is 13: then give 90 names"
            )
        box_units = options.box_units
        if box_units == "auto":
            box_units = guess_box_units(form, outputs) if name == "ssd" else "pixels"
        is_raw = name == "yolox" and is_raw_yolox(form, outputs, self._size)
        self._reading = Reading(name, form, *self._size, len(names), first_label, box_units, is_raw)
        self._preparation = _choose_preparation(name, graph, options.input)
        self._mean, self._std = (
            self._runner.to_device(np.array(values, np.float32))
            for values in (self._preparation.mean, self._preparation.std)
        )
        self._needs_nms = FORMATS[name].iou is not None
        iou = options.iou if options.iou is not None else FORMATS[name].iou or 1.0
        self._nms = NmsConfig(self._raw_conf, iou, options.max_det, class_ids_of(options.only, names))
        return ModelFacts(names, licence=graph.metadata.get("license"), engine=self._runner.engine)

    def _choose_format(
        self, card: ModelCard | None, form: Form, outputs: Outputs, num_classes: int | None
    ) -> FormatName:
        """Returns the format that the config or the card sets, or else the one that the graph shows, with a warning."""
        asked = self._options.format
        if asked == "auto" and card is not None and card.format is not None:
            asked = TypeAdapter(FormatName).validate_python(card.format)
        if asked != "auto":
            return settle_detr(asked, form, num_classes)
        inputs = [each.name for each in self._graph.inputs]
        name, reason = guess_format(form, outputs, self._graph.metadata, inputs, num_classes, self._size)
        self._warn(f"detector.format: assumed {name}, because of {reason}: set format: {name} if this is right")
        return name

    def _warn(self, warning: str) -> None:
        self.warnings = (*self.warnings, warning)
        _log.warning("%s", warning)

    def start(self, batch: FrameBatch) -> Callable[[], list[Detections]]:
        """Detects on a batch, on a CPU without torch, and returns a function that returns the result.

        Raises:
            DeviceMemoryError: the batch does not fit into the device's memory.
        """
        if not self._is_on_cpu or not len(batch):
            return super().start(batch)
        frames = batch.array
        found = [rows for part in self._parts(len(frames)) for rows in self._rows_of(frames[part])]
        self._check_class_ids(found)
        return lambda: [detections_of_rows(rows) for rows in found]

    def _rows_of(self, frames: Pixels) -> list[Rows]:
        """Returns the kept boxes of each frame, in pixels of the frame."""
        height, width = frames.shape[1:3]
        box = self._letterbox(height, width)
        smooth, is_grey = self._preparation.antialias, self._graph.channels == 1
        pixels = letterbox_pixels(grey_pixels(frames) if is_grey else frames, box, smooth=smooth)
        found = on_host(read_boxes(self._runner(self._values(pixels)), self._reading))
        if self._needs_nms:
            kept = [nms_rows(prediction, self._reading.num_classes, self._nms) for prediction in found]
        else:
            kept = [filter_sorted(rows[np.argsort(-rows[:, 4], kind="stable")], self._nms) for rows in found]
        return [with_area(move_to_frame(rows, box, height, width)) for rows in kept]

    def _parts(self, num_frames: int) -> list[slice]:
        """Returns which frames of a batch the graph takes at once."""
        size = self._runner.batch or num_frames
        return [slice(start, start + size) for start in range(0, num_frames, size)]

    def _start(self, batch: FrameBatch) -> PendingBatch:
        from prelabel.models.detectors.postprocess import copy_table, rows_of_table

        # On a GPU, NMS image by image would wait for the device once per image.
        source = batch.source
        table, is_exact = self._table(source, is_batched=True)
        wait = copy_table(table, is_exact, lambda: self._table(source, is_batched=False)[0])

        def rows() -> list[Rows]:
            found = rows_of_table(wait())
            self._check_class_ids(found)
            return found

        return PendingBatch(rows)

    def _table(self, frames: torch.Tensor | Surfaces, *, is_batched: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Returns the table of kept boxes in pixels of the frame and, after batched NMS, whether it is exact."""
        import torch

        from prelabel.models.detectors import postprocess

        height, width = frames.shape[1:3]
        box = self._letterbox(height, width)
        tables, flags = [], []
        for part in self._parts(len(frames)):
            found = read_boxes(self._runner(self._values(self._pad(frames[part], box))), self._reading)
            if not self._needs_nms:
                tables.append(postprocess.filter_rows(postprocess.sort_rows(found), self._nms))
            elif is_batched:
                table, is_exact = postprocess.nms_batched(found, self._reading.num_classes, self._nms)
                tables.append(table)
                flags.append(is_exact)
            else:
                tables.append(postprocess.nms_per_image(found, self._reading.num_classes, self._nms))
        table = move_to_frame(torch.cat(tables), box, height, width)
        return table, torch.stack(flags).all() if flags else None

    def _pad(self, frames: torch.Tensor | Surfaces, box: Letterbox) -> torch.Tensor:
        from prelabel.models.detectors import preprocess

        if isinstance(frames, Surfaces) and (self._graph.channels == 1 or self._preparation.antialias):
            frames = frames.rgb()
        if self._graph.channels == 1:
            frames = preprocess.grey_frames(frames)
        if self._preparation.antialias:
            frames = preprocess.resize_smoothly(frames, box.scaled_height, box.scaled_width)
        return preprocess.pad_frames(frames, box)

    def _letterbox(self, height: int, width: int) -> Letterbox:
        if self._preparation.resize == "stretch":
            return Letterbox(*self._size, *self._size, top=0, left=0)
        fit = Letterbox.fit_fixed if self._preparation.align == "centre" else Letterbox.fit_top_left
        return fit(height, width, *self._size)

    def _values(self, pixels: Array) -> Array:
        """Returns pixels (N, H, W, C), 0..255, in the graph's order of channels and its values."""
        xp, preparation = array_namespace(pixels), self._preparation
        if preparation.channels == "bgr":
            pixels = xp.flip(pixels, axis=-1)
        if self._graph.image.dtype == "uint8":
            return pixels
        values = xp.astype(pixels, xp.float32)
        if preparation.scale != 1:
            values /= preparation.scale
        if (preparation.mean, preparation.std) != (0.0, 1.0):
            values -= self._mean
            values /= self._std
        return values

    def _check_class_ids(self, found: Sequence[Rows]) -> None:
        class_ids = np.concatenate([rows[:, 5] for rows in found])
        num, first = self._reading.num_classes, self._reading.first_label
        wrong = class_ids[(class_ids < 0) | (class_ids >= num)]
        if len(wrong):
            raise ConfigError(
                f"detector.classes: the graph gives the label {int(wrong[0]) + first}, but {num} names are for the "
                f"labels {first} to {num - 1 + first}: give a name for each label, and set first_label to the label of "
                "the first name"
            )


def _choose_size(graph: Graph, asked: tuple[int, int] | None) -> tuple[int, int]:
    """Returns the height and width of the input: the graph's own, or else those that are set."""
    height, width = graph.size
    if asked is not None and (height or asked[0], width or asked[1]) != asked:
        raise ConfigError(f"detector.input.size: got {list(asked)}, the graph takes {height} x {width} only")
    found = asked or graph.metadata_size
    if found is None and (height is None or width is None):
        raise ConfigError(
            "detector.input.size: is missing, and the graph takes any size: set height and width to those of the "
            "training, such as size: [640, 640]"
        )
    wanted_height, wanted_width = found or (0, 0)
    return height or wanted_height, width or wanted_width


def _choose_preparation(name: FormatName, graph: Graph, options: InputOptions) -> Preparation:
    """Returns the preparation of the format with the changes of the config."""
    changes = options.model_dump(exclude_none=True, exclude={"size", "layout"})
    unfit = [key for key in ("scale", "mean", "std") if key in changes]
    if graph.image.dtype == "uint8" and unfit:
        raise ConfigError(f"detector.input.{unfit[0]}: the graph takes uint8 pixels, 0 to 255: leave {unfit[0]} out")
    return replace(FORMATS[name].preparation, **changes)


def _check_names(names: tuple[str, ...] | None, origin: str, count: int | None) -> tuple[str, ...]:
    """Returns the class names, checked against the graph's number of classes if that is known."""
    if not names:
        wanted = "the names" if count is None else f"{count} names"
        raise ConfigError(
            f"detector.classes: is missing, and the graph's metadata has no names: give {wanted} in the order of the "
            "class ids, as a list, or as a file with a name on each line"
        )
    if count is not None and len(names) != count:
        raise ConfigError(
            f"detector.classes: {origin} has {len(names)} names, the graph has {count} classes: name each; to find "
            "some of them, set only: […]"
        )
    return names
