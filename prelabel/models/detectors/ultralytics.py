"""Detectors that Ultralytics loads: YOLO of any generation, end-to-end heads, RT-DETR, and their exports."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from prelabel.data.boxes import Letterbox
from prelabel.data.detections import Detections
from prelabel.data.frames import FrameBatch
from prelabel.data.geometry import GeometryKind, OutputSpec
from prelabel.errors import ConfigError, DeviceMemoryError, MachineError, did_you_mean
from prelabel.models.detectors.nms import (
    Rule,
    keep_best,
    keep_best_by_confidence,
    suppress_one_by_one,
    suppress_together,
)
from prelabel.models.detectors.preprocess import (
    fit_batch_size,
    letterbox_frames,
    scale_table,
    stretch_frames,
    table_from_letterbox,
    time_batch,
)
from prelabel.models.detectors.rows import HostCopy, boxes_of_table, detections_of_rows
from prelabel.models.detectors.ultralytics_engines import EngineName, EngineRequest, choose_engine, load_engine
from prelabel.models.detectors.ultralytics_geometry import (
    Rows,
    read_keypoints,
    read_masks,
    read_turned,
    suppress_turned,
    turned_from_letterbox,
    upright_table,
)
from prelabel.models.detectors.ultralytics_loading import LoadedModel, load_model
from prelabel.models.networks import pick_device
from prelabel.models.weights import Weights, resolve_weights
from prelabel.plugins.protocols import ModelRecord
from prelabel.plugins.traits import ModelTraits

_LARGEST_STRIDE = 64
_GEOMETRY: dict[str, GeometryKind] = {"segment": "mask", "obb": "rotated_box", "pose": "keypoints"}
_log = logging.getLogger(__name__)


class UltralyticsDetector:
    """Runs weights that Ultralytics loads, below its `predict` and equal to it, on whole batches.

    Attributes:
        class_names: names by class id.
        traits: the model, its thresholds, and what it gives beyond boxes.
        warnings: what the user should know of how the model was loaded.
    """

    class Options(BaseModel):
        """Named as in Ultralytics, whose defaults these are; those it does not have are explained.

        Attributes:
            weights: a card's name, a path, or an address with its sha256
            conf: least confidence of a box that becomes a label
            raw_conf: least confidence of a box that is kept in the raw detections; conf can be lowered to it later
            iou: of two boxes of one class that overlap more than this, the more confident one stays
            imgsz: longest side of the network's input, in pixels; rounded up to the model's stride, and ignored for
                exports of a fixed shape
            max_det: most boxes per frame
            engine: what runs the network; others than torch are exported once and kept; auto: TensorRT on a GPU,
                OpenVINO on a CPU, where they are installed
            half: float16 on a GPU, bfloat16 with OpenVINO on a CPU; auto: on a GPU
            device: auto | cpu | cuda | cuda:N
            classes: names or ids of the classes to find; null: all
            agnostic_nms: boxes of different classes suppress each other too
            nms: false runs the head that needs no NMS, in models that have one
        """

        model_config = ConfigDict(extra="forbid", frozen=True)

        weights: str
        conf: float = Field(default=0.25, ge=0, le=1)
        raw_conf: float = Field(default=0.05, ge=0, le=1)
        iou: float = Field(default=0.7, ge=0, le=1)
        imgsz: int = Field(default=640, ge=32)
        max_det: int = Field(default=300, ge=1)
        engine: EngineName | Literal["auto"] = "torch"
        half: bool | Literal["auto"] = "auto"
        device: str = "auto"
        classes: tuple[int | str, ...] | None = None
        agnostic_nms: bool = False
        nms: bool = True

    def __init__(self, **options: object) -> None:
        self._options = self.Options.model_validate(options)
        self._device = pick_device(self._options.device)
        weights = resolve_weights(self._options.weights)
        self.warnings: tuple[str, ...] = ()
        self._weights = weights
        self._loaded = self._load(weights)
        facts = self._loaded.facts
        self._kind = _GEOMETRY.get(facts.task)
        self._asked: frozenset[int] = frozenset()
        self.class_names: Sequence[str] = facts.class_names
        raw_conf = min(self._options.conf, self._options.raw_conf)
        self.traits = ModelTraits(
            model=ModelRecord(weights.name, weights.sha256, weights.licence or facts.licence, self._loaded.engine),
            batch_size=4 if self._device.type == "cpu" else 16,
            device=str(self._device),
            conf=self._options.conf,
            raw_conf=raw_conf,
            output=OutputSpec(self._kind, facts.keypoint_names),
        )
        self._together = self._device.type != "cpu"  # on a GPU each image's own NMS would have to be waited for
        self._fitting: dict[tuple[int, int], int] = {}
        class_ids = _class_ids(self._options.classes, self.class_names)
        self._rule = Rule(
            conf=raw_conf,
            iou=self._options.iou,
            max_det=self._options.max_det,
            class_ids=None if class_ids is None else torch.tensor(class_ids, device=self._device),
            agnostic=self._options.agnostic_nms,
        )

    def _load(self, weights: Weights) -> LoadedModel:
        """Returns the model in the engine that is asked for; where that fails, in torch, with a warning."""
        options, device = self._options, self._device
        engine = choose_engine(options.engine, device, weights.path)
        self._half = half = _choose_half(options.half, device, weights.path.suffix, engine)
        if engine != "torch":
            imgsz = math.ceil(options.imgsz / _LARGEST_STRIDE) * _LARGEST_STRIDE
            try:
                return load_engine(EngineRequest(weights, engine, device, half, imgsz, options.nms))
            except MachineError as error:
                self.warnings = (f"detector.engine: {error}: the model runs in torch instead",)
                _log.warning("%s", self.warnings[0])
        return self._load_in_torch()

    def _load_in_torch(self) -> LoadedModel:
        half = self._half and self._device.type != "cpu"
        return load_model(self._weights.path, self._device, half=half, nms_head=self._options.nms)

    def with_geometry(self, class_ids: frozenset[int]) -> UltralyticsDetector:
        """Returns a detector of the same model that gives masks, turned boxes or a pose of these classes as well.

        Of a class that has masks, what sets no pixel is left out, as `predict` does.
        """
        asked = copy.copy(self)
        asked._asked, asked._fitting = class_ids, {}
        if self._kind == "mask" and self._loaded.forward_masks is None:
            reason = f"detector.engine: {self._loaded.engine} gives no masks: the model runs in torch instead"
            asked.warnings = (*self.warnings, reason)
            asked._loaded = self._load_in_torch()
        return asked

    def replicate(self) -> UltralyticsDetector | None:
        """Returns a detector on the same weights for another thread: of a checkpoint in torch on a CPU."""
        if self._device.type != "cpu" or self._loaded.replicate is None:
            return None
        replica = copy.copy(self)
        replica._loaded = self._loaded.replicate()
        return replica

    def fit_batch(self, height: int, width: int) -> int:
        """Returns the frames a batch that use the device well, for frames of this size; on a GPU it tries some."""
        if self._device.type == "cpu":
            return self.traits.batch_size or 1
        size = (height, width)
        if size not in self._fitting:
            self._fitting[size] = fit_batch_size(lambda num: time_batch(self.start, height, width, self._device, num))
        return self._fitting[size]

    def detect(self, batch: FrameBatch) -> list[Detections]:
        """Returns one `Detections` a frame, highest confidence first, in pixels of the displayed frame."""
        return self.start(batch)()

    def start(self, batch: FrameBatch) -> Callable[[], list[Detections]]:
        """Begins with a batch and returns what waits for its detections; on a GPU nothing is waited for until then."""
        if not len(batch):
            return list
        with torch.inference_mode():
            try:
                frames = batch.data.to(self._device, non_blocking=True)
                inputs, to_frame = self._prepare(frames)
                prediction, prototypes = self._forward(inputs)
                table, is_sure = self._keep(prediction)
                arriving = HostCopy(_with_flag(to_frame(table), is_sure))
            except torch.OutOfMemoryError as error:
                raise DeviceMemoryError(f"{len(batch)} frames do not fit on {self._device}") from error

        def finish() -> list[Detections]:
            # A copy from the host may go on until now, so the batch is held.
            table, flag = np.split(arriving.wait(), [len(batch)])
            with torch.inference_mode():
                if not flag.all():
                    table = to_frame(self._keep_exactly(prediction)).cpu().numpy()
                return self._detections(table, prototypes, *frames.shape[1:3])

        return finish

    def _forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Returns the prediction, without what nobody has asked for, and the prototypes of masks where they are."""
        if self._asked and self._loaded.forward_masks is not None:
            return self._loaded.forward_masks(inputs)
        prediction, facts = self._loaded.forward(inputs), self._loaded.facts
        if self._asked or facts.task in ("detect", "obb"):  # a turned box is no box without its angle
            return prediction, None
        return prediction[..., :6] if facts.end2end else prediction[:, : 4 + len(self.class_names)], None

    def _detections(
        self, table: NDArray[np.float32], prototypes: torch.Tensor | None, height: int, width: int
    ) -> list[Detections]:
        """Returns what a table on the host holds, with the geometry that is asked for."""
        if self._kind == "rotated_box":
            table = upright_table(table, height, width)
        frames = boxes_of_table(table)
        if not self._asked:
            return [detections_of_rows(rows) for rows in frames]
        is_asked = [np.isin(rows[:, 5].astype(np.int64), list(self._asked)) for rows in frames]
        asked_rows = [rows[asked] for rows, asked in zip(frames, is_asked, strict=True)]
        found = []
        for rows, asked, known in zip(
            frames, is_asked, self._geometry_of(asked_rows, prototypes, height, width), strict=True
        ):
            column = np.full(len(rows), None, object)
            column[asked] = known
            keep = ~asked | column.astype(np.bool_)  # a mask that sets no pixel is no thing
            found.append(detections_of_rows(rows[keep], column[keep]))
        return found

    def _geometry_of(
        self, frames: Sequence[Rows], prototypes: torch.Tensor | None, height: int, width: int
    ) -> list[NDArray[np.object_]]:
        if prototypes is not None:
            return read_masks(frames, prototypes, height, width)
        if self._kind == "rotated_box":
            return [read_turned(rows) for rows in frames]
        box, num_values = self._letterbox(height, width), self._loaded.facts.keypoint_values
        return [read_keypoints(rows, num_values, box, height, width) for rows in frames]

    def _prepare(self, frames: torch.Tensor) -> tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]:
        """Returns the network's input, and what brings a table's boxes from the output's space into the frame's."""
        height, width = frames.shape[1:3]
        if self._loaded.facts.rtdetr:
            inputs = stretch_frames(frames, *self._square(), self._loaded.dtype)
            return inputs, lambda table: scale_table(table, height, width)
        box = self._letterbox(height, width)
        inputs = letterbox_frames(frames, box, self._loaded.dtype)
        to_frame = turned_from_letterbox if self._kind == "rotated_box" else table_from_letterbox
        return inputs, lambda table: to_frame(table, box, height, width)

    def _keep(self, prediction: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Returns the table of the boxes that are kept, and on a GPU a bool that says whether it is sure."""
        facts = self._loaded.facts
        needs_nms = not (facts.rtdetr or facts.end2end or prediction.shape[-1] == 6)
        if needs_nms and self._together and facts.task != "obb":
            return suppress_together(prediction, self._num_classes(prediction), self._rule)
        return self._keep_exactly(prediction), None

    def _keep_exactly(self, prediction: torch.Tensor) -> torch.Tensor:
        facts = self._loaded.facts
        if facts.rtdetr:
            return keep_best_by_confidence(_rtdetr_rows(prediction), self._rule)
        if facts.end2end or prediction.shape[-1] == 6:
            return keep_best(prediction, self._rule)
        if facts.task == "obb":
            return suppress_turned(prediction, len(self.class_names), self._rule)
        return suppress_one_by_one(prediction, self._num_classes(prediction), self._rule)

    def _num_classes(self, prediction: torch.Tensor) -> int:
        return prediction.shape[1] - 4 if self._loaded.facts.task == "detect" else len(self.class_names)

    def _letterbox(self, height: int, width: int) -> Letterbox:
        if self._loaded.input_size is not None:
            return Letterbox.fit_fixed(height, width, *self._loaded.input_size)
        return Letterbox.fit(height, width, self._imgsz, self._loaded.facts.stride)

    def _square(self) -> tuple[int, int]:
        return self._loaded.input_size or (self._imgsz, self._imgsz)

    @property
    def _imgsz(self) -> int:
        return math.ceil(self._options.imgsz / self._loaded.facts.stride) * self._loaded.facts.stride


def _rtdetr_rows(prediction: torch.Tensor) -> torch.Tensor:
    """Returns rows (N, K, 6), corners in fractions of the frame, of RT-DETR's centres and sizes."""
    if prediction.shape[-1] != 6:  # older exports leave the choice of the class to the caller
        confidence, class_id = prediction[..., 4:].max(dim=-1, keepdim=True)
        prediction = torch.cat([prediction[..., :4], confidence, class_id.to(prediction.dtype)], dim=-1)
    prediction = prediction.float()
    centre, half_size = prediction[..., :2], prediction[..., 2:4] / 2
    corners = torch.cat([centre - half_size, centre + half_size], dim=-1).clamp_(0, 1)
    return torch.cat([corners, prediction[..., 4:]], dim=-1)


def _with_flag(table: torch.Tensor, is_sure: torch.Tensor | None) -> torch.Tensor:
    """Returns the table with one image more, which says whether it is sure, so that one copy brings both."""
    if is_sure is None:
        return table
    return torch.cat([table, is_sure.float().expand(1, *table.shape[1:])])


def _choose_half(half: bool | Literal["auto"], device: torch.device, suffix: str, engine: EngineName) -> bool:
    free = suffix.lower() in (".pt", ".torchscript")
    if half is True and not free:
        raise ConfigError(f"detector.half: the precision of a {suffix or 'folder'} export is fixed: leave half out")
    if device.type == "cpu":
        if half is True and engine != "openvino":
            raise MachineError(
                "detector.half: got true, but the detector runs on the CPU: leave half out, set a GPU, or set "
                "engine: openvino, which computes in bfloat16 there"
            )
        return half is True
    return free and half is not False


def _class_ids(classes: Sequence[int | str] | None, class_names: Sequence[str]) -> list[int] | None:
    if classes is None:
        return None
    for name in classes:
        if isinstance(name, str) and name not in class_names:
            raise ConfigError(
                f"detector.classes: {name!r} is no class of this model; {did_you_mean(name, class_names)}"
            )
        if isinstance(name, int) and not 0 <= name < len(class_names):
            raise ConfigError(f"detector.classes: got {name}, this model has 0 to {len(class_names) - 1}")
    return [class_names.index(name) if isinstance(name, str) else name for name in classes]
