"""Pictures through a classification network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from prelabel.errors import ClassifyError


@dataclass(frozen=True, slots=True)
class Preparation:
    """What becomes of an image before the network sees it, in torchvision's terms.

    Attributes:
        resize: pixels of the shorter side after scaling, with antialias.
        crop_size: pixels of the square that is cut from the middle.
        interpolation: torchvision's `InterpolationMode`.
        mean: by channel, of values 0..1.
        std: by channel.
    """

    resize: int
    crop_size: int
    interpolation: Any
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of_preset(cls, published: Any, imgsz: int | None) -> Preparation:
        """Returns the preparation of published weights, for another size of input in the same proportion."""
        preset = published.transforms()
        (crop_size,), (resize,) = preset.crop_size, preset.resize_size
        side = imgsz or crop_size
        return cls(round(resize * side / crop_size), side, preset.interpolation, tuple(preset.mean), tuple(preset.std))

    def crop(self, image: torch.Tensor) -> torch.Tensor:
        """Returns uint8 (3, side, side) of an image uint8 (H, W, 3)."""
        from torchvision.transforms.v2 import functional

        # As uint8, which is quicker than the preset's float32, and nearer to Pillow, on which the weights were scored.
        scaled = functional.resize(
            image.permute(2, 0, 1), [self.resize], interpolation=self.interpolation, antialias=True
        )
        cropped: torch.Tensor = functional.center_crop(scaled, [self.crop_size])
        return cropped

    def normalise(self, batch: torch.Tensor) -> torch.Tensor:
        """Returns float32 (N, 3, side, side) of uint8 images."""
        mean = torch.tensor(self.mean, device=batch.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=batch.device).view(1, 3, 1, 1)
        memory_format = torch.channels_last if batch.device.type == "cpu" else torch.contiguous_format
        return batch.float().div_(255).sub_(mean).div_(std).contiguous(memory_format=memory_format)


def forward(
    network: torch.nn.Module, preparation: Preparation, images: Sequence[torch.Tensor], device: torch.device
) -> Any:
    """Returns a network's outputs for images uint8 (H, W, 3), as it gives them: a tensor, or several.

    Raises:
        ClassifyError: the images do not fit on the device.
    """
    with torch.inference_mode():
        try:
            inputs = torch.stack([preparation.crop(image.to(device)) for image in images])
            return network(preparation.normalise(inputs))
        except torch.OutOfMemoryError as error:
            raise ClassifyError(
                f"{len(images)} pictures do not fit on {device}: lower classifier.batch_size"
            ) from error
