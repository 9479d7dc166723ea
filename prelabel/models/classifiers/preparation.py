"""Scales and crops images for classification networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prelabel.data.frames import Frames

if TYPE_CHECKING:
    import torch

Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]


@dataclass(frozen=True, slots=True)
class Preparation:
    """How an image is scaled, cropped and normalised for a network, in torchvision's terms.

    Attributes:
        resize: pixels of the shorter side after scaling, with antialias; not less than `crop_size`.
        crop_size: pixels of the square that is cut from the middle.
        interpolation: how it is scaled.
        mean: mean of each channel, for values 0..1.
        std: standard deviation of each channel.
    """

    resize: int
    crop_size: int
    interpolation: Interpolation
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def crop(self, image: Frames) -> Frames:
        """Returns an image, uint8 (H, W, 3), scaled and cropped to uint8 (crop_size, crop_size, 3), as a copy.

        The result is an array for images on the host, and a tensor for those on a GPU.
        """
        if isinstance(image, np.ndarray):
            return self._crop_on_host(image)
        return self._crop_on_gpu(image) if image.is_cuda else self._crop_on_host(image.numpy())

    def _crop_on_host(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Returns the crop by Pillow, with which published weights were evaluated."""
        height, width = image.shape[:2]
        longer = int(self.resize * max(height, width) / min(height, width))
        size = (self.resize, longer) if width <= height else (longer, self.resize)
        # Pillow can scale a part of an image alone. It then rounds differently, and gives other pixels.
        scaled = Image.fromarray(image).resize(size, Image.Resampling[self.interpolation.upper()])
        left, top = (round((side - self.crop_size) / 2) for side in size)
        return np.asarray(scaled.crop((left, top, left + self.crop_size, top + self.crop_size)))

    def _crop_on_gpu(self, image: torch.Tensor) -> torch.Tensor:
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.v2 import functional

        method = InterpolationMode(self.interpolation)
        scaled = functional.resize(image.permute(2, 0, 1), [self.resize], interpolation=method, antialias=True)
        cropped: torch.Tensor = functional.center_crop(scaled, [self.crop_size])
        return cropped.permute(1, 2, 0).contiguous()
