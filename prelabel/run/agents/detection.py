"""The agent that detects objects in videos and images, and labels them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from prelabel.assembly.assemble import Assembly
from prelabel.assembly.detector_parts import DetectorParts
from prelabel.assembly.stored import labelled_videos, load_labelled
from prelabel.data.detections import VideoDetections
from prelabel.data.frames import VideoInfo
from prelabel.errors import PrelabelError, SaveError
from prelabel.export.coco import write_coco
from prelabel.inference.batch_runner import BatchRunner
from prelabel.inference.decoding import Video
from prelabel.inference.pipeline import Inference, Pipeline
from prelabel.labels.filter import FilteredDetections
from prelabel.plugins.protocols import ModelRecord, Task, metadata_of
from prelabel.plugins.traits import warnings_of
from prelabel.routing.facts import Facts
from prelabel.run.agents.detection_checks import check_labels, check_tracker, describe_detector, describe_label_map
from prelabel.run.checks import check_reader, describe_sink, describe_source
from prelabel.run.work import FetchedTask, InferredTask, LabelledTask, TaskFacts
from prelabel.runtime.interrupts import StopSignal
from prelabel.runtime.progress import Progress, emit_stage_time
from prelabel.store.ledger import Step
from prelabel.store.raw_detections import DetectionProvenance, RawRecord, read_raw, write_raw
from prelabel.store.report import RunReport, TaskReport
from prelabel.store.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class Detected:
    """The raw detections of a task.

    Attributes:
        raw: the raw detections as they are stored.
        reader: which reader read the media, and why; empty if an earlier run read them.
        filtered: the detections that become labels, if a worker has computed them; else the run does.
    """

    raw: RawRecord
    reader: str = ""
    filtered: FilteredDetections | None = None


@dataclass(frozen=True, slots=True)
class BoxLabels:
    """The detections of a task that become labels.

    Attributes:
        info: size, length and frame rate of the media, as displayed.
        detections: the detections, one row per box.
    """

    info: VideoInfo
    detections: VideoDetections


@dataclass(frozen=True)
class DetectionAgent:
    """Runs the detector on each task's frames and turns its detections into object instances.

    Attributes:
        assembly: the components of the run.
        progress: notified of every batch.
        stop: checked before every batch.
    """

    assembly: Assembly
    progress: Progress
    stop: StopSignal
    reads_media = True

    @property
    def parts(self) -> DetectorParts:
        """The detector and its label map, tracker and fingerprints."""
        return self.assembly.detection

    def checks(self) -> Mapping[str, Callable[[], str]]:
        """Returns the checks of `prelabel check`, by name."""
        checks = {
            "tasks": describe_source,
            "weights": describe_detector,
            "reader": check_reader,
            "classes": describe_label_map,
            "labels": describe_sink,
        }
        if self.parts.linking is not None:
            checks["tracks"] = check_tracker
        return {name: partial(check, self.assembly) for name, check in checks.items()}

    def prepare(self) -> None:
        """Creates the detector, the tracker and the sink."""
        check_labels(self.assembly)

    @property
    def routing_classes(self) -> Sequence[str]:
        """The names of the ontology objects."""
        return [category.name for category in self.parts.label_map.categories]

    @property
    def model(self) -> ModelRecord:
        """The detector's model."""
        return self.parts.provider.model

    @property
    def warnings(self) -> Sequence[str]:
        """The warnings of the label map, the detector and the sink."""
        return [*self.parts.label_map.notes, *warnings_of(self.parts.asked_detector, self.assembly.sink)]

    @property
    def shapes(self) -> Sequence[str]:
        """The shapes of the ontology objects."""
        return list(dict.fromkeys(category.shape for category in self.parts.label_map.categories))

    @property
    def device(self) -> str:
        """The detector's device; empty if it is not known."""
        return self.parts.device or ""

    @property
    def summary_path(self) -> Path:
        """Path of `coco.json`."""
        return self.assembly.output / "coco.json"

    def write_summary(self, path: Path, report: RunReport) -> None:
        """Writes the labels of all tasks to a COCO file, with one task at a time in memory."""
        write_coco(path, labelled_videos(self.assembly, [task for task in report.tasks if task.is_done]))

    def fingerprint(self, task: Task) -> str:
        """Returns the hash of the detector, the label settings and the media."""
        return f"{self.parts.label_fingerprint}:{task.identity}"

    def load_cached(self, task: Task, step: Step | None) -> Detected | None:
        """Returns the raw detections that an earlier run, or else a dry run, stored under the same fingerprint."""
        raw = self._read(self.assembly.found_store, task)
        if raw is None and not self.assembly.dry_run:
            raw = self._read(self.assembly.store.dry_run, task)
            if raw is not None:
                write_raw(self.assembly.found_store.detections_path(task), raw)
        return None if raw is None else Detected(raw)

    def infer(self, fetched: Iterable[FetchedTask]) -> Iterator[InferredTask[Detected]]:
        """Yields the raw detections of each task. A separate thread decodes ahead."""
        begun: deque[FetchedTask] = deque()
        with closing(self._pipeline.infer(_videos(fetched, begun))) as results:
            for result in results:
                yield self._result(begun.popleft(), result)  # results have the order of the tasks

    def store(self, task: Task, found: Detected) -> None:
        """Writes the raw detections to the run's folder."""
        write_raw(self.assembly.found_store.detections_path(task), found.raw)

    def build_labels(self, task: Task, found: Detected) -> LabelledTask[BoxLabels]:
        """Returns the detections that become labels."""
        info, filtered = found.raw.info, load_labelled(self.assembly, task, found.raw, found.filtered).filtered
        facts = Facts.of_labels(task.title, info, filtered.detections, self.parts.label_map, metadata_of(task))
        return LabelledTask(self._report(task, found, filtered, facts), BoxLabels(info, filtered.detections))

    def save(self, task: Task, labelled: LabelledTask[BoxLabels]) -> int | None:
        """Writes the labels to the sink. A user's sink may raise and return anything."""
        try:
            num_bytes = self.assembly.sink.write(task, labelled.labels.info, labelled.labels.detections)
        except PrelabelError:
            raise
        except Exception as error:
            if self.assembly.config.sink is None:
                raise
            raise SaveError(f"{task.title}: the sink raised {type(error).__name__}: {error}") from error
        return num_bytes if isinstance(num_bytes, int) else None

    def outputs_exist(self, task: Task) -> bool:
        """Returns whether the file of the label row exists.

        Without such a file, the ledger is trusted, unless the source moves tasks: a done task that waits there again
        has come back to its stage.
        """
        path = self.assembly.label_path(task)
        return not self.assembly.source.moves_tasks if path is None else path.exists()

    @cached_property
    def _pipeline(self) -> Pipeline:
        return Pipeline(
            reader=self.assembly.config.reader,
            folder=self.assembly.folder,
            runner=BatchRunner(self.parts.detector),
            batch_size=self.parts.batch_size,
            frames=self.assembly.config.frames,
            progress=self.progress,
            stop=self.stop,
            fit_batch=self.parts.fit_batch,
            device=self.parts.device,
        )

    def _result(self, item: FetchedTask, result: Inference | Exception) -> InferredTask[Detected]:
        task = item.task
        if isinstance(result, Exception):
            return InferredTask.failed(task.key, result)
        for stage, busy_seconds in result.seconds.items():
            wall_seconds = time.perf_counter() - result.began[stage]
            emit_stage_time(self.progress, task.key, task.title, stage, busy_seconds, wall_seconds)
        raw = RawRecord(
            info=result.info,
            detections=result.detections,
            origin=DetectionProvenance(
                class_names=tuple(self.parts.detector.class_names),
                model=self.model,
                fingerprint=self._raw_fingerprint(task),
                lowest_conf=self.parts.provider.raw_conf,
                offer=self.parts.given_geometry,
                digests=self.parts.detection_key_hashes,
            ),
            partial=result.partial,
            cuts=tuple(result.cuts.tolist()),
        )
        reader = f"{result.reader.use} ({result.reader.reason})"
        return InferredTask(task.key, Detected(raw, reader), seconds={"fetch": item.seconds, **result.seconds})

    def _read(self, store: RunFolder, task: Task) -> RawRecord | None:
        """Returns the raw detections in a folder; None if there are none for this config and these media."""
        if not store.has_ledger:
            return None
        try:
            path = store.detections_path(task)
            raw = read_raw(path) if path.exists() else None
        except PrelabelError:  # a damaged file counts as missing, so it is written again
            return None
        return raw if raw is not None and raw.origin.fingerprint == self._raw_fingerprint(task) else None

    def _report(self, task: Task, found: Detected, filtered: FilteredDetections, facts: Facts) -> TaskReport:
        label_map, detections, raw = self.parts.label_map, filtered.detections, found.raw
        _, first_rows = np.unique(detections.instance, return_index=True)
        category = label_map.category_index[detections.class_id[first_rows]]
        counts = np.bincount(category, minlength=len(label_map.categories))
        outputs = [self.assembly.found_store.detections_path(task), self.assembly.label_path(task)]
        return TaskReport(
            title=task.title,
            key=task.key,
            status="done",
            partial=raw.partial,
            num_frames=raw.info.num_frames,
            num_inferred=len(raw.detections.inferred_frames),
            instances={
                category.name: int(num) for category, num in zip(label_map.categories, counts, strict=True) if num
            },
            num_boxes=len(detections),
            num_interpolated=int(detections.interpolated.sum()),
            thinning=filtered.thinning,
            dropped={reason: sum(by_class.values()) for reason, by_class in filtered.dropped.items()},
            pathway=self.assembly.router.pathway(facts),
            priority=self.assembly.router.priority_of(facts),
            reader=found.reader,
            outputs=tuple(str(path) for path in outputs if path is not None),
        )

    def _raw_fingerprint(self, task: TaskFacts) -> str:
        return f"{self.parts.raw_fingerprint}:{task.identity}"


def _videos(fetched: Iterable[FetchedTask], begun: deque[FetchedTask]) -> Iterator[Video]:
    """Yields the videos of tasks. It appends each task to `begun` first."""
    for item in fetched:
        begun.append(item)
        yield Video(item.media, item.task.title, item.task.num_frames, item.task.key, item.release)
