"""Detectors that torchvision builds: any of its detection builders, with published weights or your own."""

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
from pydantic import BaseModel, ConfigDict, Field

from prelabel.data.detections import Detections
from prelabel.data.frames import FrameBatch
from prelabel.data.geometry import GeometryKind, Keypoints, OutputSpec
from prelabel.errors import ConfigError, DeviceMemoryError, WeightsError, did_you_mean
from prelabel.models.cards import ModelCard
from prelabel.models.detectors.rows import (
    HostCopy,
    PixelWindow,
    boxes_of_table,
    detections_of_rows,
    masks_on_host,
    pad_rows,
)
from prelabel.models.networks import (
    StateDict,
    builder_name,
    describe_names,
    import_models,
    no_builder,
    pick_device,
    read_state_dict,
    ready_on,
    replica_of,
)
from prelabel.models.weights import resolve_weights
from prelabel.plugins.protocols import ModelRecord
from prelabel.plugins.traits import ModelTraits

# Parts of a network whose first dimension grows with the number of labels.
_CLASS_LAYERS = ("cls_score", "cls_logits", "classification_head.module_list")
# They would fetch weights that the file is about to replace.
_FETCHING_ARGS = ("weights", "weights_backbone", "num_classes")

_BACKBONE_ARGS = ("width_mult",)  # of MobileNetV3, handed on without being named


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
        num_labels: with the background.
        builder_args: further keyword arguments for it.
        state_dict: the network's weights.
        weights_path: where they come from, for messages.
        raw_conf: boxes below it need not come out.
        device: where it runs.

    Raises:
        ConfigError: if there is no such builder, or it does not take the arguments.
        WeightsError: if the weights are those of another network.
    """
    models = import_models("detector")
    known = models.list_models(module=models.detection)
    if builder not in known:
        raise no_builder("detector", builder, known)
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
    _lower_threshold(network, raw_conf)
    return ready_on(network, device)


def published_categories(builder: str) -> list[str]:
    """Returns the class names of a builder's published weights, by label and without label 0; gaps are named N/A.

    Raises:
        ConfigError: if there are none.
    """
    models = import_models("detector")
    try:
        weights = models.get_model_weights(builder)
    except ValueError as error:
        known = models.list_models(module=models.detection)
        raise no_builder("detector", builder, known) from error
    categories: list[str] = next(iter(weights)).meta["categories"]
    return categories[1:]


def _check_arguments(builder_args: Mapping[str, Any], takers: Sequence[Callable[..., Any]]) -> None:
    """Names an argument that nobody takes: builders and networks swallow it as one of their **kwargs."""
    known = {*_BACKBONE_ARGS, *(name for taker in takers for name in inspect.signature(taker).parameters)}
    for name in builder_args:
        if name not in known:
            raise ConfigError(f"detector.builder_args.{name}: is no argument of it: {did_you_mean(name, known)}")


def _lower_threshold(network: torch.nn.Module, raw_conf: float) -> None:
    """Sets the score below which the network drops boxes; builders' own lie between 0.001 and 0.2."""
    holder = getattr(network, "roi_heads", network)
    if hasattr(holder, "score_thresh"):
        holder.score_thresh = raw_conf


def _check_match(wanted: StateDict, got: StateDict, num_labels: int, where: str) -> None:
    names = describe_names(wanted, wanted, got)
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
            f"{shapes}: it has {int(found) - 1} classes, {num_labels - 1} are named: name its classes in classes: […]"
        )
    return f"{shapes}: set builder and builder_args to those that it was trained with"


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


_EXAMPLE = "torchvision.models.detection.fasterrcnn_resnet50_fpn_v2"

_NO_CLASS = "N/A"  # COCO's numbering has gaps; torchvision names them so


class TorchvisionDetector:
    """Runs a torchvision detection network, which scales, normalises and suppresses by itself.

    Attributes:
        class_names: names by class id, without the background.
        traits: the model, its thresholds, and what it gives beyond boxes.
    """

    class Options(BaseModel):
        """What a config may say.

        Attributes:
            weights: a card's name, a path or an address: a state dict of the builder's network.
            builder: a function of `torchvision.models.detection`; by default the card's.
            builder_args: keyword arguments for it, such as `box_nms_thresh`; by default the card's.
            classes: names in the order of the labels, without the background; by default the card's, or those of the
                builder's published weights.
            keypoints: names of the network's keypoints in their order; by default those of the builder's published
                weights.
            conf: least confidence of a box that becomes a label.
            raw_conf: least confidence of a box that is kept in the raw detections; conf can be lowered to it later.
            max_det: most boxes per frame; the builder's own limit may be lower.
            device: auto | cpu | cuda | cuda:N.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)

        weights: str
        builder: str | None = None
        builder_args: dict[str, Any] = Field(default_factory=dict)
        classes: tuple[str, ...] | None = None
        keypoints: tuple[str, ...] | None = None
        conf: float = Field(default=0.25, ge=0, le=1)
        raw_conf: float = Field(default=0.05, ge=0, le=1)
        max_det: int = Field(default=300, ge=1)
        device: str = "auto"

    def __init__(self, **options: object) -> None:
        self._options = self.Options.model_validate(options)
        self._raw_conf = min(self._options.conf, self._options.raw_conf)
        self._device = pick_device(self._options.device)
        weights = resolve_weights(self._options.weights)
        builder = builder_name("detector", self._options.builder, weights.card, self._options.weights, _EXAMPLE)
        categories = _categories(self._options.classes, weights.card, builder)
        self._network = build_network(
            builder,
            num_labels=1 + len(categories),
            builder_args={**(weights.card.builder_args if weights.card else {}), **self._options.builder_args},
            state_dict=read_state_dict(weights.path),
            weights_path=weights.path,
            raw_conf=self._raw_conf,
            device=self._device,
        )
        self.class_names: Sequence[str] = tuple(name for name in categories if name != _NO_CLASS)
        self._class_by_label = _class_by_label(categories).to(self._device)
        self._kind, self._light = without_heads(self._network)
        self.traits = ModelTraits(
            model=ModelRecord(weights.name, weights.sha256, weights.licence),
            batch_size=4 if self._device.type == "cpu" else 16,
            device=str(self._device),
            conf=self._options.conf,
            raw_conf=self._raw_conf,
            output=OutputSpec(self._kind, keypoint_names(self._network, builder, self._options.keypoints)),
        )
        self._asked: frozenset[int] = frozenset()

    def with_geometry(self, class_ids: frozenset[int]) -> TorchvisionDetector:
        """Returns a detector of the same network that gives masks or keypoints of these classes as well."""
        asked = copy.copy(self)
        asked._asked = class_ids
        return asked

    def replicate(self) -> TorchvisionDetector | None:
        """Returns a detector on the same weights for another thread, on a CPU."""
        if self._device.type != "cpu":
            return None
        replica = copy.copy(self)
        replica._network, replica._light = replica_of(self._network), replica_of(self._light)
        return replica

    def detect(self, batch: FrameBatch) -> list[Detections]:
        """Returns one `Detections` a frame, highest confidence first, in pixels of the displayed frame."""
        if not len(batch):
            return []
        frames = batch.data.to(self._device, non_blocking=True).permute(0, 3, 1, 2)
        network = self._network if self._asked else self._light
        with torch.inference_mode():
            try:
                outputs = network(list(frames.to(torch.float32).div_(255)))
            except torch.OutOfMemoryError as error:
                raise DeviceMemoryError(f"{len(batch)} frames do not fit on {self._device}") from error
            table = pad_rows([self._rows(output) for output in outputs], self._options.max_det)
            found = boxes_of_table(HostCopy(table).wait())
            if not self._asked:
                return [detections_of_rows(rows) for rows in found]
            is_asked = [np.isin(rows[:, 5].astype(np.int64), list(self._asked)) for rows in found]
            places = [rows[asked, 6].astype(np.int64) for rows, asked in zip(found, is_asked, strict=True)]
            known = (read_masks if self._kind == "mask" else read_keypoints)(outputs, places)
        return [
            detections_of_rows(rows, _spread(column, asked))
            for rows, column, asked in zip(found, known, is_asked, strict=True)
        ]

    def _rows(self, output: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Returns a row x1, y1, x2, y2, confidence, class id, place in the output for each box that is kept."""
        class_ids = self._class_by_label[output["labels"]]
        keep = (output["scores"] > self._raw_conf) & (class_ids >= 0)
        places = torch.arange(len(keep), device=keep.device)
        columns = [output["scores"], class_ids.float(), places.float()]
        rows = torch.cat([output["boxes"], torch.stack(columns, dim=1)], dim=1)[keep]
        return rows[rows[:, 4].argsort(descending=True, stable=True)[: self._options.max_det]]


def _spread(known: NDArray[np.object_], is_asked: NDArray[np.bool_]) -> NDArray[np.object_]:
    """Returns a column in which the rows that were asked for have what is known of them."""
    column = np.full(len(is_asked), None, object)
    column[is_asked] = known
    return column


def _categories(asked: Sequence[str] | None, card: ModelCard | None, builder: str) -> list[str]:
    """Returns the names by label, without label 0."""
    names = asked or (card.classes if card else None)
    return list(names) if names else published_categories(builder)


def _class_by_label(categories: Sequence[str]) -> torch.Tensor:
    """Returns int64 (1 + number of categories,): the class id of each label, -1 for the background and for gaps.

    >>> _class_by_label(["person", "N/A", "car"]).tolist()
    [-1, 0, -1, 1]
    """
    class_ids = torch.full((1 + len(categories),), -1)
    named = [label for label, name in enumerate(categories, start=1) if name != _NO_CLASS]
    class_ids[named] = torch.arange(len(named))
    return class_ids
