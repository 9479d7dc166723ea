"""Labels stored detections of earlier runs, without loading their detector."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prelabel.assembly.detector_parts import DetectorParts
from prelabel.assembly.detectors import detector_plugin, detector_section
from prelabel.config.fingerprints import detection_key_hashes
from prelabel.config.sections import Config
from prelabel.data.detections import Detections, VideoDetections
from prelabel.data.frames import FrameBatch
from prelabel.data.label_map import LabelledVideo
from prelabel.errors import ConfigError, DetectError, LabelError
from prelabel.inference.refine import MediaAccess
from prelabel.labels.filter import FilteredDetections, class_thresholds, filter_detections
from prelabel.labels.fit import fit_geometry
from prelabel.labels.tracking import track_detections
from prelabel.plugins.load import Plugin
from prelabel.plugins.protocols import ModelRecord, SkippedTask
from prelabel.plugins.traits import ModelTraits
from prelabel.runtime.files import DRY_RUN
from prelabel.store.labelled import (
    ClassRecord,
    LabelledDetections,
    digest_of,
    read_classes,
    read_labelled,
    write_labelled,
)
from prelabel.store.ledger import Entry
from prelabel.store.raw_detections import DetectionProvenance, RawRecord, read_origin, read_raw
from prelabel.store.report import TaskReport
from prelabel.store.run_folder import Keyed, RunFolder
from prelabel.store.source import Source, StoredTask

if TYPE_CHECKING:
    from prelabel.assembly.assemble import Assembly


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

    For the attributes, see `DetectorProvider`.
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


def refuse_answers(config: Config, instead: str) -> None:
    """Raises a ConfigError if a config has no detector.

    Args:
        config: the config to check.
        instead: what a config with a classifier can do, for the error message.
    """
    if config.agent_kind == "classification":
        raise ConfigError(f"classifier: gives answers, and this is for boxes: {instead}")
    detector_section(config)


def without_previews(config: Config) -> Config:
    """Returns the config without previews, since they need the media."""
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


NEXT_STEP = "`prelabel run CONFIG` first"


def label_detections(parts: DetectorParts, raw: RawRecord, title: str, media: MediaAccess | None) -> FilteredDetections:
    """Returns the detections that become labels: those above the detector's threshold, filtered, tracked and refined.

    Args:
        parts: the components for the config.
        raw: the task's raw detections.
        title: the task's title, for errors.
        media: the task's media, which a refiner reads; None: they cannot be read here.

    Raises:
        LabelError: a refiner needs the media, and they cannot be read here.
    """
    found = raw.detections.where(raw.detections.confidence >= np.float32(parts.provider.threshold or 0.0))
    filtered = filter_detections(found, raw.info, parts.label_map, parts.config.labels.rules)
    if parts.linking is not None:
        filtered = track_detections(filtered, raw.info, parts.label_map, raw.cuts, parts.linking)
    if parts.refinement is not None:
        filtered = replace(filtered, detections=_refine(parts, filtered.detections, title, media))
    tolerance_px = parts.config.labels.polygon_tolerance_px
    return replace(filtered, detections=fit_geometry(filtered.detections, raw.info, parts.label_map, tolerance_px))


def _refine(parts: DetectorParts, found: VideoDetections, title: str, media: MediaAccess | None) -> VideoDetections:
    """Returns the detections with masks for the objects that the config's section `refine` means."""
    rows = np.flatnonzero(np.isin(found.class_id, list(parts.label_map.refined)))
    if parts.refinement is None or not len(rows):
        return found
    if media is None:
        raise LabelError(f"{title}: has no masks yet, and they need the frames: `prelabel relabel CONFIG` first")
    return parts.refinement.refine(found, rows, media, title)


def unlabelled_detections(parts: DetectorParts, raw: RawRecord) -> VideoDetections:
    """Returns the boxes that only their confidence keeps from becoming labels, without tracks."""
    label_map, rules = parts.label_map, parts.config.labels.rules
    found = filter_detections(raw.detections, raw.info, label_map, replace(rules, conf=0.0)).detections
    least = np.maximum(class_thresholds(rules.conf, label_map), np.float32(parts.provider.threshold or 0.0))
    return found.where(found.confidence < least[found.class_id])


def stored_videos(assembly: Assembly) -> Iterator[LabelledVideo]:
    """Yields all videos with stored detections, with their labels, sorted by title. Only one is in memory at a time.

    Raises:
        ConfigError: there are none, or one has detections of a detector with other classes.
    """
    yield from labelled_videos(assembly, stored_entries(assembly.found_store, assembly.named_source).of_source)


def labelled_videos(assembly: Assembly, tasks: Sequence[Entry | TaskReport]) -> Iterator[LabelledVideo]:
    """Yields the videos of tasks with their labels and distinct titles. Only one is in memory at a time."""
    titles = distinct_titles(tasks)
    for task in tasks:
        yield labelled_video(assembly, task, titles[task.key])


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


def distinct_titles(tasks: Sequence[Entry | TaskReport]) -> dict[str, str]:
    """Returns distinct titles by key. If several tasks have the same title, their keys are appended."""
    times = Counter(task.title for task in tasks)
    return {task.key: task.title if times[task.title] == 1 else f"{task.title} [{task.key}]" for task in tasks}


def load_detections(assembly: Assembly, task: Keyed) -> RawRecord | None:
    """Returns a task's raw detections; None if no run has stored them."""
    path = assembly.found_store.detections_path(task)
    return read_raw(path) if path.exists() else None


def load_probabilities(assembly: Assembly, task: Keyed) -> ClassRecord | None:
    """Returns a task's class probabilities; None if no run has stored them."""
    path = assembly.store.classes_path(task)
    return read_classes(path) if path.exists() else None


def load_labelled(
    assembly: Assembly,
    task: Keyed,
    raw: RawRecord | None = None,
    filtered: FilteredDetections | None = None,
    media: MediaAccess | None = None,
) -> LabelledDetections:
    """Returns the detections of a task that become labels under the current config.

    The first call caches the result, which is valid until the config or the raw detections change.

    Args:
        assembly: the components for the config.
        task: a task with stored detections.
        raw: the task's raw detections, if the caller has read them.
        filtered: what `label_detections` makes of them, if it is known.
        media: as in `label_detections`.

    Raises:
        LabelError: the raw detections are missing or damaged, or a refiner needs the media.
    """
    raw_path, path = assembly.found_store.detections_path(task), assembly.store.labelled_path(task)
    fingerprint = _labelled_fingerprint(assembly.detection, read_origin(raw_path) if raw is None else raw.origin)
    digest, known = digest_of(raw_path.read_bytes()), read_labelled(path)
    if known is not None and (known.fingerprint, known.raw_digest) == (fingerprint, digest):
        return known
    raw = read_raw(raw_path) if raw is None else raw
    if filtered is None:
        filtered = label_detections(assembly.detection, raw, task.title, media)
    labelled = make_labelled(assembly.detection, raw, digest, filtered)
    with suppress(OSError):  # the folder may be read-only; then the next call computes the result again
        write_labelled(path, labelled)
    return labelled


def make_labelled(
    parts: DetectorParts, raw: RawRecord, raw_digest: str, filtered: FilteredDetections
) -> LabelledDetections:
    """Returns the detections that become labels, as they are cached.

    Args:
        parts: the components for the config.
        raw: the raw detections.
        raw_digest: digest of their file.
        filtered: what `label_detections` makes of them.
    """
    return LabelledDetections(raw.info, filtered, _labelled_fingerprint(parts, raw.origin), raw_digest)


def _labelled_fingerprint(parts: DetectorParts, origin: DetectionProvenance) -> str:
    return f"{parts.label_fingerprint_of(origin.detector_fingerprint)}:{origin.media_identity}"


def labelled_video(assembly: Assembly, task: Keyed, title: str) -> LabelledVideo:
    """Returns a task's video with its labels under the current config.

    Args:
        assembly: the components for the config.
        task: a task with stored detections, made under this or an earlier version of the config.
        title: title of the video.

    Raises:
        ConfigError: the detector had other classes, or stored no boxes down to the config's threshold.
        LabelError: the detections are missing or damaged.
    """
    origin, threshold = read_origin(assembly.found_store.detections_path(task)), assembly.detection.provider.threshold
    check_classes(assembly.detection, title, origin)
    if origin.lowest_conf is not None and threshold is not None and threshold < origin.lowest_conf:
        raise ConfigError(
            f"{title}: detector.conf: got {threshold:g}, detections are stored from {origin.lowest_conf:g} on: "
            f"{NEXT_STEP}"
        )
    labelled = load_labelled(assembly, task)
    return LabelledVideo(title, labelled.info, labelled.filtered.detections, assembly.detection.label_map)


def check_classes(parts: DetectorParts, title: str, origin: DetectionProvenance) -> None:
    """Raises a ConfigError if stored detections come from a detector with other classes than the config's."""
    names, known = tuple(parts.detector.class_names), origin.class_names
    if known != names:
        raise ConfigError(
            f"{title}: was labelled by a detector of {len(known)} classes ({known[0]}, …), "
            f"the config's has {len(names)} ({names[0]}, …): {NEXT_STEP}"
        )
