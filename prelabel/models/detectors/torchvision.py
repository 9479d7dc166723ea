"""Detectors from torchvision's detection builders, with published weights or your own."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from prelabel.data.frames import FrameBatch
from prelabel.data.geometry import GeometryKind, Keypoints, OutputSpec
from prelabel.errors import ConfigError, WeightsError, did_you_mean
from prelabel.models.detectors.base import DetectorOptions, ModelFacts, NetworkDetector, PendingBatch, class_ids_of
from prelabel.models.detectors.host import Rows
from prelabel.models.detectors.postprocess import (
    HostCopy,
    PixelWindow,
    masks_of_windows,
    rows_of_table,
    table_of_frames,
)
from prelabel.models.networks import (
    StateDict,
    builder_name,
    differing_names,
    import_torchvision,
    read_state_dict,
    ready_on,
    replica_of,
    unknown_builder,
)
from prelabel.models.weights import Weights

_EXAMPLE = "torchvision.models.detection.fasterrcnn_resnet50_fpn_v2"
_NO_CLASS = "N/A"  # torchvision's name for a gap in COCO's numbers
# Parts of a network whose first dimension grows with the number of labels.
_CLASS_LAYERS = ("cls_score", "cls_logits", "classification_head.module_list")
# Arguments that the config's weights and classes set. With the first two, torchvision would fetch other weights.
_FETCHING_ARGS = ("weights", "weights_backbone", "num_classes")

_BACKBONE_ARGS = ("width_mult",)  # an argument of MobileNetV3, which builders pass on in **kwargs


def build_network(
    builder: str,
    *,
    num_labels: int,
    builder_args: Mapping[str, Any],
    state_dict: StateDict,
    weights_path: Path,
    raw_conf: float,
    device: torch.device,
) -> torch.nn.Module:
    """Returns the builder's network with these weights, ready on the device.

    Args:
        builder: name of a function of `torchvision.models.detection`.
        num_labels: number of labels, including the background.
        builder_args: further keyword arguments for the builder.
        state_dict: the network's weights.
        weights_path: path of the weights, for error messages.
        raw_conf: confidence below which the network may drop boxes.
        device: where it runs.

    Raises:
        ConfigError: there is no such builder, or it does not take the arguments.
        WeightsError: the weights belong to another network.
    """
    models = import_torchvision("detector")
    known = models.list_models(module=models.detection)
    if builder not in known:
        raise unknown_builder("detector", builder, known)
    for name in _FETCHING_ARGS:
        if name in builder_args:
            raise ConfigError(f"detector.builder_args.{name}: is set by the weights and classes: leave it out")
    try:
        network = models.get_model(builder, weights=None, weights_backbone=None, num_classes=num_labels, **builder_args)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"detector.builder_args: {builder} does not take them: {error}") from error
    _check_arguments(builder_args, [models.get_model_builder(builder), type(network).__init__])
    _check_match(network.state_dict(), state_dict, num_labels, f"{weights_path}: does not fit {builder}")
    network.load_state_dict(state_dict)
    heads = getattr(network, "roi_heads", network)
    if hasattr(heads, "score_thresh"):  # builders' own thresholds are between 0.001 and 0.2
        heads.score_thresh = raw_conf
    return ready_on(network, device)


def published_categories(builder: str) -> list[str]:
    """Returns the class names of a builder's published weights, for labels from 1 on; gaps are named N/A.

    Raises:
        ConfigError: torchvision has no such builder.
    """
    models = import_torchvision("detector")
    try:
        weights = models.get_model_weights(builder)
    except ValueError as error:
        known = models.list_models(module=models.detection)
        raise unknown_builder("detector", builder, known) from error
    categories: list[str] = next(iter(weights)).meta["categories"]
    return categories[1:]


def _check_arguments(builder_args: Mapping[str, Any], takers: Sequence[Callable[..., Any]]) -> None:
    """Raises a ConfigError for an unknown argument, since builders and networks accept anything in **kwargs."""
    known = {*_BACKBONE_ARGS, *(name for taker in takers for name in inspect.signature(taker).parameters)}
    for name in builder_args:
        if name not in known:
            raise ConfigError(f"detector.builder_args.{name}: is no argument of it: {did_you_mean(name, known)}")


def _check_match(wanted: StateDict, got: StateDict, num_labels: int, where: str) -> None:
    names = differing_names(wanted, wanted, got)
    if names:
        raise WeightsError(
            f"{where}: {names}: these are another network's weights: set builder and builder_args to those that it was "
            "trained with"
        )
    differing = [name for name in wanted if wanted[name].shape != got[name].shape]
    if differing:
        raise WeightsError(f"{where}: {_describe(differing, wanted, got, num_labels)}")


def _describe(differing: list[str], wanted: StateDict, got: StateDict, num_labels: int) -> str:
    class_layers = [name for name in differing if any(layer in name for layer in _CLASS_LAYERS)]
    name = class_layers[0] if class_layers else differing[0]
    shapes = f"{name} is {tuple(got[name].shape)}, expected {tuple(wanted[name].shape)}"
    found = len(got[name]) * num_labels / len(wanted[name])
    if class_layers and found.is_integer() and not any(name.startswith("backbone.") for name in differing):
        return (
            f"{shapes}: it has {int(found) - 1} classes, {num_labels - 1} are named: name its classes in classes: […]; "
            "to find some of them, set only: […]"
        )
    return f"{shapes}: set builder and builder_args to those that it was trained with"


_SET_FROM = 0.5
"""Probability from which a pixel belongs to the object, as in torchvision's own examples."""
_MARGIN = 1 / 14
"""Part of a box's side: torchvision pastes masks of 28 cells with one cell beyond each edge, and rounds."""

Output = Mapping[str, torch.Tensor]


def without_heads(network: torch.nn.Module) -> tuple[GeometryKind | None, torch.nn.Module]:
    """Returns which geometry a network outputs, and the same network without the heads for it."""
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
    """Returns a copy of a module with the same submodules, which can be replaced without changing the original."""
    copied = copy.copy(module)
    copied._modules = dict(module._modules)
    return copied


def keypoint_names(network: torch.nn.Module, builder: str, asked: Sequence[str] | None) -> tuple[str, ...]:
    """Returns the names of a network's keypoints, in order: the config's, the published ones, or numbers.

    Raises:
        ConfigError: the number of names in the config is not the network's number of keypoints.
    """
    predictor = getattr(getattr(network, "roi_heads", None), "keypoint_predictor", None)
    num = predictor.kps_score_lowres.out_channels if predictor is not None else 0
    if asked is not None and len(asked) != num:
        raise ConfigError(f"detector.keypoints: got {len(asked)} names, the network has {num} keypoints")
    if asked is not None or not num:
        return tuple(asked or ())
    published = next(iter(import_torchvision("detector").get_model_weights(builder))).meta.get("keypoint_names", ())
    return tuple(published) if len(published) == num else tuple(map(str, range(num)))


def read_masks(outputs: Sequence[Output], frames: Sequence[Rows]) -> list[NDArray[np.object_]]:
    """Returns the masks of each frame's rows, object (n,).

    Args:
        outputs: the network's outputs, one per frame.
        frames: rows whose seventh column is the box's index in the output.
    """
    return masks_of_windows([list(_windows(output, rows)) for output, rows in zip(outputs, frames, strict=True)])


def _windows(output: Output, rows: Rows) -> Iterator[PixelWindow]:
    """Yields the part of each mask that can have set pixels, since torchvision's masks are as large as the frame."""
    masks = output["masks"][:, 0]
    height, width = masks.shape[1:]
    for index, (x1, y1, x2, y2) in zip(rows[:, 6].astype(np.int64).tolist(), rows[:, :4].tolist(), strict=True):
        x, y = (x2 - x1) * _MARGIN + 2, (y2 - y1) * _MARGIN + 2
        left, top = max(math.floor(x1 - x), 0), max(math.floor(y1 - y), 0)
        right, bottom = min(math.ceil(x2 + x), width), min(math.ceil(y2 + y), height)
        yield PixelWindow(left, top, masks[index, top:bottom, left:right] >= _SET_FROM)


def read_keypoints(outputs: Sequence[Output], frames: Sequence[Rows]) -> list[NDArray[np.object_]]:
    """Returns the keypoints of each frame's rows, object (n,).

    The network's score of a keypoint is the peak of its heat map. The confidence is the logistic function of it.

    Args:
        outputs: the network's outputs, one per frame.
        frames: rows whose seventh column is the box's index in the output.
    """
    columns = []
    for output, rows in zip(outputs, frames, strict=True):
        points, scores = output["keypoints"][..., :2].cpu().numpy(), output["keypoints_scores"].sigmoid().cpu().numpy()
        column = np.full(len(rows), None, object)
        for row, index in enumerate(rows[:, 6].astype(np.int64).tolist()):
            column[row] = Keypoints(points[index], scores[index])
        columns.append(column)
    return columns


class TorchvisionDetector(NetworkDetector):
    """Runs a torchvision detection network, which scales and normalises frames and does NMS itself."""

    class Options(DetectorOptions):
        """What a config may say.

        Attributes:
            weights: a card's name, a path or an address: a state dict of the builder's network.
            builder: a function of `torchvision.models.detection`; by default the card's.
            builder_args: keyword arguments for it, such as `box_nms_thresh`; by default the card's.
            classes: names in the order of the labels, without the background; by default the card's, or those of the
                builder's published weights.
            keypoints: names of the network's keypoints in their order; by default those of the builder's published
                weights.
            max_det: most boxes per frame; the builder's own limit may be lower.
        """

        builder: str | None = None
        builder_args: dict[str, Any] = Field(default_factory=dict)
        classes: tuple[str, ...] | None = None
        keypoints: tuple[str, ...] | None = None

    _options: Options

    def _load(self, weights: Weights) -> ModelFacts:
        options, card = self._options, weights.card
        builder = builder_name("detector", options.builder, card, options.weights, _EXAMPLE)
        categories = options.classes or (card.classes if card else None) or tuple(published_categories(builder))
        self._network = build_network(
            builder,
            num_labels=1 + len(categories),
            builder_args={**(card.builder_args if card else {}), **options.builder_args},
            state_dict=read_state_dict(weights.path),
            weights_path=weights.path,
            raw_conf=self._raw_conf,
            device=self._device,
        )
        names = tuple(name for name in categories if name != _NO_CLASS)
        self._class_by_label = _class_by_label(categories, class_ids_of(options.only, names)).to(self._device)
        self._kind, self._boxes_network = without_heads(self._network)
        return ModelFacts(names, OutputSpec(self._kind, keypoint_names(self._network, builder, options.keypoints)))

    def _replicate(self) -> bool:
        self._network, self._boxes_network = replica_of(self._network), replica_of(self._boxes_network)
        return True

    def _start(self, batch: FrameBatch) -> PendingBatch:
        network = self._network if self._geometry_ids else self._boxes_network
        images = batch.data.permute(0, 3, 1, 2).to(torch.float32).div_(255)
        outputs: list[Output] = network(list(images))
        table = table_of_frames([self._rows(output) for output in outputs], self._options.max_det)
        copied = HostCopy(table)
        read = {"mask": read_masks, "keypoints": read_keypoints}.get(self._kind or "")
        return PendingBatch(
            rows=lambda: rows_of_table(copied.wait()),
            geometry=None if read is None else lambda rows: read(outputs, rows),
        )

    def _rows(self, output: Output) -> torch.Tensor:
        """Returns x1, y1, x2, y2, confidence, class id and index in the output of each kept box."""
        class_ids = self._class_by_label[output["labels"]]
        keep = (output["scores"] > self._raw_conf) & (class_ids >= 0)
        indices = torch.arange(len(keep), device=keep.device)
        columns = [output["scores"], class_ids.float(), indices.float()]
        rows = torch.cat([output["boxes"], torch.stack(columns, dim=1)], dim=1)[keep]
        return rows[rows[:, 4].argsort(descending=True, stable=True)[: self._options.max_det]]


def _class_by_label(categories: Sequence[str], kept: Sequence[int] | None = None) -> torch.Tensor:
    """Returns the class id of each label, int64 (1 + number of categories,); -1 for the background and for gaps.

    If `kept` is given, it is -1 for all other class ids too.

    >>> _class_by_label(["person", "N/A", "car"]).tolist(), _class_by_label(["person", "N/A", "car"], [1]).tolist()
    ([-1, 0, -1, 1], [-1, -1, -1, 1])
    """
    class_ids = torch.full((1 + len(categories),), -1)
    named = [label for label, name in enumerate(categories, start=1) if name != _NO_CLASS]
    class_ids[named] = torch.arange(len(named))
    if kept is not None:
        class_ids[~torch.isin(class_ids, torch.tensor(kept))] = -1
    return class_ids
