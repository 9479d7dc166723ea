"""Detectors that Ultralytics loads: all YOLO generations, end-to-end heads, RT-DETR, and their exports."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from prelabel.data.boxes import Letterbox
from prelabel.data.geometry import GeometryKind, OutputSpec
from prelabel.errors import ConfigError, MachineError
from prelabel.models.detectors.base import DetectorOptions, ModelFacts, NetworkDetector, PendingBatch, class_ids_of
from prelabel.models.detectors.postprocess import (
    NmsConfig,
    Rows,
    copy_table,
    filter_rows,
    nms_batched,
    nms_per_image,
    rows_of_table,
    sort_rows,
)
from prelabel.models.detectors.preprocess import (
    boxes_from_fractions,
    boxes_from_letterbox,
    grey_frames,
    letterbox_frames,
    stretch_frames,
)
from prelabel.models.detectors.ultralytics_engines import EngineName, EngineRequest, choose_engine, load_engine
from prelabel.models.detectors.ultralytics_geometry import (
    nms_rotated,
    read_keypoints,
    read_masks,
    read_rotated,
    rotated_from_letterbox,
    upright_table,
)
from prelabel.models.ultralytics_models import LoadedModel, load_model
from prelabel.models.weights import Weights

_LARGEST_STRIDE = 64
_GEOMETRY: dict[str, GeometryKind] = {"segment": "mask", "obb": "rotated_box", "pose": "keypoints"}
_log = logging.getLogger(__name__)


class UltralyticsDetector(NetworkDetector):
    """Runs weights that Ultralytics loads on whole batches, with the same results as `predict`.

    It calls the network directly, since `predict` handles one source at a time and waits for the GPU after each image's
    NMS.
    """

    drops_empty_masks = True  # as `predict` does

    class Options(DetectorOptions):
        """Names and defaults are those of Ultralytics.

        Attributes:
            iou: of two boxes of one class that overlap more than this, the more confident one stays
            imgsz: longest side of the network's input, in pixels; rounded up to the model's stride, and ignored for
                exports of a fixed shape
            engine: what runs the network; the model is exported once for others than torch; auto: OpenVINO on a CPU,
                torch on a GPU; torch gives the boxes of `predict`
            half: float16 on a GPU, bfloat16 with OpenVINO on a CPU; auto: both, where the processor has it
            classes: names or ids of the classes to find; a name means all classes with that name; null: all
            agnostic_nms: boxes of different classes suppress each other too
            nms: false runs the head that needs no NMS, in models that have one
        """

        iou: float = Field(default=0.7, ge=0, le=1)
        imgsz: int = Field(default=640, ge=32)
        engine: Literal["auto"] | EngineName = "auto"
        half: bool | Literal["auto"] = "auto"
        classes: tuple[int | str, ...] | None = None
        agnostic_nms: bool = False
        nms: bool = True

    _options: Options

    def _load(self, weights: Weights) -> ModelFacts:
        options = self._options
        self._weights = weights
        self._loaded = self._load_in_engine()
        facts = self._loaded.facts
        self._kind = _GEOMETRY.get(facts.task)
        # On a GPU, NMS image by image would wait for the device once per image.
        self._is_batched = self._device.type != "cpu"
        class_ids = class_ids_of(options.classes, facts.class_names)
        self._nms = NmsConfig(
            conf=self._raw_conf,
            iou=options.iou,
            max_det=options.max_det,
            class_ids=None if class_ids is None else torch.tensor(class_ids, device=self._device),
            agnostic=options.agnostic_nms,
        )
        output = OutputSpec(self._kind, facts.keypoint_names)
        return ModelFacts(facts.class_names, output, facts.licence, self._loaded.engine)

    def _load_in_engine(self) -> LoadedModel:
        """Returns the model in the requested engine. If that fails, warns and returns it in torch."""
        options, device = self._options, self._device
        engine = choose_engine(options.engine, device, self._weights.path)
        self._half = _choose_half(options.half, device, self._weights.path.suffix, engine)
        if engine != "torch":
            imgsz = math.ceil(options.imgsz / _LARGEST_STRIDE) * _LARGEST_STRIDE
            try:
                return load_engine(EngineRequest(self._weights, engine, device, self._half, imgsz, options.nms))
            except MachineError as error:
                self.warnings = (f"detector.engine: {error}: the model runs in torch instead",)
                _log.warning("%s", self.warnings[0])
        return self._load_in_torch()

    def _load_in_torch(self) -> LoadedModel:
        half = self._half is True and (self._device.type != "cpu" or not self._weights.path.suffix)
        return load_model(self._weights.path, self._device, half=half, nms_head=self._options.nms)

    def _replicate(self) -> bool:
        if self._loaded.replicate is None:
            return False
        self._loaded = self._loaded.replicate()
        return True

    def _start(self, frames: torch.Tensor) -> PendingBatch:
        height, width = frames.shape[1:3]
        inputs, to_frame = self._prepare(frames)
        prediction, prototypes = self._forward(inputs)
        table, is_exact = self._keep(prediction)
        wait = copy_table(to_frame(table), is_exact, lambda: to_frame(self._keep_exactly(prediction)))

        def rows() -> list[Rows]:
            table = wait()
            return rows_of_table(upright_table(table, height, width) if self._kind == "rotated_box" else table)

        def geometry(frames: list[Rows]) -> list[NDArray[np.object_]]:
            if prototypes is not None:
                return read_masks(frames, prototypes, height, width)
            if self._kind == "rotated_box":
                return [read_rotated(rows) for rows in frames]
            box, num_values = self._letterbox(height, width), self._loaded.facts.keypoint_values
            return [read_keypoints(rows, num_values, box, height, width) for rows in frames]

        return PendingBatch(rows, geometry if self._kind is not None else None)

    def _prepare(self, frames: torch.Tensor) -> tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]:
        """Returns the network's input, and a function that converts a table of its output to pixels of the frame."""
        height, width = frames.shape[1:3]
        loaded = self._loaded
        if loaded.facts.channels == 1:
            frames = grey_frames(frames)
        if loaded.facts.rtdetr:
            inputs = stretch_frames(frames, *(loaded.input_size or (self._imgsz, self._imgsz)), loaded.dtype)
            return inputs, lambda table: boxes_from_fractions(table, height, width)
        box = self._letterbox(height, width)
        to_frame = rotated_from_letterbox if self._kind == "rotated_box" else boxes_from_letterbox
        return letterbox_frames(frames, box, loaded.dtype), lambda table: to_frame(table, box, height, width)

    def _forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Returns the prediction, and the mask prototypes if masks are requested.

        Columns that are not requested are cut off, so that they are not sorted and copied to the host.
        """
        if self._geometry_ids and self._loaded.forward_masks is not None:
            return self._loaded.forward_masks(inputs)
        prediction, facts = self._loaded.forward(inputs), self._loaded.facts
        if self._geometry_ids or facts.task in ("detect", "obb"):  # a rotated box needs its angle
            return prediction, None
        return prediction[..., :6] if facts.end2end else prediction[:, : 4 + len(facts.class_names)], None

    def _keep(self, prediction: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Returns a table of the kept boxes and, after batched NMS, a bool scalar: whether the table is exact."""
        if self._is_batched and self._needs_nms(prediction) and self._loaded.facts.task != "obb":
            return nms_batched(prediction, self._num_classes(prediction), self._nms)
        return self._keep_exactly(prediction), None

    def _keep_exactly(self, prediction: torch.Tensor) -> torch.Tensor:
        if self._loaded.facts.rtdetr:
            return filter_rows(sort_rows(_rtdetr_rows(prediction)), self._nms)
        if not self._needs_nms(prediction):
            return filter_rows(prediction, self._nms)
        if self._loaded.facts.task == "obb":
            return nms_rotated(prediction, len(self._loaded.facts.class_names), self._nms)
        return nms_per_image(prediction, self._num_classes(prediction), self._nms)

    def _needs_nms(self, prediction: torch.Tensor) -> bool:
        # Whether a head is end-to-end depends on the weights and on Ultralytics' version. The output's shape shows it.
        facts = self._loaded.facts
        return not (facts.rtdetr or facts.end2end or prediction.shape[-1] == 6)

    def _num_classes(self, prediction: torch.Tensor) -> int:
        facts = self._loaded.facts
        return prediction.shape[1] - 4 if facts.task == "detect" else len(facts.class_names)

    def _letterbox(self, height: int, width: int) -> Letterbox:
        if self._loaded.input_size is not None:
            return Letterbox.fit_fixed(height, width, *self._loaded.input_size)
        return Letterbox.fit(height, width, self._imgsz, self._loaded.facts.stride)

    @property
    def _imgsz(self) -> int:
        return math.ceil(self._options.imgsz / self._loaded.facts.stride) * self._loaded.facts.stride


def _rtdetr_rows(prediction: torch.Tensor) -> torch.Tensor:
    """Converts RT-DETR's centres and sizes to rows (N, K, 6) with corners in fractions of the frame."""
    if prediction.shape[-1] != 6:  # older exports have one column per class
        confidence, class_id = prediction[..., 4:].max(dim=-1, keepdim=True)
        prediction = torch.cat([prediction[..., :4], confidence, class_id.to(prediction.dtype)], dim=-1)
    prediction = prediction.float()
    centre, half_size = prediction[..., :2], prediction[..., 2:4] / 2
    corners = torch.cat([centre - half_size, centre + half_size], dim=-1).clamp_(0, 1)
    return torch.cat([corners, prediction[..., 4:]], dim=-1)


def _choose_half(
    half: bool | Literal["auto"], device: torch.device, suffix: str, engine: EngineName
) -> bool | Literal["auto"]:
    """Returns whether the model runs in half precision; auto: as the engine decides.

    Raises:
        ConfigError: the export's precision is fixed.
        MachineError: half precision is requested, but this engine does not support it on the CPU.
    """
    is_openvino = engine == "openvino" or not suffix  # a folder is an OpenVINO export
    is_free = suffix.lower() in (".pt", ".torchscript") or is_openvino
    if half is True and not is_free:
        raise ConfigError(f"detector.half: the precision of a {suffix} export is fixed: leave half out")
    if device.type == "cpu":
        if half is True and not is_openvino:
            raise MachineError(
                "detector.half: got true, but the detector runs on the CPU: leave half out, set a GPU, or set "
                "engine: openvino, which computes in bfloat16 there"
            )
        return half
    return suffix.lower() in (".pt", ".torchscript") and half is not False
