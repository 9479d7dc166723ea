"""What prelabel wrote against what stands there now, over all tasks of a config."""

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
    load_labelled,
    stored_entries,
    stored_videos,
    titles_apart,
    unlabelled_detections,
)
from prelabel.config.base import EncordSection
from prelabel.config.fingerprints import config_fingerprint
from prelabel.data.detections import VideoDetections
from prelabel.data.frames import VideoInfo
from prelabel.data.label_map import LabelMap
from prelabel.errors import ConfigError, TaskError
from prelabel.evaluate.boxes import Boxes, boxes_of_corners, boxes_of_row
from prelabel.evaluate.coco import CocoFile, score_coco, truth_of
from prelabel.evaluate.compare import compare_boxes
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
from prelabel.evaluate.thresholds import Evidence, threshold_curves, weigh_boxes
from prelabel.evaluate.worst import worst_of_all, worst_of_video
from prelabel.export.coco import write_coco
from prelabel.labels.filter import class_thresholds
from prelabel.labels.row.offline import encord_ontology, new_label_row
from prelabel.labels.row.own import LabelRow
from prelabel.labels.row.write import write_detections
from prelabel.store.ledger import Entry
from prelabel.store.raw_detections import RawRecord, read_raw
from prelabel.store.report import Score


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """What to compare with.

    Attributes:
        against: label rows, a file or a folder of them, or a COCO ground truth; None: what the source has.
        stages: of an Encord project: at which tasks are compared; none: those at which its workflow ends.
        min_iou: overlap from which boxes of different instances may be the same thing.
        accept_iou: overlap from which a box would be left as it is, where only that can tell.
    """

    against: Path | None = None
    stages: tuple[str, ...] = ()
    min_iou: float = 0.5
    accept_iou: float = 0.8


@dataclass(frozen=True, slots=True)
class _Compared:
    """What came out of one task, and the confidence down to which its boxes were kept."""

    lowest_conf: float
    edits: VideoEdits
    evidence: Evidence
    worst: list[WorstFrame]
    left_out: LeftOut


def evaluate_run(assembly: Assembly, asked: EvaluateOptions) -> Evaluation:
    """Returns what became of the labels that runs of a config wrote.

    What was written is what the config makes of the raw detections, as a run does: with the config of the run.

    Raises:
        ConfigError: nothing was written, nothing can be compared, or `against` is neither label rows nor COCO.
        AccountError: the platform cannot be reached.
    """
    kept = stored_entries(assembly.found_store, assembly.config.source)
    entries = kept.of_source
    standing = _standing(assembly, asked, entries)
    titles = titles_apart(entries)
    found: list[_Compared] = []
    skipped: list[Skipped] = []
    for entry in entries:
        try:
            found.append(_compare(assembly, asked, entry, titles[entry.key], standing))
        except TaskError as error:
            skipped.append(Skipped(titles[entry.key], str(error)))
    if not found:
        reasons = explain_skipped([task.reason for task in skipped])
        raise ConfigError(f"nothing to compare with {standing.describe()}: {reasons}")
    return Evaluation(
        prelabel=prelabel.__version__,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        config_sha256=config_fingerprint(assembly.config),
        against=standing.describe(),
        min_iou=asked.min_iou,
        accept_iou=asked.accept_iou,
        instances_are=assembly.config.labels.instances,
        models=_by_model([task.edits for task in found]),
        videos=tuple(task.edits for task in found),
        thresholds=threshold_curves(
            [task.evidence for task in found], _in_force(assembly.detection), _lowest(assembly.detection, found)
        ),
        score=_score(assembly, standing),
        worst_frames=worst_of_all([frame for task in found for frame in task.worst]),
        skipped=tuple(skipped),
        left_out=_add_left_out([task.left_out for task in found]),
        warnings=(*kept.warnings, *_warnings(assembly, entries)),
    )


def _standing(assembly: Assembly, asked: EvaluateOptions, entries: Sequence[Entry]) -> CurrentLabels | CocoTruth:
    """Returns what was asked for, else the source's ground truth, its project's rows, or the rows in the output."""
    source, against = assembly.config.source, asked.against
    if against is None:
        against = truth_of(source)
    if against is None and isinstance(source, EncordSection):
        return ProjectRows(assembly.encord, asked.stages, entries)
    if asked.stages:
        place = against or assembly.output
        raise ConfigError(f"--stage {asked.stages[0]}: {place} has no stages, only a project's label rows do")
    if against is None:
        return OutputRows(assembly.store)
    if not against.exists():
        raise ConfigError(f"{against}: there is nothing: name label rows, a file or a folder, or a COCO ground truth")
    if is_coco(against):
        return CocoTruth(CocoFile.read(against), tuple(found.name for found in assembly.detection.label_map.categories))
    return RowFiles(against)


def _compare(
    assembly: Assembly, asked: EvaluateOptions, entry: Entry, title: str, standing: CurrentLabels | CocoTruth
) -> _Compared:
    if entry.step not in ("labelled", "done"):
        raise NotThereError(f"has no labels of a run: {entry.step}{f': {entry.reason}' if entry.reason else ''}")
    parts = assembly.detection
    raw = read_raw(assembly.found_store.detections_path(entry))
    check_classes(parts, title, raw.origin)
    shaped = load_labelled(assembly, entry, raw).shaped.detections
    frames = shaped.frames_looked_at
    if isinstance(standing, CocoTruth):
        current, frames = standing.boxes_of(title, raw.info, frames)
        written = _boxes_of(shaped, raw.info, parts.label_map)
    else:
        row = standing.row_of(entry)
        current, written = boxes_of_row(row), boxes_of_row(_as_written(assembly, entry, raw.info, shaped, row))
    unwritten = _boxes_of(unlabelled_detections(parts, raw), raw.info, parts.label_map)
    ious = {"min_iou": asked.min_iou, "accept_iou": asked.accept_iou}
    there = np.isin(current.frame_index, frames)
    compared = compare_boxes(_on(frames, written), current.where(there), **ious)
    is_strange = compared.is_added & ~np.isin(compared.current.class_name, _class_names(parts))
    strange = Counter(compared.current.class_name[is_strange].tolist())
    compared = compared.without_added(is_strange)
    return _Compared(
        lowest_conf=raw.origin.lowest_conf or 0.0,
        edits=VideoEdits(entry.key, title, _model_of(raw), len(frames), count_edits(compared)),
        evidence=weigh_boxes(compared, _on(frames, unwritten), **ious),
        worst=worst_of_video(compared, raw.info, entry.key, title),
        left_out=LeftOut(int((~there).sum()), dict(strange)),
    )


def _as_written(
    assembly: Assembly, entry: Entry, info: VideoInfo, shaped: VideoDetections, current: LabelRow
) -> LabelRow:
    """Returns the row with nothing but what prelabel wrote: object hashes depend on whose row it is."""
    now = datetime.now(UTC)
    if isinstance(assembly.config.source, EncordSection):
        units = {key: {**unit, "labels": {}} for key, unit in current["data_units"].items()}
        blank = {**current, "data_units": units, "object_answers": {}, "object_actions": {}}
    else:
        blank = new_label_row(entry.key, entry.title, info, encord_ontology(assembly.ontology), now=now)
    return write_detections(blank, shaped, info, assembly.detection.label_map, now=now).row


def _boxes_of(found: VideoDetections, info: VideoInfo, label_map: LabelMap) -> Boxes:
    names = [category.name if category is not None else "" for category in label_map.objects]
    return boxes_of_corners(
        found.frame_index,
        found.xyxy.astype(np.float64),
        info,
        np.array(names, np.str_)[found.class_id].tolist(),
        confidence=found.confidence,
        instance=found.instance,
    )


def _on(frames: NDArray[np.int64], boxes: Boxes) -> Boxes:
    return boxes.where(np.isin(boxes.frame_index, frames))


def _class_names(parts: DetectorParts) -> list[str]:
    return [category.name for category in parts.label_map.categories]


def _model_of(raw: RawRecord) -> str:
    model = raw.origin.model
    if model is None:
        return "unknown"
    return f"{model.name} {model.weights_sha256[:8]}" if model.weights_sha256 else model.name


def _by_model(videos: Sequence[VideoEdits]) -> tuple[ModelEdits, ...]:
    names = sorted({video.model for video in videos})
    return tuple(
        ModelEdits(name, add_edits(video.by_class for video in videos if video.model == name)) for name in names
    )


def _in_force(parts: DetectorParts) -> dict[str, float]:
    """Returns the confidence from which boxes became labels, by class."""
    least = np.maximum(
        class_thresholds(parts.config.labels.conf, parts.label_map),
        parts.finder.threshold or 0.0,
    )
    return {
        category.name: round(float(confidence), 5)
        for category, confidence in zip(parts.label_map.objects, least, strict=True)
        if category is not None
    }


def _lowest(parts: DetectorParts, found: Sequence[_Compared]) -> dict[str, float]:
    """Returns the confidence down to which boxes were kept, by class. Of tracks nobody knows what fewer boxes make."""
    if parts.linking is not None:
        return _in_force(parts)
    return dict.fromkeys(_class_names(parts), max(task.lowest_conf for task in found))


def _score(assembly: Assembly, standing: CurrentLabels | CocoTruth) -> Score | None:
    if not isinstance(standing, CocoTruth):
        return None
    with tempfile.TemporaryDirectory() as folder:
        predictions = Path(folder) / "coco.json"
        write_coco(predictions, stored_videos(assembly))
        return score_coco(predictions, standing.file.path)


def _add_left_out(parts: Sequence[LeftOut]) -> LeftOut:
    classes: Counter[str] = Counter()
    for part in parts:
        classes.update(part.of_other_classes)
    return LeftOut(sum(part.on_other_frames for part in parts), dict(classes.most_common()))


def _warnings(assembly: Assembly, entries: Sequence[Entry]) -> tuple[str, ...]:
    others = sum(not entry.fingerprint.startswith(assembly.detection.label_fingerprint) for entry in entries)
    if not others:
        return ()
    return (
        f"{others} of {len(entries)} tasks were labelled under another config, weights or ontology than those of now: "
        "evaluate with the config of the run, or boxes count as moved that nobody touched",
    )
