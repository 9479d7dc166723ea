"""The boxes of a task on their way from a worker to the label row.

In the process of the run, raw detections become labels when the task is labelled. A worker in another process goes
further: it returns files and the row's labels as bytes, so that the run only writes them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from prelabel.assembly.detector_parts import DetectorParts
from prelabel.assembly.stored import label_detections, make_labelled
from prelabel.data.detections import VideoDetections
from prelabel.data.frames import VideoInfo
from prelabel.data.label_map import LabelMap
from prelabel.errors import LabelError
from prelabel.labels.filter import FilteredDetections
from prelabel.labels.row.own import LabelRow, RowChange, WrittenRow
from prelabel.labels.row.ready import ReadyRow, make_ready
from prelabel.labels.row.write import write_detections
from prelabel.plugins.protocols import TaskFacts
from prelabel.routing.facts import Facts
from prelabel.run.work import Work
from prelabel.store.labelled import digest_of, labelled_content, read_labelled
from prelabel.store.raw_detections import RawRecord, raw_content
from prelabel.store.report import TaskReport


@dataclass(frozen=True, slots=True)
class Detected:
    """The raw detections of a task.

    Attributes:
        raw: the raw detections as they are stored.
        reader: which reader read the media, and why; empty if an earlier run read them.
        filtered: the detections that become labels, if masks were made for them while the media were there.
        raw_file: content of their file, if an earlier run has stored them and labels need no media.
    """

    raw: RawRecord
    reader: str = ""
    filtered: FilteredDetections | None = None
    raw_file: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class LabelledByWorker:
    """The detections of a task with all that a worker makes of them. The run does not compute anything of it again.

    Attributes:
        raw_file: content of the file of raw detections; empty if an earlier run has stored them.
        labelled_file: content of the file of labelled detections.
        report: as `report_of` returns it.
        facts: for routing, without the task's metadata.
        row: the labels for the task's row; None if they cannot be made for the row that is expected.
    """

    raw_file: bytes
    labelled_file: bytes
    report: TaskReport
    facts: Facts
    row: ReadyRow | None

    @property
    def info(self) -> VideoInfo:
        """Size, length and frame rate of the media, as displayed."""
        assert self.facts.info is not None
        return self.facts.info

    def read_detections(self) -> VideoDetections:
        """Returns the detections that become labels."""
        labelled = read_labelled(self.labelled_file)
        if labelled is None:
            raise LabelError(f"{self.report.title}: a worker returned labels that cannot be read")
        return labelled.filtered.detections


@dataclass(frozen=True, slots=True)
class BoxLabels:
    """The labels of a task.

    Attributes:
        info: size, length and frame rate of the media, as displayed.
        found: the detections, one row per box; or what a worker made of them, which is read only if it is needed.
    """

    info: VideoInfo
    found: VideoDetections | LabelledByWorker

    @property
    def row(self) -> ReadyRow | None:
        """The labels as text for the row that is expected, if a worker has made them."""
        return self.found.row if isinstance(self.found, LabelledByWorker) else None

    def read_detections(self) -> VideoDetections:
        """Returns the detections, one row per box."""
        return self.found.read_detections() if isinstance(self.found, LabelledByWorker) else self.found

    def change(self, label_map: LabelMap) -> RowChange:
        """Returns the change of the task's row that writes these labels."""
        ready = self.row

        def write(row: LabelRow, now: datetime) -> WrittenRow:
            written = None if ready is None else ready.put_on(row, self.info)
            return written or write_detections(row, self.read_detections(), self.info, label_map, now=now)

        return write


def label_in_worker(parts: DetectorParts, work: Work, found: Detected) -> LabelledByWorker:
    """Returns all that the run needs of a task's detections.

    Raises:
        PrelabelError: the labels cannot be made; the run raises the same error for the task.
    """
    raw_file = found.raw_file or raw_content(found.raw).to_bytes()
    filtered = label_detections(parts, found.raw, work.title, None) if found.filtered is None else found.filtered
    labelled = make_labelled(parts, found.raw, digest_of(raw_file), filtered)
    report, facts = report_of(parts.label_map, work, found, filtered)
    row = _ready_row(parts.label_map, work, found.raw.info, filtered.detections)
    new_file = b"" if found.raw_file else raw_file
    return LabelledByWorker(new_file, labelled_content(labelled).to_bytes(), report, facts, row)


def _ready_row(label_map: LabelMap, work: Work, info: VideoInfo, detections: VideoDetections) -> ReadyRow | None:
    if not work.expected_row:
        return None
    if len(detections) and work.num_frames is not None and detections.frame_index[-1] >= work.num_frames:
        return None  # the sink refuses such detections
    try:
        return make_ready(work.expected_row, detections, info, label_map, now=datetime.now(UTC))
    except (LabelError, ValueError):  # such as for images, whose rows differ from the expected one
        return None


def report_of(
    label_map: LabelMap, task: TaskFacts, found: Detected, filtered: FilteredDetections
) -> tuple[TaskReport, Facts]:
    """Returns a task's report and the facts about its labels, without what only the run knows.

    The report lacks pathway, priority and outputs; the facts lack metadata.
    """
    detections, raw = filtered.detections, found.raw
    facts = Facts.of_labels(task.title, raw.info, detections, label_map, {})
    _, first_rows = np.unique(facts.instance, return_index=True)
    counts = np.bincount(facts.class_index[first_rows], minlength=len(label_map.categories))
    report = TaskReport(
        title=task.title,
        key=task.key,
        status="done",
        partial="; ".join(filter(None, (raw.partial, filtered.partial))) or None,
        num_frames=raw.info.num_frames,
        num_inferred=len(raw.detections.inferred_frames),
        instances={category.name: int(num) for category, num in zip(label_map.categories, counts, strict=True) if num},
        num_boxes=len(detections),
        num_interpolated=int(detections.interpolated.sum()),
        thinning=filtered.thinning,
        dropped={reason: sum(by_class.values()) for reason, by_class in filtered.dropped.items()},
        reader=found.reader,
    )
    return report, facts
