"""The components of agents that classify or call a function. Each is created when it is first used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prelabel.config.fingerprints import fingerprint, frame_values, values_affecting
from prelabel.config.sections import AgentSection, ClassifierSection, Config
from prelabel.data.classification import find_classification, ontology_of_options
from prelabel.data.label_map import NO_BOXES
from prelabel.data.ontology import Ontology
from prelabel.errors import ConfigError, OntologyError
from prelabel.labels.answers import AnswerMap, PlacedAnswer, answer_thresholds, build_answer_map
from prelabel.models.weights import plugin_for
from prelabel.plugins.affects import Affects
from prelabel.plugins.load import Plugin, load_plugin
from prelabel.plugins.protocols import Classifier, ModelRecord
from prelabel.plugins.traits import traits_of
from prelabel.runtime.shared import Shared
from prelabel.store.labelled import ClassRecord

DEFAULT_BATCH_SIZE = 32
DEFAULT_CLASSIFICATION = "Class"


@dataclass(frozen=True)
class ClassifierParts:
    """The classifier, ontology and answer map of a config.

    Attributes:
        config: a config with a classifier.
        folder: the config's folder, which plug-in paths are relative to.
        find_ontology: returns the source's ontology; None if it must be made from the classes.
        shared: components that other stages of the same run may use too.
    """

    config: Config
    folder: Path
    find_ontology: Callable[[], Ontology | None]
    shared: Shared = field(default_factory=Shared)
    label_map = NO_BOXES

    @property
    def section(self) -> ClassifierSection:
        """The section `classifier` of the config.

        Raises:
            ConfigError: the config has no such section.
        """
        if self.config.classifier is None:
            raise ConfigError(
                "classifier: is missing: this command needs the answers of a classifier, and the config has none"
            )
        return self.config.classifier

    @cached_property
    def plugin(self) -> Plugin:
        """The plug-in that the config or the model card names."""
        use = self.section.use or plugin_for("classifier", self.section.options, "torchvision, ultralytics, openai")
        return load_plugin("classifier", use, self.folder, self.section.own_keys)

    @cached_property
    def classifier(self) -> Classifier:
        """The classifier with its weights loaded. If it requires classes, it gets the ontology's options."""
        options = self.section.options
        if "classes" not in options and self.plugin.requires("classes"):
            options = {**options, "classes": self._classes_to_ask_for()}
        built = self.shared.once(("classifier", self.plugin.use, options), lambda: self.plugin.build(options=options))
        if not isinstance(built, Classifier):
            raise ConfigError(f"classifier.use: {self.plugin.use!r} lacks `class_names` or `classify(images)`")
        self.plugin.check_class_names(built.class_names)
        return built

    @cached_property
    def model(self) -> ModelRecord:
        """The classifier's model."""
        return traits_of(self.classifier).model or self.plugin.model

    @property
    def batch_size(self) -> int:
        """Images per batch: the config's number, or else the classifier's."""
        size = self.section.batch_size
        return (traits_of(self.classifier).batch_size or DEFAULT_BATCH_SIZE) if size == "auto" else size

    @cached_property
    def given_ontology(self) -> Ontology | None:
        """The source's ontology; None if it must be made from the classes."""
        return self.find_ontology()

    @cached_property
    def ontology(self) -> Ontology:
        """The ontology of the source, or one made from the classes."""
        if self.given_ontology is not None:
            return self.given_ontology
        labels = self.config.labels
        options = [labels.classes[name] for name in labels.classes] or list(self.classifier.class_names)
        named = [option for option in options if option is not None]
        return ontology_of_options(labels.classification or DEFAULT_CLASSIFICATION, named)

    @cached_property
    def answer_map(self) -> AnswerMap:
        """The mapping from classes to options."""
        labels = self.config.labels
        classification = find_classification(self.ontology, labels.classification)
        if classification.is_global and labels.answers == "per_frame":
            raise ConfigError(
                f"labels.answers: {classification.name!r} is answered once for all frames: set answers: range"
            )
        return build_answer_map(self.classifier.class_names, classification, labels.classes, unmapped=labels.unmapped)

    @cached_property
    def thresholds(self) -> NDArray[np.float32]:
        """The least score of each option for an answer, float32 (K,)."""
        return answer_thresholds(self.section.conf, self.config.labels.conf, self.answer_map)

    def place_answers(self, record: ClassRecord) -> list[PlacedAnswer]:
        """Returns the answers of a task under the current config, in the order of their frames."""
        if not len(record.frame_index):
            return []
        scores = self.answer_map.scores(record.probabilities)
        if self.config.labels.answers == "range":
            answer = self.answer_map.answer(scores.mean(axis=0), self.thresholds)
            last = 0 if self.answer_map.classification.is_global else record.info.num_frames - 1
            return [PlacedAnswer(answer, 0, last)] if answer is not None else []
        found = zip(record.frame_index.tolist(), scores, strict=True)
        answers = [(frame_index, self.answer_map.answer(row, self.thresholds)) for frame_index, row in found]
        return [PlacedAnswer(answer, frame, frame) for frame, answer in answers if answer is not None]

    def likeliest(self, record: ClassRecord) -> tuple[str, float]:
        """Returns the class with the highest mean probability, and that mean; ("", 0.0) without frames."""
        if not len(record.frame_index):
            return "", 0.0
        mean = record.probabilities.mean(axis=0)
        best = int(mean.argmax())
        return self.classifier.class_names[best], float(mean[best])

    @cached_property
    def raw_fingerprint(self) -> str:
        """The hash of everything that affects the probabilities, apart from the media."""
        return fingerprint(
            {
                **frame_values(self.config, self.folder),
                "classifier": values_affecting(self.section, Affects.DETECTIONS, plugin=self.plugin),
                "weights_sha256": self.model.weights_sha256,
                "plugin_sha256": self.plugin.source_sha256,
                "class_names": list(self.classifier.class_names),
            }
        )

    @cached_property
    def label_fingerprint(self) -> str:
        """The hash of everything that affects the answers, apart from the media."""
        return fingerprint(
            {
                "raw": self.raw_fingerprint,
                "classifier": values_affecting(self.section, Affects.LABELS, plugin=self.plugin),
                "labels": values_affecting(self.config.labels, Affects.LABELS),
                "ontology": self.ontology.structure,
            }
        )

    def _classes_to_ask_for(self) -> list[str]:
        labels = self.config.labels
        if labels.classes:
            return list(labels.classes)
        if self.given_ontology is None:
            raise ConfigError(f"classifier.classes: is missing: {self.plugin.use!r} knows no classes of its own")
        choices = find_classification(self.given_ontology, labels.classification).choices
        with_nested = {choice.steps[:-1] for choice in choices}
        return [choice.name for choice in choices if choice.steps not in with_nested]


@dataclass(frozen=True)
class FunctionParts:
    """The function and ontology of a config.

    Attributes:
        config: a config with a section `agent`.
        folder: the config's folder, which plug-in paths are relative to.
        find_ontology: returns the source's ontology; None if it has none.
    """

    config: Config
    folder: Path
    find_ontology: Callable[[], Ontology | None]
    label_map = NO_BOXES

    @property
    def section(self) -> AgentSection:
        """The section `agent` of the config.

        Raises:
            ConfigError: the config has no such section.
        """
        if self.config.agent is None:
            raise ConfigError("agent: is missing: this config has no function of your own")
        return self.config.agent

    @cached_property
    def plugin(self) -> Plugin:
        """The plug-in of the function."""
        return load_plugin("agent", self.section.use, self.folder)

    @property
    def model(self) -> ModelRecord:
        """The function, recorded in place of a model."""
        return self.plugin.model

    @cached_property
    def ontology(self) -> Ontology:
        """The ontology of the source.

        Raises:
            OntologyError: the source has no ontology.
        """
        given = self.find_ontology()
        if given is None:
            raise OntologyError("source.ontology: is missing: the function gets label rows, and these need one")
        return given
