"""Detectors that Ultralytics loads: all YOLO generations, RT-DETR, their exports, and by words YOLO-World and YOLOE."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from prelabel.data.detections import Detections
from prelabel.data.frames import FrameBatch
from prelabel.data.geometry import GeometryKind, OutputSpec
from prelabel.errors import ConfigError, MachineError
from prelabel.models.detectors.base import DetectorOptions, ModelFacts, NetworkDetector, PendingBatch, class_ids_of
from prelabel.models.detectors.host import (
    NmsConfig,
    Rows,
    detections_of_rows,
    filter_sorted,
    grey_pixels,
    letterbox_pixels,
    move_to_frame,
    nms_rows,
    with_area,
)
from prelabel.models.detectors.ultralytics_engines import EngineName, EngineRequest, choose_engine, load_engine
from prelabel.models.detectors.ultralytics_words import vocabulary_of, weights_for_words
from prelabel.models.ultralytics_models import LoadedModel, load_model
from prelabel.models.weights import Weights

if TYPE_CHECKING:
    from prelabel.models.detectors.ultralytics_torch import TorchPath

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
            classes: Ultralytics' name of `only`
            agnostic_nms: boxes of different classes suppress each other too
            nms: false runs the head that needs no NMS, in models that have one
            words: what YOLO-World or YOLOE looks for, such as [forklift, safety vest]; null: labels.prompts, or else
                the model's own classes, or else the names of the ontology's objects
        """

        iou: float = Field(default=0.7, ge=0, le=1)
        imgsz: int = Field(default=640, ge=32)
        engine: Literal["auto"] | EngineName = "auto"
        half: bool | Literal["auto"] = "auto"
        classes: tuple[int | str, ...] | None = None
        agnostic_nms: bool = False
        nms: bool = True
        words: tuple[str, ...] | None = Field(default=None, min_length=1)

    _options: Options

    def _load(self, weights: Weights) -> ModelFacts:
        options, vocabulary = self._options, vocabulary_of(weights.path)
        if options.words is not None:
            if vocabulary == "fixed":
                raise ConfigError(f"detector.words: {weights.name} has fixed classes: choose some by detector.only")
            weights = weights_for_words(weights, options.words)
        elif vocabulary == "none":
            return ModelFacts((), word_passes=())
        self._weights = weights
        self._loaded = self._load_in_engine()
        facts = self._loaded.facts
        self._kind = _GEOMETRY.get(facts.task)
        # On a GPU, NMS image by image would wait for the device once per image.
        self._is_batched = not self._is_on_cpu
        self._nms = NmsConfig(
            conf=self._raw_conf,
            iou=options.iou,
            max_det=options.max_det,
            class_ids=class_ids_of(options.only or options.classes, facts.class_names),
            agnostic=options.agnostic_nms,
        )
        output = OutputSpec(self._kind, facts.keypoint_names)
        passes = None if vocabulary == "fixed" else () if options.words is None else (options.words,)
        return ModelFacts(facts.class_names, output, facts.licence, self._loaded.engine, passes)

    def with_words(self, words: Sequence[str]) -> Self:
        """Returns a detector that looks for these words; only for YOLO-World and YOLOE."""
        return type(self)(**{**self._options.model_dump(exclude_unset=True), "words": tuple(words)})

    def _load_in_engine(self) -> LoadedModel:
        """Returns the model in the requested engine. If that fails, warns and returns it in torch."""
        options, device = self._options, self._device_name
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
        half = self._half is True and (not self._is_on_cpu or not self._weights.path.suffix)
        return load_model(self._weights.path, self._device, half=half, nms_head=self._options.nms)

    def _replicate(self) -> bool:
        if self._loaded.replicate is None:
            return False
        self._loaded = self._loaded.replicate()
        return True

    def start(self, batch: FrameBatch) -> Callable[[], list[Detections]]:
        """Starts detection on a batch and returns a function that waits for the result.

        Boxes alone need no torch if the engine needs none.

        Raises:
            DeviceMemoryError: the batch does not fit into the device's memory.
        """
        session, facts = self._loaded.pixels, self._loaded.facts
        if session is None or facts.rtdetr or facts.task == "obb" or self._geometry_ids or not len(batch):
            return super().start(batch)
        frames = batch.array if facts.channels == 3 else grey_pixels(batch.array)
        height, width = frames.shape[1:3]
        box = self._loaded.letterbox(height, width, self._imgsz)

        def read(outputs: Sequence[NDArray[np.float32]]) -> list[Detections]:
            frames = [self._keep(prediction) for prediction in outputs[0]]
            return [detections_of_rows(with_area(move_to_frame(rows, box, height, width))) for rows in frames]

        return session.start(letterbox_pixels(frames, box), read)

    def _keep(self, prediction: NDArray[np.float32]) -> Rows:
        """Returns the kept boxes of one frame, in pixels of the network's input."""
        facts = self._loaded.facts
        if facts.has_boxes(prediction.shape):
            return filter_sorted(prediction[:, :6], self._nms)
        num_classes = facts.count_classes(prediction.shape)
        return nms_rows(prediction[: 4 + num_classes], num_classes, self._nms)

    def _start(self, batch: FrameBatch) -> PendingBatch:
        return self._torch_path.start(batch.source)

    @property
    def _torch_path(self) -> TorchPath:
        from prelabel.models.detectors.ultralytics_torch import TorchPath

        return TorchPath(self._loaded, self._nms, self._imgsz, self._kind, bool(self._geometry_ids), self._is_batched)

    @property
    def _imgsz(self) -> int:
        return math.ceil(self._options.imgsz / self._loaded.facts.stride) * self._loaded.facts.stride


def _choose_half(half: bool | Literal["auto"], device: str, suffix: str, engine: EngineName) -> bool | Literal["auto"]:
    """Returns whether the model runs in half precision; auto: as the engine decides.

    Raises:
        ConfigError: the export's precision is fixed.
        MachineError: half precision is requested, but this engine does not support it on the CPU.
    """
    is_openvino = engine == "openvino" or not suffix  # a folder is an OpenVINO export
    is_free = suffix.lower() in (".pt", ".torchscript") or is_openvino
    if half is True and not is_free:
        raise ConfigError(f"detector.half: the precision of a {suffix} export is fixed: leave half out")
    if device == "cpu":
        if half is True and not is_openvino:
            raise MachineError(
                "detector.half: got true, but the detector runs on the CPU: leave half out, set a GPU, or set "
                "engine: openvino, which computes in bfloat16 there"
            )
        return half
    return suffix.lower() in (".pt", ".torchscript") and half is not False
