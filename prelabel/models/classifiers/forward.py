"""Runs images through a classification network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from prelabel.errors import ClassifyError


@dataclass(frozen=True, slots=True)
class Preparation:
    """How an image is scaled, cropped and normalised for the network, in torchvision's terms.

    Attributes:
        resize: pixels of the shorter side after scaling, with antialias.
        crop_size: pixels of the square that is cut from the middle.
        interpolation: torchvision's `InterpolationMode`.
        mean: mean of each channel, for values 0..1.
        std: standard deviation of each channel.
    """

    resize: int
    crop_size: int
    interpolation: Any
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of_preset(cls, published: Any, imgsz: int | None) -> Preparation:
        """Returns the preparation of published weights; `imgsz` scales its crop and resize in proportion."""
        preset = published.transforms()
        (crop_size,), (resize,) = preset.crop_size, preset.resize_size
        side = imgsz or crop_size
        return cls(round(resize * side / crop_size), side, preset.interpolation, tuple(preset.mean), tuple(preset.std))

    def crop(self, image: torch.Tensor) -> torch.Tensor:
        """Returns an image, uint8 (H, W, 3), scaled and cropped to uint8 (3, side, side)."""
        from torchvision.transforms.v2 import functional

        # uint8 is faster than the preset's float32. It is also closer to Pillow, with which the weights were evaluated.
        scaled = functional.resize(
            image.permute(2, 0, 1), [self.resize], interpolation=self.interpolation, antialias=True
        )
        cropped: torch.Tensor = functional.center_crop(scaled, [self.crop_size])
        return cropped

    def normalise(self, batch: torch.Tensor) -> torch.Tensor:
        """Returns uint8 images, (N, 3, side, side), normalised as float32."""
        mean = torch.tensor(self.mean, device=batch.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=batch.device).view(1, 3, 1, 1)
        memory_format = torch.channels_last if batch.device.type == "cpu" else torch.contiguous_format
        return batch.float().div_(255).sub_(mean).div_(std).contiguous(memory_format=memory_format)


def forward(
    network: torch.nn.Module, preparation: Preparation, images: Sequence[torch.Tensor], device: torch.device
) -> Any:
    """Returns the network's raw outputs for images, uint8 (H, W, 3): one tensor or several.

    Raises:
        ClassifyError: the images do not fit on the device.
    """
    with torch.inference_mode():
        try:
            inputs = torch.stack([preparation.crop(image.to(device)) for image in images])
            return network(preparation.normalise(inputs))
        except torch.OutOfMemoryError as error:
            raise ClassifyError(f"{len(images)} images do not fit on {device}: lower classifier.batch_size") from error
