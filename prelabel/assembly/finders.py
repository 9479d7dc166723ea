"""What finds the boxes of a run: a detector, its weights loaded when it is first asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from prelabel.config.fingerprints import fingerprint, frame_values, values_affecting
from prelabel.config.sections import Config, DetectorSection
from prelabel.errors import ConfigError
from prelabel.models.cards import find_card, plugin_for
from prelabel.plugins.affects import Affects
from prelabel.plugins.load import Plugin, load_plugin
from prelabel.plugins.protocols import Detector, ModelRecord
from prelabel.plugins.traits import traits_of
from prelabel.runtime.shared import Shared

ULTRALYTICS_ENDINGS = (".pt", ".onnx", ".engine", ".torchscript", "_openvino_model", "_openvino_model/")


class DetectorProvider(Protocol):
    """What finds boxes, or has found them in an earlier run."""

    @property
    def detector(self) -> Detector:
        """What knows the classes; frames go through it if any are looked at."""
        ...

    @property
    def model(self) -> ModelRecord:
        """Which model finds them."""
        ...

    @property
    def threshold(self) -> float | None:
        """The confidence from which boxes become labels, where lower ones are kept too; None: all become labels."""
        ...

    @property
    def lowest_conf(self) -> float | None:
        """The confidence down to which boxes are kept; None where the detector does not say."""
        ...

    @property
    def fingerprint(self) -> str:
        """Of all that decides what is found in given media."""
        ...


@dataclass(frozen=True)
class LiveDetector:
    """The detector that a config names.

    Attributes:
        config: which has a detector.
        folder: the config's, to which plug-in paths are relative.
        shared: parts that other assemblies of the same run may have, too.
    """

    config: Config
    folder: Path
    shared: Shared = field(default_factory=Shared)

    @cached_property
    def plugin(self) -> Plugin:
        """What the config names as its detector, or as the model card does."""
        return detector_plugin(self.config, self.folder)

    @cached_property
    def detector(self) -> Detector:
        """The detector as it was built, its weights loaded."""
        options = detector_section(self.config).options
        built = self.shared.once(("detector", self.plugin.use, options), lambda: self.plugin.build(options=options))
        if not isinstance(built, Detector):
            raise ConfigError(f"detector.use: {self.plugin.use!r} lacks `class_names` or `detect(batch)`")
        self.plugin.check_class_names(built.class_names)
        return built

    @cached_property
    def model(self) -> ModelRecord:
        """Which model it runs."""
        return traits_of(self.detector).model or self.plugin.model

    @property
    def threshold(self) -> float | None:
        """The confidence from which boxes become labels, of a detector that gives lower ones too; None of others."""
        return traits_of(self.detector).conf

    @property
    def lowest_conf(self) -> float | None:
        """The confidence down to which such a detector gives boxes; None of others."""
        return traits_of(self.detector).raw_conf

    @cached_property
    def fingerprint(self) -> str:
        """Of all that decides what the detector finds in given media."""
        return fingerprint(
            {
                **frame_values(self.config, self.folder),
                "detector": self._options_decide,
                "weights_sha256": self.model.weights_sha256,
                "plugin_sha256": self.plugin.source_sha256,
                "class_names": list(self.detector.class_names),
                "card": self._card_decides,
            }
        )

    @property
    def _options_decide(self) -> dict[str, Any]:
        """The detector's options, without the threshold that is applied to what it gives."""
        options = values_affecting(detector_section(self.config), Affects.DETECTIONS, plugin=self.plugin)
        if self.threshold is None:
            return options
        unbound = {name: value for name, value in options.items() if name not in ("conf", "raw_conf")}
        return {**unbound, "lowest_conf": self.lowest_conf}

    @property
    def _card_decides(self) -> dict[str, Any] | None:
        """What the model card decides beside the weights."""
        weights = detector_section(self.config).options.get("weights")
        card = find_card(weights) if isinstance(weights, str) else None
        return card.model_dump(mode="json", include={"use", "builder", "builder_args"}) if card is not None else None


def detector_section(config: Config) -> DetectorSection:
    """Returns a config's section of its detector.

    Raises:
        ConfigError: it has none, and what was asked for needs boxes.
    """
    if config.detector is None:
        raise ConfigError("detector: is missing: boxes come from a detector, and this config has none")
    return config.detector


def detector_plugin(config: Config, folder: Path) -> Plugin:
    """Returns what a config names as its detector, or as the model card does; nothing is built.

    Raises:
        ConfigError: nothing tells which it is, or it cannot be loaded.
    """
    section = detector_section(config)
    use = section.use or detector_for(section.options.get("weights"))
    return load_plugin("detector", use, folder, section.own_keys)


def detector_for(weights: object) -> str:
    """Returns the detector that loads such weights: the card's, or the one whose files end like this.

    Raises:
        ConfigError: nothing tells.
    """
    endings = dict.fromkeys(ULTRALYTICS_ENDINGS, "ultralytics")
    return plugin_for("detector", weights, "ultralytics, torchvision", endings)
