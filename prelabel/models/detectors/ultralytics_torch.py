"""Prepares frames for Ultralytics models, and reads their predictions, in torch on a CPU or a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from prelabel.data.geometry import GeometryKind
from prelabel.data.surfaces import Surfaces
from prelabel.models.detectors.base import PendingBatch
from prelabel.models.detectors.host import NmsConfig, Rows, move_to_frame
from prelabel.models.detectors.postprocess import (
    copy_table,
    filter_rows,
    nms_batched,
    nms_per_image,
    rows_of_table,
    sort_rows,
)
from prelabel.models.detectors.preprocess import boxes_from_fractions, grey_frames, letterbox_frames, stretch_frames
from prelabel.models.detectors.ultralytics_geometry import (
    nms_rotated,
    read_keypoints,
    read_masks,
    read_rotated,
    rotated_from_letterbox,
    upright_table,
)
from prelabel.models.ultralytics_models import LoadedModel


@dataclass(frozen=True, slots=True)
class TorchPath:
    """The way of a batch through a model in torch.

    Attributes:
        loaded: the model.
        nms: which boxes are kept.
        imgsz: longest side of the input, in pixels; a multiple of the model's stride.
        kind: what the model outputs in addition to boxes.
        wants_geometry: whether that is read.
        is_batched: whether NMS looks at all images at once, without waiting for the device.
    """

    loaded: LoadedModel
    nms: NmsConfig
    imgsz: int
    kind: GeometryKind | None
    wants_geometry: bool
    is_batched: bool

    def start(self, frames: torch.Tensor | Surfaces) -> PendingBatch:
        """Starts the network on frames, uint8 (N, H, W, 3), RGB, or surfaces. It does not wait for a GPU."""
        height, width = frames.shape[1:3]
        inputs, to_frame = self._prepare(frames)
        prediction, prototypes = self._forward(inputs)
        table, is_exact = self._keep(prediction)
        wait = copy_table(to_frame(table), is_exact, lambda: to_frame(self._keep_exactly(prediction)))

        def rows() -> list[Rows]:
            table = wait()
            return rows_of_table(upright_table(table, height, width) if self.kind == "rotated_box" else table)

        def geometry(frames: list[Rows]) -> list[NDArray[np.object_]]:
            if prototypes is not None:
                return read_masks(frames, prototypes, height, width)
            if self.kind == "rotated_box":
                return [read_rotated(rows) for rows in frames]
            box, num_values = self.loaded.letterbox(height, width, self.imgsz), self.loaded.facts.keypoint_values
            return [read_keypoints(rows, num_values, box, height, width) for rows in frames]

        return PendingBatch(rows, geometry if self.kind is not None else None)

    def _prepare(self, frames: torch.Tensor | Surfaces) -> tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]:
        """Returns the network's input, and a function that converts a table of its output to pixels of the frame."""
        height, width = frames.shape[1:3]
        loaded, dtype = self.loaded, getattr(torch, self.loaded.dtype)
        if loaded.facts.channels == 1:
            frames = grey_frames(frames.rgb() if isinstance(frames, Surfaces) else frames)
        if loaded.facts.rtdetr:
            inputs = stretch_frames(frames, *(loaded.input_size or (self.imgsz, self.imgsz)), dtype)
            return inputs, lambda table: boxes_from_fractions(table, height, width)
        box = self.loaded.letterbox(height, width, self.imgsz)
        to_frame = rotated_from_letterbox if self.kind == "rotated_box" else move_to_frame
        return letterbox_frames(frames, box, dtype), lambda table: to_frame(table, box, height, width)

    def _forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Returns the prediction, and the mask prototypes if masks are requested.

        Columns that are not requested are cut off, so that they are not sorted and copied to the host.
        """
        if self.wants_geometry and self.loaded.forward_masks is not None:
            return self.loaded.forward_masks(inputs)
        prediction, facts = self.loaded.forward(inputs), self.loaded.facts
        if self.wants_geometry or facts.task in ("detect", "obb"):  # a rotated box needs its angle
            return prediction, None
        return prediction[..., :6] if facts.end2end else prediction[:, : 4 + len(facts.class_names)], None

    def _keep(self, prediction: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Returns a table of the kept boxes and, after batched NMS, a bool scalar: whether the table is exact."""
        if self.is_batched and self._needs_nms(prediction) and self.loaded.facts.task != "obb":
            return nms_batched(prediction, self.loaded.facts.count_classes(prediction.shape[1:]), self.nms)
        return self._keep_exactly(prediction), None

    def _keep_exactly(self, prediction: torch.Tensor) -> torch.Tensor:
        if self.loaded.facts.rtdetr:
            return filter_rows(sort_rows(_rtdetr_rows(prediction)), self.nms)
        if not self._needs_nms(prediction):
            return filter_rows(prediction, self.nms)
        if self.loaded.facts.task == "obb":
            return nms_rotated(prediction, len(self.loaded.facts.class_names), self.nms)
        return nms_per_image(prediction, self.loaded.facts.count_classes(prediction.shape[1:]), self.nms)

    def _needs_nms(self, prediction: torch.Tensor) -> bool:
        facts = self.loaded.facts
        return not (facts.rtdetr or facts.has_boxes(prediction.shape[1:]))


def _rtdetr_rows(prediction: torch.Tensor) -> torch.Tensor:
    """Converts RT-DETR's centres and sizes to rows (N, K, 6) with corners in fractions of the frame."""
    if prediction.shape[-1] != 6:  # older exports have one column per class
        confidence, class_id = prediction[..., 4:].max(dim=-1, keepdim=True)
        prediction = torch.cat([prediction[..., :4], confidence, class_id.to(prediction.dtype)], dim=-1)
    prediction = prediction.float()
    centre, half_size = prediction[..., :2], prediction[..., 2:4] / 2
    corners = torch.cat([centre - half_size, centre + half_size], dim=-1).clamp_(0, 1)
    return torch.cat([corners, prediction[..., 4:]], dim=-1)
