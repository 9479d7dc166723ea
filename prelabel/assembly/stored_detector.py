"""The detector of earlier runs, known by what they stored: labels are made again without loading or running it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from prelabel.assembly.detectors import detector_plugin, detector_section
from prelabel.assembly.stored_detections import NEXT_STEP, StoredEntries, stored_entries
from prelabel.config.fingerprints import detection_key_hashes
from prelabel.config.sections import Config
from prelabel.data.detections import Detections
from prelabel.data.frames import FrameBatch
from prelabel.errors import ConfigError, DetectError
from prelabel.plugins.load import Plugin
from prelabel.plugins.protocols import ModelRecord, SkippedTask
from prelabel.plugins.traits import ModelTraits
from prelabel.sources import Source, StoredTask
from prelabel.store.ledger import Entry
from prelabel.store.raw_detections import DetectionProvenance, read_origin
from prelabel.store.run_folder import RunFolder


@dataclass(frozen=True)
class ReplayDetector:
    """Stands in for a detector whose detections are stored.

    Attributes:
        class_names: of the detector that found them.
        traits: what is stored beyond boxes.
    """

    class_names: tuple[str, ...]
    traits: ModelTraits

    def detect(self, batch: FrameBatch) -> list[Detections]:
        """Raises a DetectError: only `prelabel run` detects."""
        raise DetectError(f"stored detections cannot be made again here: {NEXT_STEP}")


@dataclass(frozen=True)
class StoredDetector:
    """The detector of earlier runs; the latest one if there were several.

    Its fingerprint is the one that a run with the same config computes, so that each sees what the other has done.

    Attributes:
        config: which names the detector.
        folder: the config's, to which plug-in paths are relative.
        store: the output folder of those runs.
        source: that the config names.
    """

    config: Config
    folder: Path
    store: RunFolder
    source: Source

    @cached_property
    def kept(self) -> StoredEntries:
        """The tasks whose raw detections are stored.

        Raises:
            ConfigError: there are none.
        """
        return stored_entries(self.store, self.source)

    @cached_property
    def origins(self) -> dict[Entry, DetectionProvenance]:
        """What each task's raw detections were made with.

        Raises:
            ConfigError: none are stored.
        """
        return {entry: read_origin(self.store.detections_path(entry)) for entry in self.kept.of_source}

    def stored_tasks(self) -> Source:
        """Returns a source of the tasks with detections of this detector. Detections of another one are not used."""
        tasks: list[StoredTask] = []
        others: list[SkippedTask] = []
        for entry, origin in self.origins.items():
            if origin.detector_fingerprint == self.fingerprint:
                tasks.append(StoredTask(entry.key, entry.title, origin.media_identity, entry.num_instances))
            else:
                reason = f"its detections are of another detector or reader: {NEXT_STEP}"
                others.append(SkippedTask(entry.title, reason))
        return self.source.stored(tasks, others, self.kept.warnings)

    @cached_property
    def _latest(self) -> DetectionProvenance:
        return self.origins[max(self.origins, key=lambda entry: entry.updated_at)]

    @property
    def detector(self) -> ReplayDetector:
        """The stand-in for the detector."""
        origin = self._latest
        return ReplayDetector(origin.class_names, ModelTraits(output=origin.offer))

    @property
    def model(self) -> ModelRecord:
        """Which model made the detections."""
        return self._latest.model or detector_plugin(self.config, self.folder).model

    @cached_property
    def threshold(self) -> float | None:
        """Confidence from which boxes become labels; None: all do.

        Raises:
            ConfigError: boxes of that confidence are not stored.
        """
        lowest = self.raw_conf
        if lowest is None:
            return None
        conf = _configured_conf(detector_plugin(self.config, self.folder), detector_section(self.config).options)
        if conf < lowest:
            raise ConfigError(f"detector.conf: got {conf:g}, detections are stored from {lowest:g} on: {NEXT_STEP}")
        return conf

    @property
    def raw_conf(self) -> float | None:
        """Confidence down to which boxes are stored; None if the detector did not say."""
        return self._latest.lowest_conf

    @property
    def fingerprint(self) -> str:
        """Hash of all that decided the detections."""
        return self._latest.detector_fingerprint

    @property
    def ignored_keys(self) -> list[str]:
        """The config's keys that have changed since the detections were made, and have no effect on these.

        The threshold is not among them if less certain boxes are stored.
        """
        found = self._latest.digests
        today = detection_key_hashes(self.config, detector_plugin(self.config, self.folder))
        changed = [key for key in {**found, **today} if found and today.get(key) != found.get(key)]
        return [key for key in changed if key != "detector.conf" or self.raw_conf is None]


def refuse_answers(config: Config, instead: str) -> None:
    """Raises a ConfigError if a config gives no boxes.

    Args:
        config: to check.
        instead: what a config with a classifier can do.
    """
    if config.agent_kind == "classification":
        raise ConfigError(f"classifier: gives answers, and this is for boxes: {instead}")
    detector_section(config)


def without_previews(config: Config) -> Config:
    """Returns the config without previews after the run, which would need the media."""
    if config.source.preview_kind == "none":
        return config
    return config.model_copy(update={"source": config.source.model_copy(update={"preview": "none"})})


def _configured_conf(plugin: Plugin, options: Mapping[str, Any]) -> float:
    """Returns the threshold that the detector would use, without building it."""
    checked = plugin.check_options(options)
    if "conf" in checked:
        return float(checked["conf"])
    model = getattr(plugin.factory, "Options", None)
    if model is not None and "conf" in model.model_fields:
        return float(model.model_fields["conf"].default)
    parameter = inspect.signature(plugin.factory).parameters.get("conf")
    if parameter is None or parameter.default is parameter.empty:
        raise ConfigError("detector.conf: is missing: name the confidence from which boxes become labels")
    return float(parameter.default)
