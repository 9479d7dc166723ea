"""Makes masks from boxes with SAM 2 or EdgeTAM, frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from prelabel.data.frames import FrameBatch
from prelabel.data.geometry import Mask
from prelabel.errors import DeviceMemoryError, WeightsError
from prelabel.models.devices import DeviceName, pick_device
from prelabel.models.hub import (
    import_transformers,
    licence_of,
    load_network,
    load_processor,
    model_type_of,
    resolve_hub_weights,
)
from prelabel.plugins.affects import Affects
from prelabel.plugins.protocols import ModelRecord
from prelabel.plugins.traits import ModelTraits

MODEL_TYPES = ("sam2", "sam2_video", "edgetam", "edgetam_video")
"""By `model_type` in config.json. Of a model for videos, only the part for images is loaded."""
BOXES_AT_A_TIME = 32
"""A mask of a 4K frame takes 33 MB in float32 before it is a mask of bits."""


class Sam2Refiner:
    """Runs SAM 2 on whole batches of frames, with their boxes as prompts.

    A mask is the one that transformers' own processor and model give for the box. The weights are loaded when the first
    frames arrive, since stored labels need their sha256 only.
    """

    class Options(BaseModel):
        """Options of SAM 2.

        Attributes:
            weights: a folder as `save_pretrained` writes it, or a hub id such as facebook/sam2.1-hiera-tiny
            revision: of a hub id, a commit, tag or branch; a commit gives every run the same weights
            device: auto | cpu | cuda | cuda:N | mps
        """

        model_config = ConfigDict(extra="forbid", frozen=True)

        weights: str
        revision: str | None = None
        device: Annotated[DeviceName, Affects.NOTHING] = "auto"

    def __init__(self, **options: object) -> None:
        self._options = self.Options.model_validate(options)
        self._device = pick_device(self._options.device)
        self._weights = resolve_hub_weights(self._options.weights, self._options.revision)
        model_type = model_type_of(self._weights)
        if model_type not in MODEL_TYPES:
            known = ", ".join(MODEL_TYPES)
            raise WeightsError(f"{self._weights.path}: config.json: model_type: got {model_type!r}, expected {known}")
        licence = licence_of(self._weights.path)
        self.traits = ModelTraits(
            model=ModelRecord(self._weights.name, self._weights.sha256, licence), device=str(self._device)
        )

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """The processor, and the network on its device."""
        library = import_transformers("refine")
        processor = load_processor(library.Sam2Processor, self._weights)
        network: Any = load_network(library.AutoModelForMaskGeneration, self._weights, "SAM 2")
        return processor, network.to(self._device).eval()

    def refine(self, batch: FrameBatch, boxes: Sequence[NDArray[np.float32]]) -> list[list[Mask | None]]:
        """Returns a mask for each box of each frame; None if it has no pixel.

        Args:
            batch: the frames.
            boxes: float32 (n, 4) for each frame, corners in pixels of the frame.

        Raises:
            DeviceMemoryError: the batch does not fit into the device's memory.
        """
        processor, network = self._loaded
        height, width = batch.shape[1:3]
        try:
            with torch.inference_mode():
                frames = batch.data.to(self._device).permute(0, 3, 1, 2)
                inputs = processor.image_processor(
                    images=list(frames), input_data_format="channels_first", return_tensors="pt"
                )
                levels = network.get_image_embeddings(inputs["pixel_values"].to(self._device))
                return [
                    self._masks([level[place, None] for level in levels], of_frame, (height, width))
                    for place, of_frame in enumerate(boxes)
                ]
        except torch.OutOfMemoryError as error:
            raise DeviceMemoryError(
                f"{len(batch)} frames do not fit on {self._device}: set refine.batch_size: 1"
            ) from error

    def _masks(
        self, embeddings: list[torch.Tensor], boxes: NDArray[np.float32], size: tuple[int, int]
    ) -> list[Mask | None]:
        """Returns the masks of one frame's boxes.

        Args:
            embeddings: of the frame, one (1, C, h, w) for each level.
            boxes: (n, 4).
            size: height and width of the frame.
        """
        processor, network = self._loaded
        masks: list[Mask | None] = []
        for start in range(0, len(boxes), BOXES_AT_A_TIME):
            some = [boxes[start : start + BOXES_AT_A_TIME].tolist()]
            prompt = processor(original_sizes=[list(size)], input_boxes=some, return_tensors="pt")["input_boxes"]
            found = network(
                image_embeddings=embeddings, input_boxes=prompt.to(self._device), multimask_output=False
            ).pred_masks
            (pixels,) = processor.post_process_masks([found[0]], [list(size)])
            masks += [_mask_of(each) for each in pixels[:, 0]]
        return masks


def _mask_of(pixels: torch.Tensor) -> Mask | None:
    """Returns the mask of pixels, bool (H, W). Only the window that holds them leaves the device."""
    rows, columns = pixels.any(dim=1).nonzero()[:, 0], pixels.any(dim=0).nonzero()[:, 0]
    if not len(rows):
        return None
    top, left = int(rows[0]), int(columns[0])
    window = pixels[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1]
    return Mask.of(window.cpu().numpy(), left, top)
