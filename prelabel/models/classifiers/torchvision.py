"""Classifiers from torchvision's classification builders, with published weights or your own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from prelabel.errors import ConfigError, WeightsError, did_you_mean
from prelabel.models.classifiers.base import ClassifierFacts, ClassifierOptions, NetworkClassifier
from prelabel.models.classifiers.preparation import Preparation
from prelabel.models.networks import (
    StateDict,
    builder_name,
    differing_names,
    import_torchvision,
    read_state_dict,
    unknown_builder,
)
from prelabel.models.weights import Weights

if TYPE_CHECKING:
    import torch

_EXAMPLE = "torchvision.models.mobilenet_v2"


def find_published(builder: str, name: str | None, file: str) -> Any:
    """Returns an entry of the builder's weights enumeration.

    It is the entry with this name. Without a name, it is the entry with this file, or else the first one.

    Raises:
        ConfigError: there is no such builder, or it has no such weights.
    """
    models = import_torchvision("classifier")
    known = models.list_models(module=models)
    if builder not in known:
        raise unknown_builder("classifier", builder, known)
    entries = list(models.get_model_weights(builder))
    if name is None:
        return next((entry for entry in entries if entry.url.endswith(f"/{file}")), entries[0])
    for entry in entries:
        if entry.name == name:
            return entry
    hint = did_you_mean(name, [entry.name for entry in entries])
    raise ConfigError(f"classifier.published: {builder} has no weights {name!r}; {hint}")


def build_network(builder: str, num_classes: int, state_dict: StateDict, weights_path: Path) -> torch.nn.Module:
    """Returns the builder's network with these weights, with batch norms folded into convolutions.

    Raises:
        ConfigError: the network cannot be built.
        WeightsError: the weights belong to another network, or to another number of classes.
    """
    try:
        network: torch.nn.Module = import_torchvision("classifier").get_model(
            builder, weights=None, num_classes=num_classes
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"classifier.builder: {builder} cannot be built: {error}") from error
    wanted = network.state_dict()
    required = [name for name in wanted if not name.endswith("num_batches_tracked")]
    names = differing_names(required, wanted, state_dict)
    if names:
        raise WeightsError(
            f"{weights_path}: does not fit {builder}: {names}: set builder to the one that it was trained with"
        )
    differing = [name for name in state_dict if state_dict[name].shape != wanted[name].shape]
    if differing:
        described = _describe(differing, wanted, state_dict, num_classes)
        raise WeightsError(f"{weights_path}: does not fit {builder}: {described}")
    network.load_state_dict(state_dict, strict=False)
    return _fold_norms(network.eval())


def _fold_norms(network: torch.nn.Module) -> torch.nn.Module:
    """Returns the network with each batch norm folded into the convolution before it.

    Batch norms take a third of MobileNetV2's time in torch on a CPU. torchvision's tests (`test_classification_model`)
    ensure that all its classification networks can be traced, which folding needs.
    """
    import torch
    from torch.fx.experimental.optimization import fuse

    if not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules()):
        return network
    folded: torch.nn.Module = fuse(network)
    return folded


def _describe(differing: list[str], wanted: StateDict, got: StateDict, num_classes: int) -> str:
    name = differing[0]
    shapes = f"{name} is {tuple(got[name].shape)}, expected {tuple(wanted[name].shape)}"
    if len(wanted[name]) == num_classes:
        return f"{shapes}: it has {len(got[name])} classes, {num_classes} are named: name its own in classes: […]"
    return f"{shapes}: set builder to the one that it was trained with"


def _preparation_of(published: Any, imgsz: int | None) -> Preparation:
    """Returns the preparation of published weights; `imgsz` scales its crop and resize in proportion."""
    preset = published.transforms()
    (crop_size,), (resize,) = preset.crop_size, preset.resize_size
    side = imgsz or crop_size
    method = preset.interpolation.value
    return Preparation(round(resize * side / crop_size), side, method, tuple(preset.mean), tuple(preset.std))


class TorchvisionClassifier(NetworkClassifier):
    """Runs a torchvision classification network on images prepared as for its published weights."""

    packages = ("torch", "torchvision")

    class Options(ClassifierOptions):
        """What a config may say.

        Attributes:
            weights: a card's name, a path or an address: a state dict of the builder's network.
            imgsz: side in pixels of the square that the network sees; by default as published.
            builder: a function of `torchvision.models`, such as `resnet50`; by default the card's.
            published: published weights of the builder, such as `IMAGENET1K_V1`: images are prepared as for these, and
                class names are theirs; by default those of the same file name, else the builder's first.
            classes: names in the order of the network's outputs; by default the card's, or the published ones.
        """

        builder: str | None = None
        published: str | None = None
        classes: tuple[str, ...] | None = None

    _options: Options

    def _builder(self, weights: Weights) -> str:
        return builder_name("classifier", self._options.builder, weights.card, self._options.weights, _EXAMPLE)

    def _file(self, weights: Weights) -> str:
        return weights.card.file if weights.card else weights.path.name

    def _classes(self, weights: Weights) -> tuple[str, ...] | None:
        return self._options.classes or (weights.card.classes if weights.card else None)

    def _variant(self, weights: Weights) -> str:
        published = self._options.published or self._file(weights)
        return f"{self._builder(weights)} as {published}, {self._classes(weights) or 'published'}"

    def _build(self, weights: Weights) -> tuple[torch.nn.Module, ClassifierFacts]:
        import torch

        builder = self._builder(weights)
        published = find_published(builder, self._options.published, self._file(weights))
        classes = tuple(self._classes(weights) or published.meta["categories"])
        network = build_network(builder, len(classes), read_state_dict(weights.path), weights.path)
        facts = ClassifierFacts(classes, _preparation_of(published, self._options.imgsz))
        return torch.nn.Sequential(network, torch.nn.Softmax(dim=1)), facts
