"""Writes labels to files: one Encord label row for each task."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path

import orjson

from prelabel.data.detections import VideoDetections
from prelabel.data.frames import VideoInfo
from prelabel.data.label_map import LabelMap
from prelabel.data.ontology import Ontology
from prelabel.errors import LabelError
from prelabel.labels.row.offline import EditableRow, data_hash_of, detached_row, encord_ontology, new_label_row
from prelabel.labels.row.own import LabelRow, RowChange
from prelabel.labels.row.ready import unlabelled_video
from prelabel.labels.row.size import check_row_size, json_pieces
from prelabel.labels.row.write import count_labels_of_others, unless_begun, write_detections
from prelabel.plugins.protocols import Task
from prelabel.runtime.files import atomic_write
from prelabel.runtime.process_settings import paused_garbage_collection
from prelabel.store.run_folder import RunFolder
from prelabel.store.source import RowOptions

LABELS_ENDING = ".labels.json"
"""The ending of the file of a task's label row."""


class FolderSink:
    """Writes `NAME.labels.json` for each task.

    An existing label row is treated like one on the platform. Labels that prelabel wrote and nobody changed are
    replaced; all other labels stay.

    Raises:
        OntologyError: the Encord SDK cannot load the ontology.
    """

    def __init__(
        self,
        store: RunFolder,
        ontology: Ontology,
        label_map: LabelMap,
        options: RowOptions,
    ) -> None:
        """Writes no file yet.

        Args:
            store: the output folder, for the label rows.
            ontology: of the label rows.
            label_map: from the detector's classes to the ontology's objects.
            options: how to write rows.
        """
        self._options = options
        self._ontology = ontology
        self._sdk_ontology = encord_ontology(ontology)  # raises before the first task if the SDK cannot load it
        self._label_map = label_map
        self._store = store

    def describe(self) -> str:
        """Returns the place to which labels go, in words."""
        return f"into {self._store.described}: NAME{LABELS_ENDING}, one file per task"

    def path_of(self, task: Task) -> Path:
        """Returns the path of the task's label row; it may not exist yet."""
        return self._store.path(task, LABELS_ENDING)

    def write(self, task: Task, info: VideoInfo, detections: VideoDetections) -> int:
        """Writes detections onto the task's label row; returns and raises the same as `edit`."""
        return self.edit(task, info, lambda row, now: write_detections(row, detections, info, self._label_map, now=now))

    def expected_row(self, task: Task) -> bytes:
        """Returns the task's row; that of a video without labels if it does not exist yet."""
        path = self.path_of(task)
        return path.read_bytes() if path.exists() else unlabelled_video(data_hash_of(task.key))

    def edit(self, task: Task, info: VideoInfo, change: RowChange) -> int:
        """Writes the task's label row after a change, completely or not at all.

        Writing the same labels again changes nothing.

        Args:
            task: the task of the row; the row is created if there is none.
            info: of the task's media.
            change: returns the new row.

        Returns:
            Size of the row in bytes, as it would be sent to the platform.

        Raises:
            LabelError: the labels cannot be written, the file is not a row of this task, or somebody has worked on the
                row and the media have changed since.
            TakenError: somebody has worked on the row, and the options say to skip such rows.
        """
        now = datetime.now(UTC)
        change = unless_begun(task.title, change) if self._options.skips_begun else change
        written = change(self._read_or_make(task, info, now), now)
        num_bytes = check_row_size(written.row, self._options.max_row_bytes)
        write_row(self.path_of(task), written.row)
        return num_bytes

    def checkout(self, task: Task, info: VideoInfo) -> EditableRow:
        """Returns a task's row, which a user's function can edit.

        Raises:
            LabelError: in the same cases as `edit`.
        """
        row = self._read_or_make(task, info, datetime.now(UTC))
        return EditableRow(detached_row(task.title, info, encord_ontology(self._ontology)), row)

    def _read_or_make(self, task: Task, info: VideoInfo, now: datetime) -> LabelRow:
        path = self.path_of(task)
        self._store.refresh(path)
        row = _read_row(path, task) if path.exists() else None
        if row is not None and not _is_of(row, info):
            _refuse_work_of_others(path, row, info)
            row = None
        return row if row is not None else new_label_row(task.key, task.title, info, self._sdk_ontology, now=now)


def write_row(path: Path, row: LabelRow) -> None:
    """Writes a label row completely or not at all."""
    with atomic_write(path) as unfinished, unfinished.open("wb") as file:
        file.writelines(json_pieces(row))


def _read_row(path: Path, task: Task) -> LabelRow:
    """Returns the label row of a file.

    Refuses any other file, and does not replace it, because it may hold somebody's work.
    """
    try:
        with paused_garbage_collection():  # it makes many objects without cycles
            row = orjson.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise LabelError(f"{path}: not a label row: {error}; it stays as it is: move it away") from error
    parts = ("data_units", "object_answers", "classification_answers", "object_actions")
    if not isinstance(row, dict) or not all(isinstance(row.get(part), dict) for part in parts):
        raise LabelError(f"{path}: not a label row: expected {', '.join(parts)}; it stays as it is: move it away")
    if row.get("data_hash") != data_hash_of(task.key):
        raise LabelError(f"{path}: the label row of other data, {row.get('data_title')!r}: move it away")
    return row


def _is_of(row: LabelRow, info: VideoInfo) -> bool:
    """Returns whether a row is of media of this size and length.

    Another file may have the same name now.
    """
    units = sorted(row["data_units"].values(), key=lambda unit: int(unit["data_sequence"]))
    sizes = info.frame_sizes or ((info.width, info.height),) * (1 if info.average_fps > 0 else info.num_frames)
    if [(unit.get("width"), unit.get("height")) for unit in units] != list(sizes):
        return False
    if (row["data_type"] == "video") != (info.average_fps > 0):
        return False
    return info.average_fps == 0 or math.isclose(units[0].get("data_duration") or 0.0, info.duration_seconds)


def _refuse_work_of_others(path: Path, row: LabelRow, info: VideoInfo) -> None:
    if count_labels_of_others(row):
        unit = next(iter(row["data_units"].values()))
        raise LabelError(
            f"{path}: somebody has worked on it, and it is of other media: {unit.get('width')} x {unit.get('height')} "
            f"pixels, {unit.get('data_duration') or 0:.2f} s; now they are {info.width} x {info.height}, "
            f"{info.duration_seconds:.2f} s: move it away"
        )
