"""Labels stored detections of earlier runs, without loading their detector."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np

from prelabel.assembly.assemble import Assembly
from prelabel.assembly.detector_parts import DetectorParts
from prelabel.assembly.detectors import detector_section
from prelabel.assembly.stored_detector import NEXT_STEP, stored_entries
from prelabel.config.sections import Config
from prelabel.data.detections import VideoDetections
from prelabel.data.label_map import LabelledVideo
from prelabel.errors import ConfigError, LabelError
from prelabel.inference.refine import MediaAccess
from prelabel.labels.filter import FilteredDetections, class_thresholds, filter_detections
from prelabel.labels.fit import fit_geometry
from prelabel.labels.tracking import track_detections
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
from prelabel.store.run_folder import Keyed


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
        detections, partial = _refine(parts, filtered.detections, title, media)
        filtered = replace(filtered, detections=detections, partial=partial)
    tolerance_px = parts.config.labels.polygon_tolerance_px
    return replace(filtered, detections=fit_geometry(filtered.detections, raw.info, parts.label_map, tolerance_px))


def _refine(
    parts: DetectorParts, found: VideoDetections, title: str, media: MediaAccess | None
) -> tuple[VideoDetections, str | None]:
    """Returns the detections with masks for the objects that `refine` means, and what lacks a mask and why."""
    rows = np.flatnonzero(np.isin(found.class_id, list(parts.label_map.refined)))
    if parts.refinement is None or not len(rows):
        return found, None
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
