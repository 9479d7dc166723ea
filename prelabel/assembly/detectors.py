"""The detector of a config. Its weights are loaded when it is first needed."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from prelabel.config.fingerprints import fingerprint, frame_values, values_affecting
from prelabel.config.sections import Config, DetectorSection
from prelabel.errors import ConfigError
from prelabel.models.weights import find_card, plugin_for
from prelabel.plugins.affects import Affects
from prelabel.plugins.load import Plugin, load_plugin
from prelabel.plugins.protocols import Detector, ModelRecord
from prelabel.plugins.traits import traits_of
from prelabel.runtime.shared import Shared

ULTRALYTICS_ENDINGS = (".pt", ".onnx", ".engine", ".torchscript", "_openvino_model", "_openvino_model/")


class DetectorProvider(Protocol):
    """A detector that is loaded, or one that an earlier run has used."""

    @property
    def detector(self) -> Detector:
        """The detector; that of an earlier run only knows its classes."""
        ...

    @property
    def model(self) -> ModelRecord:
        """Which model it runs."""
        ...

    @property
    def threshold(self) -> float | None:
        """Confidence from which boxes become labels, if less certain ones are stored too; None: all become labels."""
        ...

    @property
    def raw_conf(self) -> float | None:
        """Confidence down to which boxes are stored; None if the detector does not say."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides the raw detections of given media."""
        ...


@dataclass(frozen=True)
class LiveDetector:
    """The detector that a config names.

    Attributes:
        config: which has a detector.
        folder: the config's, to which plug-in paths are relative.
        shared: parts that other stages of the same run may use too.
    """

    config: Config
    folder: Path
    shared: Shared = field(default_factory=Shared)

    @cached_property
    def plugin(self) -> Plugin:
        """The plug-in that the config or the model card names."""
        return detector_plugin(self.config, self.folder)

    @cached_property
    def detector(self) -> Detector:
        """The detector as it was built, with its weights."""
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
        """The detector's own threshold; None of a detector that gives no boxes below it."""
        return traits_of(self.detector).conf

    @property
    def raw_conf(self) -> float | None:
        """Confidence down to which such a detector gives boxes; None of others."""
        return traits_of(self.detector).raw_conf

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that decides the raw detections of given media."""
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
        """The detector's options, without a threshold that is applied to its detections later."""
        options = values_affecting(detector_section(self.config), Affects.DETECTIONS, plugin=self.plugin)
        if self.threshold is None:
            return options
        unbound = {name: value for name, value in options.items() if name not in ("conf", "raw_conf")}
        return {**unbound, "lowest_conf": self.raw_conf}

    @property
    def _card_decides(self) -> dict[str, Any] | None:
        """What the model card decides besides the weights."""
        weights = detector_section(self.config).options.get("weights")
        card = find_card(weights) if isinstance(weights, str) else None
        return card.model_dump(mode="json", include={"use", "builder", "builder_args"}) if card is not None else None


def detector_section(config: Config) -> DetectorSection:
    """Returns the section of a config's detector.

    Raises:
        ConfigError: the config has no detector.
    """
    if config.detector is None:
        raise ConfigError("detector: is missing: boxes come from a detector, and this config has none")
    return config.detector


def detector_plugin(config: Config, folder: Path) -> Plugin:
    """Returns the plug-in that a config or the model card names as the detector, and builds nothing.

    Raises:
        ConfigError: neither names one.
        PluginError: it cannot be loaded.
    """
    section = detector_section(config)
    use = section.use or detector_for(section.options.get("weights"))
    return load_plugin("detector", use, folder, section.own_keys)


def detector_for(weights: object) -> str:
    """Returns the name of the detector that loads such weights: the card's, or one by the ending of the file.

    Raises:
        ConfigError: neither says.
    """
    endings = dict.fromkeys(ULTRALYTICS_ENDINGS, "ultralytics")
    return plugin_for("detector", weights, "ultralytics, torchvision", endings)
