"""The detector of a config. Its weights are loaded when it is first used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from prelabel.config.fingerprints import fingerprint, frame_values, values_affecting
from prelabel.config.sections import Config, DetectorSection
from prelabel.data.label_map import NAMES_IN_SHORT
from prelabel.data.ontology import Ontology
from prelabel.data.words import words_to_find
from prelabel.errors import ConfigError
from prelabel.models.weights import find_card, plugin_for
from prelabel.plugins.affects import Affects
from prelabel.plugins.load import Plugin, load_plugin
from prelabel.plugins.protocols import Detector, ModelRecord
from prelabel.plugins.traits import has_method, traits_of
from prelabel.runtime.shared import Shared

ULTRALYTICS_ENDINGS = (".pt", ".onnx", ".engine", ".torchscript", "_openvino_model", "_openvino_model/")


@dataclass(frozen=True)
class LiveDetector:
    """The detector that a config names.

    Attributes:
        config: a config with a detector.
        folder: the config's folder, which plug-in paths are relative to.
        find_ontology: returns the source's ontology; None if it must be made from the model's classes.
        shared: components that other stages of the same run may use too.
    """

    config: Config
    folder: Path
    find_ontology: Callable[[], Ontology | None]
    shared: Shared = field(default_factory=Shared)

    @cached_property
    def plugin(self) -> Plugin:
        """The plug-in that the config or the model card names."""
        return detector_plugin(self.config, self.folder)

    @cached_property
    def detector(self) -> Detector:
        """The detector with its weights loaded and, if it is an open-vocabulary one, with its words."""
        options = detector_section(self.config).options
        built = self.shared.once(("detector", self.plugin.use, options), lambda: self.plugin.build(options=options))
        if not isinstance(built, Detector):
            raise ConfigError(f"detector.use: {self.plugin.use!r} lacks `class_names` or `detect(batch)`")
        detector = self._with_words(built)
        self.plugin.check_class_names(detector.class_names)
        return detector

    def _with_words(self, detector: Detector) -> Detector:
        """Returns the detector with the words of the config or the ontology, unless it has words or fixed classes."""
        prompts, passes = self.config.labels.prompts, traits_of(detector).word_passes
        if passes is None and prompts:
            known = ", ".join(detector.class_names[:NAMES_IN_SHORT])
            raise ConfigError(
                f"labels.prompts: this detector has fixed classes ({known}, …), so it takes no words: leave prompts "
                "out, and map the classes with labels.classes"
            )
        given = detector_section(self.config).options.get("words") is not None
        is_replaced = prompts and not given and not passes  # prompts replace the model's own classes
        if passes is not None and (is_replaced or not detector.class_names) and has_method(detector, "with_words"):
            return detector.with_words(words_to_find(prompts, self.find_ontology()))
        return detector

    @cached_property
    def model(self) -> ModelRecord:
        """The detector's model."""
        return traits_of(self.detector).model or self.plugin.model

    @property
    def threshold(self) -> float | None:
        """The least confidence of a label, if the detector also outputs boxes below it; None if all become labels."""
        return traits_of(self.detector).conf

    @property
    def raw_conf(self) -> float | None:
        """The least confidence of the detector's boxes; None if it states none."""
        return traits_of(self.detector).raw_conf

    @cached_property
    def fingerprint(self) -> str:
        """The hash of everything that affects the raw detections, apart from the media."""
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
        """The options that affect the raw detections, without a threshold that is applied later."""
        options = values_affecting(detector_section(self.config), Affects.DETECTIONS, plugin=self.plugin)
        if self.threshold is None:
            return options
        unbound = {name: value for name, value in options.items() if name not in ("conf", "raw_conf")}
        return {**unbound, "lowest_conf": self.raw_conf}

    @property
    def _card_decides(self) -> dict[str, Any] | None:
        """The values of the model card that affect the detections in addition to the weights."""
        weights = detector_section(self.config).options.get("weights")
        card = find_card(weights) if isinstance(weights, str) else None
        return (
            card.model_dump(mode="json", include={"use", "format", "builder", "builder_args"})
            if card is not None
            else None
        )


def detector_section(config: Config) -> DetectorSection:
    """Returns the section of a config's detector.

    Raises:
        ConfigError: the config has no detector.
    """
    if config.detector is None:
        raise ConfigError("detector: is missing: this command needs the boxes of a detector, and the config has none")
    return config.detector


def detector_plugin(config: Config, folder: Path) -> Plugin:
    """Returns the plug-in of the detector that the config or the model card names, without building the detector.

    Raises:
        ConfigError: neither names a detector.
        PluginError: the plug-in cannot be loaded.
    """
    section = detector_section(config)
    use = section.use or detector_for(section.options)
    return load_plugin("detector", use, folder, section.own_keys)


def detector_for(options: Mapping[str, object]) -> str:
    """Returns the name of the detector that loads `weights`: the card's, or the one for the file's ending.

    Raises:
        ConfigError: neither names a detector.
    """
    endings = dict.fromkeys(ULTRALYTICS_ENDINGS, "ultralytics")
    return plugin_for("detector", options, "ultralytics, torchvision, transformers, onnx", endings)
