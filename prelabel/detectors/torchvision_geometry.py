"""What torchvision's networks tell beyond boxes: Mask R-CNN's masks and Keypoint R-CNN's keypoints."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from prelabel.detectors.masks import PixelWindow, masks_on_host
from prelabel.errors import ConfigError
from prelabel.geometry import GeometryKind, Keypoints
from prelabel.networks.torchvision_models import import_models

_SET_FROM = 0.5
"""Probability from which a pixel is the thing's, as torchvision's own examples draw masks."""
_MARGIN = 1 / 14
"""Of a box's side: a mask is pasted a fourteenth of 28 cells over the edge, and rounded."""

Output = Mapping[str, torch.Tensor]


def without_heads(network: torch.nn.Module) -> tuple[GeometryKind | None, torch.nn.Module]:
    """Returns what a network tells beyond boxes, and the network without the heads that do; weights are shared."""
    heads = getattr(network, "roi_heads", None)
    has_mask = getattr(heads, "mask_predictor", None) is not None
    has_keypoints = getattr(heads, "keypoint_predictor", None) is not None
    if heads is None or not (has_mask or has_keypoints):
        return None, network
    light, light_heads = _shallow(network), _shallow(heads)
    light.roi_heads = light_heads
    for part in ("roi_pool", "head", "predictor"):
        setattr(light_heads, f"{'mask' if has_mask else 'keypoint'}_{part}", None)
    return "mask" if has_mask else "keypoints", light


def _shallow(module: torch.nn.Module) -> torch.nn.Module:
    """Returns a module of the same parts, which may be changed in one and not in the other."""
    copied = copy.copy(module)
    copied._modules = dict(module._modules)
    return copied


def keypoint_names(network: torch.nn.Module, builder: str, asked: Sequence[str] | None) -> tuple[str, ...]:
    """Returns the names of a network's keypoints in their order; numbers where nobody has named them.

    Raises:
        ConfigError: as many are not asked for as the network has.
    """
    predictor = getattr(getattr(network, "roi_heads", None), "keypoint_predictor", None)
    num = predictor.kps_score_lowres.out_channels if predictor is not None else 0
    if asked is not None and len(asked) != num:
        raise ConfigError(f"detector.keypoints: got {len(asked)} names, the network has {num} keypoints")
    if asked is not None or not num:
        return tuple(asked or ())
    published = next(iter(import_models("detector").get_model_weights(builder))).meta.get("keypoint_names", ())
    return tuple(published) if len(published) == num else tuple(map(str, range(num)))


def read_masks(outputs: Sequence[Output], places: Sequence[NDArray[np.int64]]) -> list[NDArray[np.object_]]:
    """Returns the masks of those boxes of each frame's output that stand at these places, object (n,).

    Args:
        outputs: of the network, a frame each.
        places: int64 (n,), of each frame.
    """
    return masks_on_host([list(_windows(output, rows)) for output, rows in zip(outputs, places, strict=True)])


def _windows(output: Output, places: NDArray[np.int64]) -> Iterator[PixelWindow]:
    """Yields the part of each mask in which pixels may be set: torchvision's are as large as the frame."""
    masks = output["masks"][:, 0]
    height, width = masks.shape[1:]
    boxes = output["boxes"][torch.from_numpy(places).to(masks.device)].cpu().tolist()
    for place, (x1, y1, x2, y2) in zip(places.tolist(), boxes, strict=True):
        x, y = (x2 - x1) * _MARGIN + 2, (y2 - y1) * _MARGIN + 2
        left, top = max(math.floor(x1 - x), 0), max(math.floor(y1 - y), 0)
        right, bottom = min(math.ceil(x2 + x), width), min(math.ceil(y2 + y), height)
        yield PixelWindow(left, top, masks[place, top:bottom, left:right] >= _SET_FROM)


def read_keypoints(outputs: Sequence[Output], places: Sequence[NDArray[np.int64]]) -> list[NDArray[np.object_]]:
    """Returns the keypoints of those boxes of each frame's output that stand at these places, object (n,).

    A network's score of a point is the peak of its heat map, of which the logistic function is taken.

    Args:
        outputs: of the network, a frame each.
        places: int64 (n,), of each frame.
    """
    columns = []
    for output, rows in zip(outputs, places, strict=True):
        points, scores = output["keypoints"][..., :2].cpu().numpy(), output["keypoints_scores"].sigmoid().cpu().numpy()
        column = np.full(len(rows), None, object)
        for row, place in enumerate(rows.tolist()):
            column[row] = Keypoints(points[place], scores[place])
        columns.append(column)
    return columns
