"""Compares the labels that runs of a config wrote with the current labels."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import prelabel
from prelabel.assembly.assemble import Assembly
from prelabel.assembly.detector_parts import DetectorParts
from prelabel.assembly.stored import (
    check_classes,
    distinct_titles,
    load_labelled,
    stored_videos,
    unlabelled_detections,
)
from prelabel.assembly.stored_detector import stored_entries
from prelabel.config.fingerprints import config_fingerprint
from prelabel.data.detections import VideoDetections
from prelabel.data.frames import VideoInfo
from prelabel.data.label_map import LabelMap
from prelabel.errors import ConfigError, TaskError
from prelabel.evaluate.coco import CocoFile, score_coco
from prelabel.evaluate.compare import Boxes, boxes_of_corners, boxes_of_row, compare_boxes, link_unknown_instances
from prelabel.evaluate.current_labels import (
    CocoTruth,
    CurrentLabels,
    NotThereError,
    OutputRows,
    ProjectRows,
    RowFiles,
    explain_skipped,
    is_coco,
)
from prelabel.evaluate.edits import add_edits, count_edits
from prelabel.evaluate.result import Evaluation, LeftOut, ModelEdits, Skipped, VideoEdits, WorstFrame
from prelabel.evaluate.thresholds import Evidence, ThresholdCurve, threshold_curves, weigh_boxes
from prelabel.evaluate.worst import worst_of_all, worst_of_video
from prelabel.export.coco import write_coco
from prelabel.labels.filter import class_thresholds
from prelabel.labels.row.offline import encord_ontology, new_label_row
from prelabel.labels.row.own import LabelRow
from prelabel.labels.row.write import write_detections
from prelabel.runtime.process_settings import paused_garbage_collection
from prelabel.store.ledger import Entry
from prelabel.store.raw_detections import read_raw
from prelabel.store.report import Score


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """The labels to compare with, and the limits of the comparison.

    Attributes:
        against: a file or folder of label rows, or a COCO ground truth; None for the labels of the source.
        stages: stages of an Encord project at which to compare tasks; empty for those at which its workflow ends.
        min_iou: overlap from which boxes of different instances may be the same thing.
        accept_iou: overlap from which a box is accepted if it is interpolated or if exact geometry is unknown.
    """

    against: Path | None = None
    stages: tuple[str, ...] = ()
    min_iou: float = 0.5
    accept_iou: float = 0.8


@dataclass(frozen=True, slots=True)
class _TaskResult:
    """The comparison of one task, and the lowest confidence of its stored boxes."""

    lowest_conf: float
    edits: VideoEdits
    evidence: Evidence
    worst: list[WorstFrame]
    left_out: LeftOut


def evaluate_run(assembly: Assembly, options: EvaluateOptions) -> Evaluation:
    """Returns what annotators changed about the labels that runs of a config wrote.

    The written labels are computed again from the raw detections. So evaluate with the config of the run.

    Raises:
        ConfigError: no run wrote labels, no task can be compared, or `against` is neither label rows nor COCO.
        AccountError: the platform cannot be reached.
    """
    stored = stored_entries(assembly.found_store, assembly.named_source)
    entries = stored.of_source
    labels = _current_labels(assembly, options, entries)
    titles = distinct_titles(entries)
    results: list[_TaskResult] = []
    skipped: list[Skipped] = []
    for entry in entries:
        try:
            with paused_garbage_collection():  # label rows are many objects without cycles
                results.append(_compare(assembly, options, entry, titles[entry.key], labels))
        except TaskError as error:
            skipped.append(Skipped(titles[entry.key], str(error)))
    if not results:
        reasons = explain_skipped([task.reason for task in skipped])
        raise ConfigError(f"no task can be compared with {labels.describe()}; {reasons}")
    videos = tuple(task.edits for task in results)
    other_classes: Counter[str] = Counter()
    for task in results:
        other_classes.update(task.left_out.of_other_classes)
    return Evaluation(
        prelabel=prelabel.__version__,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        config_sha256=config_fingerprint(assembly.config),
        against=labels.describe(),
        min_iou=options.min_iou,
        accept_iou=options.accept_iou,
        instances_are=assembly.config.labels.instances,
        models=tuple(
            ModelEdits(name, add_edits(video.by_class for video in videos if video.model == name))
            for name in sorted({video.model for video in videos})
        ),
        videos=videos,
        thresholds=_thresholds(assembly.detection, results),
        score=_score(assembly, labels) if isinstance(labels, CocoTruth) else None,
        worst_frames=worst_of_all([frame for task in results for frame in task.worst]),
        skipped=tuple(skipped),
        left_out=LeftOut(
            before_the_run=sum(task.left_out.before_the_run for task in results),
            on_other_frames=sum(task.left_out.on_other_frames for task in results),
            of_other_classes=dict(other_classes.most_common()),
        ),
        warnings=(*stored.warnings, *_warnings(assembly, entries)),
    )


def _current_labels(
    assembly: Assembly, options: EvaluateOptions, entries: Sequence[Entry]
) -> CurrentLabels | CocoTruth:
    """Returns the labels to compare with.

    These are the labels that the options name, otherwise the source's ground truth. Without these, they are the rows of
    the source's project or, if it has none, the rows in the output folder.
    """
    source, against = assembly.config.source, options.against
    if against is None:
        against = source.truth_file
    if against is None and assembly.on_platform:
        return ProjectRows(assembly.encord, options.stages, entries)
    if options.stages:
        place = against or assembly.output
        raise ConfigError(f"--stage {options.stages[0]}: {place} has no stages, only a project's label rows do")
    if against is None:
        return OutputRows(assembly.store)
    if not against.exists():
        raise ConfigError(
            f"{against}: there is no such file or folder: name label rows, a file or a folder, or a COCO ground truth"
        )
    if is_coco(against):
        has_tracks = assembly.config.labels.instances == "tracks"
        return CocoTruth(CocoFile.read(against), _class_names(assembly.detection), has_tracks)
    return RowFiles(against)


def _compare(
    assembly: Assembly, options: EvaluateOptions, entry: Entry, title: str, labels: CurrentLabels | CocoTruth
) -> _TaskResult:
    """Returns the comparison of a task.

    Raises:
        TaskError: the task cannot be compared.
    """
    if entry.step not in ("labelled", "done"):
        raise NotThereError(f"has no labels of a run: {entry.step}{f': {entry.reason}' if entry.reason else ''}")
    parts = assembly.detection
    raw = read_raw(assembly.found_store.detections_path(entry))
    check_classes(parts, title, raw.origin)
    detections = load_labelled(assembly, entry, raw).filtered.detections
    frames = detections.frames_looked_at
    if isinstance(labels, CocoTruth):
        current, frames = labels.boxes_of(title, raw.info, frames)
        written = _boxes_of(detections, raw.info, parts.label_map)
        is_earlier = np.zeros(len(current), np.bool_)
    else:
        row = labels.row_of(entry)
        current, written = boxes_of_row(row), boxes_of_row(_as_written(assembly, entry, raw.info, detections, row))
        is_earlier = _is_earlier(current, written, entry)
    written = written.where(np.isin(written.frame_index, frames))
    unwritten = _boxes_of(unlabelled_detections(parts, raw), raw.info, parts.label_map)
    unwritten = unwritten.where(np.isin(unwritten.frame_index, frames))
    is_compared = np.isin(current.frame_index, frames) & ~is_earlier
    ious = {"min_iou": options.min_iou, "accept_iou": options.accept_iou}
    compared = compare_boxes(written, current.where(is_compared), **ious)
    compared = link_unknown_instances(compared)
    is_strange = compared.is_added & ~np.isin(compared.current.class_name, _class_names(parts))
    strange = Counter(compared.current.class_name[is_strange].tolist())
    compared = compared.without_added(is_strange)
    model = raw.origin.model
    name = "unknown" if model is None else " ".join(filter(None, (model.name, (model.weights_sha256 or "")[:8])))
    edits = count_edits(compared, frames, options.accept_iou)
    return _TaskResult(
        lowest_conf=raw.origin.lowest_conf or 0.0,
        edits=VideoEdits(entry.key, title, name, len(frames), edits),
        evidence=weigh_boxes(compared, unwritten, **ious),
        worst=worst_of_video(compared, raw.info, entry.key, title),
        left_out=LeftOut(int(is_earlier.sum()), int((~is_compared & ~is_earlier).sum()), dict(strange)),
    )


def _is_earlier(current: Boxes, written: Boxes, entry: Entry) -> NDArray[np.bool_]:
    """Returns which boxes were on the row before the run wrote to it, bool (N,).

    The run's own boxes show when it wrote. If none of them is left, the ledger's time counts, and only boxes that a
    person drew count as earlier. The others may be the run's boxes with new hashes, as after an import.
    """
    is_own = np.isin(current.instance, written.instance)
    is_earlier: NDArray[np.bool_]
    if is_own.any():
        is_earlier = ~is_own & (current.created_at < current.created_at[is_own].min())
    else:
        done_at = datetime.fromisoformat(entry.updated_at).timestamp()
        is_earlier = (current.confidence == 1) & (current.created_at < done_at)
    return is_earlier


def _as_written(
    assembly: Assembly, entry: Entry, info: VideoInfo, detections: VideoDetections, current: LabelRow
) -> LabelRow:
    """Returns the row with only the labels that prelabel wrote.

    It needs the current row, because object hashes depend on the hashes of its data units.
    """
    now = datetime.now(UTC)
    if assembly.on_platform:
        units = {key: {**unit, "labels": {}} for key, unit in current["data_units"].items()}
        blank = {**current, "data_units": units, "object_answers": {}, "object_actions": {}}
    else:
        blank = new_label_row(entry.key, entry.title, info, encord_ontology(assembly.ontology), now=now)
    return write_detections(blank, detections, info, assembly.detection.label_map, now=now).row


def _boxes_of(detections: VideoDetections, info: VideoInfo, label_map: LabelMap) -> Boxes:
    names = [category.name if category is not None else "" for category in label_map.objects]
    return boxes_of_corners(
        detections.frame_index,
        detections.xyxy.astype(np.float64),
        info,
        np.array(names, np.str_)[detections.class_id].tolist(),
        confidence=detections.confidence,
        instance=detections.instance,
    )


def _class_names(parts: DetectorParts) -> tuple[str, ...]:
    return tuple(category.name for category in parts.label_map.categories)


def _thresholds(parts: DetectorParts, results: Sequence[_TaskResult]) -> dict[str, ThresholdCurve]:
    """Returns the threshold curves by class.

    For tracks, they have no thresholds below the current one, because these would give other tracks.
    """
    least = np.maximum(class_thresholds(parts.config.labels.conf, parts.label_map), parts.provider.threshold or 0.0)
    in_force = {
        category.name: round(float(confidence), 5)
        for category, confidence in zip(parts.label_map.objects, least, strict=True)
        if category is not None
    }
    stored = dict.fromkeys(_class_names(parts), max(task.lowest_conf for task in results))
    return threshold_curves(
        [task.evidence for task in results], in_force, stored if parts.linking is None else in_force
    )


def _score(assembly: Assembly, truth: CocoTruth) -> Score:
    with tempfile.TemporaryDirectory() as folder:
        predictions = Path(folder) / "coco.json"
        write_coco(predictions, stored_videos(assembly))
        return score_coco(predictions, truth.file.path)


def _warnings(assembly: Assembly, entries: Sequence[Entry]) -> tuple[str, ...]:
    others = sum(not entry.fingerprint.startswith(assembly.detection.label_fingerprint) for entry in entries)
    if not others:
        return ()
    return (
        f"{others} of {len(entries)} tasks were labelled with another config, other weights or another ontology than "
        "now: evaluate with the config of the run, or boxes that nobody touched count as moved",
    )
