"""Raw detections that runs stored, and the labels that the current config makes of them: no media, no GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prelabel.assembly.detector_parts import DetectorParts
from prelabel.data.detections import VideoDetections
from prelabel.data.label_map import LabelledVideo
from prelabel.errors import ConfigError
from prelabel.labels.filter import FilteredDetections, class_thresholds, filter_detections
from prelabel.labels.fit import fit_geometry
from prelabel.labels.tracking import track_detections
from prelabel.sources import Source
from prelabel.store.class_probabilities import ClassRecord, read_classes
from prelabel.store.labelled import LabelledDetections, read_labelled, stamp_of, write_labelled
from prelabel.store.ledger import Entry
from prelabel.store.raw_detections import DetectionProvenance, RawRecord, read_origin, read_raw
from prelabel.store.report import TaskReport
from prelabel.store.run_folder import Keyed, RunFolder

if TYPE_CHECKING:
    from prelabel.assembly.assemble import Assembly

NEXT_STEP = "`prelabel run CONFIG` first"


def label_detections(parts: DetectorParts, raw: RawRecord) -> FilteredDetections:
    """Returns the detections that become labels: above the detector's threshold, filtered and tracked."""
    found = raw.detections.where(raw.detections.confidence >= np.float32(parts.provider.threshold or 0.0))
    filtered = filter_detections(found, raw.info, parts.label_map, parts.config.labels.rules)
    if parts.linking is not None:
        filtered = track_detections(filtered, raw.info, parts.label_map, raw.cuts, parts.linking)
    tolerance_px = parts.config.labels.polygon_tolerance_px
    return replace(filtered, detections=fit_geometry(filtered.detections, raw.info, parts.label_map, tolerance_px))


def unlabelled_detections(parts: DetectorParts, raw: RawRecord) -> VideoDetections:
    """Returns the boxes that do not become labels only because of their confidence, without tracks."""
    label_map, rules = parts.label_map, parts.config.labels.rules
    found = filter_detections(raw.detections, raw.info, label_map, replace(rules, conf=0.0)).detections
    least = np.maximum(class_thresholds(rules.conf, label_map), np.float32(parts.provider.threshold or 0.0))
    return found.where(found.confidence < least[found.class_id])


def stored_videos(assembly: Assembly) -> Iterator[LabelledVideo]:
    """Yields every video with stored detections and its labels, by title, one at a time in memory.

    Raises:
        ConfigError: there is none, or one is of a detector with other classes.
    """
    yield from labelled_videos(assembly, stored_entries(assembly.found_store, assembly.named_source).of_source)


def labelled_videos(assembly: Assembly, tasks: Sequence[Entry | TaskReport]) -> Iterator[LabelledVideo]:
    """Yields the videos of tasks with their labels, one at a time in memory. Their titles are distinct."""
    titles = distinct_titles(tasks)
    for task in tasks:
        yield labelled_video(assembly, task, titles[task.key])


@dataclass(frozen=True, slots=True)
class StoredEntries:
    """The tasks with stored detections in one output folder, which several sources may share.

    Attributes:
        of_source: tasks of the config's source, by title.
        num_others: tasks of other sources.
        output: the folder.
    """

    of_source: list[Entry]
    num_others: int
    output: Path

    @property
    def warnings(self) -> tuple[str, ...]:
        """That tasks of other sources are left out, if there are any."""
        if not self.num_others:
            return ()
        num_stored = len(self.of_source) + self.num_others
        return (f"{self.num_others} of {num_stored} tasks in {self.output} are left out: they are of another source",)


def stored_entries(store: RunFolder, source: Source) -> StoredEntries:
    """Returns the tasks with stored detections in a folder.

    Raises:
        ConfigError: there is none of this source.
    """
    entries = sorted(store.entries(), key=lambda entry: (entry.title, entry.key))
    stored = [entry for entry in entries if store.detections_path(entry).exists()]
    of_source = [entry for entry in stored if source.owns(entry.key, entry.title)]
    if not of_source:
        others = ", only those of another source" if stored else ""
        raise ConfigError(f"{store.output}: holds no detections yet{others}: {NEXT_STEP}")
    return StoredEntries(of_source, len(stored) - len(of_source), store.output)


def distinct_titles(tasks: Sequence[Entry | TaskReport]) -> dict[str, str]:
    """Returns titles by key; a title of several tasks gets their keys appended."""
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


def load_labelled(assembly: Assembly, task: Keyed, raw: RawRecord | None = None) -> LabelledDetections:
    """Returns the detections of a task that become labels under the current config.

    The first call stores the result, which is valid until the config or the raw detections change.

    Args:
        assembly: of the config.
        task: with stored detections.
        raw: these detections, if the caller has read them.

    Raises:
        LabelError: the raw detections are missing or damaged.
    """
    parts = assembly.detection
    raw_path, path = assembly.found_store.detections_path(task), assembly.store.labelled_path(task)
    origin = read_origin(raw_path) if raw is None else raw.origin
    of_config = parts.label_fingerprint_of(origin.detector_fingerprint)
    fingerprint, stamp = f"{of_config}:{origin.media_identity}", stamp_of(raw_path)
    known = read_labelled(path)
    if known is not None and (known.fingerprint, known.raw_stamp) == (fingerprint, stamp):
        return known
    raw = read_raw(raw_path) if raw is None else raw
    labelled = LabelledDetections(raw.info, label_detections(parts, raw), fingerprint, stamp)
    with suppress(OSError):  # the folder is read-only: the next call computes it again
        write_labelled(path, labelled)
    return labelled


def labelled_video(assembly: Assembly, task: Keyed, title: str) -> LabelledVideo:
    """Returns a task's video with its labels under the current config.

    Args:
        assembly: of the config.
        task: with stored detections, made under this or an earlier version of the config.
        title: of the video.

    Raises:
        ConfigError: they are of a detector with other classes, or do not reach down to the config's threshold.
        LabelError: they are missing or damaged.
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
    """Raises a ConfigError if stored detections are of a detector with other classes than the config's."""
    names, known = tuple(parts.detector.class_names), origin.class_names
    if known != names:
        raise ConfigError(
            f"{title}: was labelled by a detector of {len(known)} classes ({known[0]}, …), "
            f"the config's has {len(names)} ({names[0]}, …): {NEXT_STEP}"
        )
