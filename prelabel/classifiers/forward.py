"""Pictures through a classification network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from prelabel.classifiers.preparation import Preparation
from prelabel.errors import ClassifyError


def forward(
    network: torch.nn.Module, preparation: Preparation, images: Sequence[torch.Tensor], device: torch.device
) -> Any:
    """Returns a network's outputs for pictures uint8 (H, W, 3), as it gives them: a tensor, or several.

    Raises:
        ClassifyError: the pictures do not fit on the device.
    """
    with torch.inference_mode():
        try:
            inputs = torch.stack([preparation.crop(image.to(device)) for image in images])
            return network(preparation.normalise(inputs))
        except torch.OutOfMemoryError as error:
            raise ClassifyError(
                f"{len(images)} pictures do not fit on {device}: lower classifier.batch_size"
            ) from error
