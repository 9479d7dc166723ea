from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional

from prelabel.models.classifiers.preparation import Preparation


def preparation(resize: int = 64, side: int = 56, method: str = "bilinear") -> Preparation:
    return Preparation(resize, side, method, (0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize("size", [(90, 131), (200, 120), (64, 64), (40, 30), (57, 901)])
@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_the_crop_is_that_of_torchvision_on_a_pillow_image(size, method):
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    scaled = functional.resize(Image.fromarray(picture), [64], functional.InterpolationMode(method))
    expected = np.asarray(functional.center_crop(scaled, [56]))

    found = preparation(method=method).crop(picture)

    assert np.array_equal(found, expected)
    assert np.array_equal(preparation(method=method).crop(torch.from_numpy(picture)), found)


def test_the_crop_on_a_gpu_is_much_the_same():
    """Its code runs on any device."""
    picture = np.random.default_rng(0).integers(0, 256, (90, 131, 3), np.uint8)
    found = preparation()._crop_on_gpu(torch.from_numpy(picture)).numpy()
    assert np.abs(found.astype(int) - preparation().crop(picture)).max() <= 1


@pytest.mark.parametrize("size", [(56, 56), (90, 131)])
def test_the_crop_does_not_share_the_image_s_memory(size):
    """A reader uses the memory again."""
    picture = np.full((*size, 3), 7, np.uint8)
    found = preparation(resize=56).crop(picture)
    picture[:] = 0
    assert (found == 7).all()
