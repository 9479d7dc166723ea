"""The detector of earlier runs, from their stored detections: its facts, without loading it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from prelabel.assembly.detectors import detector_plugin, detector_section
from prelabel.config.fingerprints import detection_key_hashes
from prelabel.config.sections import Config
from prelabel.data.detections import Detections
from prelabel.data.frames import FrameBatch
from prelabel.errors import ConfigError, DetectError
from prelabel.plugins.load import Plugin
from prelabel.plugins.protocols import ModelRecord, SkippedTask
from prelabel.plugins.traits import ModelTraits
from prelabel.runtime.files import DRY_RUN
from prelabel.store.ledger import Entry
from prelabel.store.raw_detections import DetectionProvenance, read_origin
from prelabel.store.run_folder import RunFolder
from prelabel.store.source import Source, StoredTask

NEXT_STEP = "`prelabel run CONFIG` first"


@dataclass(frozen=True)
class ReplayDetector:
    """Replaces a detector whose detections are stored. It cannot detect.

    Attributes:
        class_names: class names of that detector.
        traits: traits that state what is stored in addition to boxes.
    """

    class_names: tuple[str, ...]
    traits: ModelTraits

    def detect(self, batch: FrameBatch) -> list[Detections]:
        """Raises a DetectError, since only `prelabel run` detects."""
        raise DetectError(f"stored detections cannot be made again here: {NEXT_STEP}")


@dataclass(frozen=True, slots=True)
class KnownDetector:
    """Facts about the detector of earlier runs as plain values, for a worker that labels its detections.

    For the attributes, see `StoredDetector`.
    """

    detector: ReplayDetector
    model: ModelRecord
    threshold: float | None
    raw_conf: float | None
    fingerprint: str


@dataclass(frozen=True)
class StoredDetector:
    """Facts about the detector of earlier runs; about the latest one if there were several.

    Its fingerprint equals that of a run with the same config, so that each can use the other's cached results.

    Attributes:
        config: the config with the detector.
        folder: the config's folder, which plug-in paths are relative to.
        store: the output folder of the earlier runs.
        source: the source that the config names.
    """

    config: Config
    folder: Path
    store: RunFolder
    source: Source

    @cached_property
    def kept(self) -> StoredEntries:
        """The tasks with stored raw detections.

        Raises:
            ConfigError: there are no such tasks.
        """
        return stored_entries(self.store, self.source)

    @cached_property
    def origins(self) -> dict[Entry, DetectionProvenance]:
        """The provenance of each task's raw detections.

        Raises:
            ConfigError: there are no stored detections.
        """
        return {entry: read_origin(self.store.detections_path(entry)) for entry in self.kept.of_source}

    def stored_tasks(self) -> Source:
        """Returns a source of the tasks with detections of this detector. Tasks of other detectors are skipped."""
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
        """The replacement for the detector, with its class names and output."""
        origin = self._latest
        return ReplayDetector(origin.class_names, ModelTraits(output=origin.offer))

    @property
    def model(self) -> ModelRecord:
        """The model that made the detections."""
        return self._latest.model or detector_plugin(self.config, self.folder).model

    @cached_property
    def threshold(self) -> float | None:
        """The least confidence of a label; None if all boxes become labels.

        Raises:
            ConfigError: boxes down to this confidence are not stored.
        """
        lowest = self.raw_conf
        if lowest is None:
            return None
        conf = _configured_conf(detector_plugin(self.config, self.folder), detector_section(self.config).options)
        if conf < lowest:
            raise ConfigError(
                f"detector.conf: got {conf:g}, detections are stored from {lowest:g} on: "
                "`prelabel run CONFIG` with this conf first"
            )
        return conf

    @property
    def known(self) -> KnownDetector:
        """The facts as plain values."""
        return KnownDetector(self.detector, self.model, self.threshold, self.raw_conf, self.fingerprint)

    @property
    def raw_conf(self) -> float | None:
        """The least confidence of a stored box; None if the detector stated none."""
        return self._latest.lowest_conf

    @property
    def fingerprint(self) -> str:
        """The hash of everything that affected the detections, apart from the media."""
        return self._latest.detector_fingerprint

    @property
    def ignored_keys(self) -> list[str]:
        """The config keys that changed after the detections were made, and have no effect on them.

        The threshold is not included if boxes below it are stored, since it still has an effect.
        """
        found = self._latest.digests
        today = detection_key_hashes(self.config, detector_plugin(self.config, self.folder))
        changed = [key for key in {**found, **today} if found and today.get(key) != found.get(key)]
        return [key for key in changed if key != "detector.conf" or self.raw_conf is None]


@dataclass(frozen=True, slots=True)
class StoredEntries:
    """The tasks with stored detections in an output folder, which several sources may share.

    Attributes:
        of_source: tasks of the config's source, sorted by title.
        num_others: number of tasks of other sources.
        output: the output folder.
    """

    of_source: list[Entry]
    num_others: int
    output: Path

    @property
    def warnings(self) -> tuple[str, ...]:
        """A warning if tasks of other sources are left out."""
        if not self.num_others:
            return ()
        num_stored = len(self.of_source) + self.num_others
        return (f"{self.num_others} of {num_stored} tasks in {self.output} are left out: they are of another source",)


def stored_entries(store: RunFolder, source: Source) -> StoredEntries:
    """Returns the tasks with stored detections in a folder.

    Raises:
        ConfigError: the folder has no such tasks of this source.
    """
    entries = sorted(store.entries(), key=lambda entry: (entry.title, entry.key))
    stored = [entry for entry in entries if store.detections_path(entry).exists()]
    of_source = [entry for entry in stored if source.owns(entry.key, entry.title)]
    if not of_source:
        others = ", only those of another source" if stored else ""
        next_step = "`prelabel run CONFIG --dry-run` first" if store.output.name == DRY_RUN else NEXT_STEP
        raise ConfigError(f"{store.output}: holds no detections yet{others}: {next_step}")
    return StoredEntries(of_source, len(stored) - len(of_source), store.output)


def _configured_conf(plugin: Plugin, options: Mapping[str, Any]) -> float:
    """Returns the threshold that the detector would use, without building it."""
    checked = plugin.check_options(options)
    if "conf" in checked:
        return float(checked["conf"])
    model = plugin.options_model
    if model is not None and "conf" in model.model_fields:
        return float(model.model_fields["conf"].default)
    parameter = inspect.signature(plugin.factory).parameters.get("conf")
    if parameter is None or parameter.default is parameter.empty:
        raise ConfigError("detector.conf: is missing: name the confidence from which boxes become labels")
    return float(parameter.default)
