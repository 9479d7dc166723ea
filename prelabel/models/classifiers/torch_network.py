"""Runs and exports classification networks in torch."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from prelabel.data.frames import Frames
from prelabel.errors import ClassifyError
from prelabel.models.classifiers.preparation import Preparation
from prelabel.models.networks import ready_on


class TorchNetwork:
    """Runs a network in torch.

    Args:
        network: takes normalised float32 (N, 3, side, side), and returns probabilities, (N, C).
        preparation: its images' preparation.
        device: where it runs.
    """

    def __init__(self, network: torch.nn.Module, preparation: Preparation, device: str) -> None:
        self._device = torch.device(device)
        self._network = ready_on(_with_norm(network, preparation), self._device)

    def __call__(self, images: Sequence[Frames]) -> NDArray[np.float32]:
        """Returns probabilities, (N, C), for images as `Preparation.crop` returns them.

        Raises:
            ClassifyError: the images do not fit on the device.
        """
        try:
            with torch.inference_mode():
                inputs = _stack(images).to(self._device).permute(0, 3, 1, 2).float().div_(255)
                found: NDArray[np.float32] = self._network(inputs).float().cpu().numpy()
                return found
        except torch.OutOfMemoryError as error:
            raise ClassifyError(
                f"{len(images)} images do not fit on {self._device}: lower classifier.batch_size"
            ) from error


def _stack(images: Sequence[Frames]) -> torch.Tensor:
    """Returns images, (side, side, 3), as one tensor. Those of a GPU's reader are tensors there, all others arrays."""
    tensors = [torch.from_numpy(image.copy()) if isinstance(image, np.ndarray) else image for image in images]
    return torch.stack([tensor.to(tensors[-1].device) for tensor in tensors])


def export_network(network: torch.nn.Module, preparation: Preparation, path: Path) -> None:
    """Writes a network as an ONNX graph for any number of images, (N, 3, side, side) in 0..1.

    Args:
        network: on the CPU; takes normalised float32 (N, 3, side, side), and returns probabilities, (N, C).
        preparation: its images' preparation.
        path: of the graph.
    """
    whole = _with_norm(network, preparation).eval()
    example = torch.zeros(2, 3, preparation.crop_size, preparation.crop_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's tracing exporter warns about its newer replacement
        torch.onnx.export(
            whole, (example,), path, input_names=["images"], dynamic_axes={"images": {0: "n"}}, dynamo=False
        )


def _with_norm(network: torch.nn.Module, preparation: Preparation) -> torch.nn.Module:
    """Returns the network with the normalisation of its input in front of it."""
    norm = torch.nn.BatchNorm2d(3, eps=0.0, affine=False)
    norm.running_mean = torch.tensor(preparation.mean)
    norm.running_var = torch.tensor(preparation.std).square()
    return torch.nn.Sequential(norm, network)
