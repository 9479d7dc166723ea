"""The agent that detects objects in videos and images, and labels them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from prelabel.assembly.assemble import Assembly
from prelabel.assembly.detector_parts import DetectorParts
from prelabel.assembly.stored import label_detections, labelled_videos, load_labelled
from prelabel.errors import PrelabelError, SaveError, raised_as
from prelabel.export.coco import write_coco
from prelabel.inference.batch_runner import BatchRunner
from prelabel.inference.decoding import Video
from prelabel.inference.pipeline import Inference, Pipeline
from prelabel.inference.refine import MediaAccess
from prelabel.plugins.protocols import ModelRecord, Task, TaskFacts, metadata_of
from prelabel.plugins.traits import warnings_of
from prelabel.run.agents.box_labels import BoxLabels, Detected, LabelledByWorker, report_of
from prelabel.run.agents.checks import check_reader, describe_sink, describe_source
from prelabel.run.agents.detection_checks import (
    check_labels,
    check_refiner,
    check_tracker,
    describe_detector,
    describe_label_map,
)
from prelabel.run.work import FetchedTask, InferredTask, LabelledTask
from prelabel.runtime.files import write_bytes_atomically
from prelabel.runtime.interrupts import Stopped, StopSignal
from prelabel.runtime.progress import Progress, emit_stage_time
from prelabel.store.ledger import Step
from prelabel.store.raw_detections import DetectionProvenance, RawRecord, read_raw, write_raw
from prelabel.store.report import RunReport
from prelabel.store.run_folder import RunFolder


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
    stays_because = ""

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
        if self.assembly.config.refine is not None:
            checks["masks"] = check_refiner
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
        found = self._read(self.assembly.found_store, task)
        if found is None and not self.assembly.dry_run:
            found = self._read(self.assembly.store.dry_run, task)
            if found is not None:
                write_raw(self.assembly.found_store.detections_path(task), found.raw)
        return found

    def infer(self, fetched: Iterable[FetchedTask]) -> Iterator[InferredTask[Detected]]:
        """Yields the raw detections of each task. A separate thread decodes ahead."""
        begun: deque[FetchedTask] = deque()
        keep = self.parts.refinement is not None  # it reads the media once more
        try:
            with closing(self._pipeline.infer(_videos(fetched, begun, keep=keep))) as results:
                for result in results:
                    item = begun[0]  # results have the order of the tasks
                    inferred = self._refined(item, self._result(item, result)) if keep else self._result(item, result)
                    begun.popleft().release.close()
                    yield inferred
        finally:
            for item in begun:
                item.release.close()

    def store(self, task: Task, found: Detected | LabelledByWorker) -> None:
        """Writes the raw detections to the run's folder."""
        path = self.assembly.found_store.detections_path(task)
        if isinstance(found, Detected):
            write_raw(path, found.raw)
        else:
            write_bytes_atomically(path, found.raw_file)

    def build_labels(self, task: Task, found: Detected | LabelledByWorker) -> LabelledTask[BoxLabels]:
        """Returns the detections that become labels."""
        if isinstance(found, Detected):
            media = MediaAccess(partial(self.assembly.open_media, task), self.stop.check)
            began, makes_masks = time.perf_counter(), self.parts.refinement is not None and found.filtered is None
            filtered = load_labelled(self.assembly, task, found.raw, found.filtered, media).filtered
            seconds = {"refine": time.perf_counter() - began} if makes_masks else {}
            report, facts = report_of(self.parts.label_map, task, found, filtered)
            report = replace(report, seconds=seconds)
            labels = BoxLabels(found.raw.info, filtered.detections)
        else:
            with suppress(OSError):  # a cache
                write_bytes_atomically(self.assembly.store.labelled_path(task), found.labelled_file, durable=False)
            report, facts = found.report, found.facts
            labels = BoxLabels(found.info, found)
        facts, router = replace(facts, metadata=metadata_of(task)), self.assembly.router
        outputs = [self.assembly.found_store.detections_path(task), self.assembly.label_path(task)]
        report = replace(
            report,
            pathway=router.pathway(facts),
            priority=router.priority_of(facts),
            outputs=tuple(str(path) for path in outputs if path is not None),
        )
        return LabelledTask(report, labels)

    def save(self, task: Task, labelled: LabelledTask[BoxLabels]) -> int | None:
        """Writes the labels to the sink. A user's sink may raise and return anything."""
        labels = labelled.labels
        if labels.row is not None:
            return self.assembly.rows.edit(task, labels.info, labels.change(self.parts.label_map))
        own_errors = Exception if self.assembly.config.sink is None else PrelabelError
        with raised_as(SaveError, f"{task.title}: the sink", own_errors):
            num_bytes = self.assembly.sink.write(task, labels.info, labels.read_detections())
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

    def _refined(self, item: FetchedTask, inferred: InferredTask[Detected]) -> InferredTask[Detected]:
        """Adds the labels with their masks, made while the media are on this machine.

        An error is not reported here: `build_labels` meets it again, after the raw detections are stored.
        """
        if inferred.found is None:
            return inferred
        began, title = time.perf_counter(), item.task.title
        media = MediaAccess(lambda: nullcontext(item.media), self.stop.check)
        try:
            filtered = label_detections(self.parts, inferred.found.raw, title, media)
        except Stopped:
            raise
        except Exception:
            return inferred
        seconds = time.perf_counter() - began
        emit_stage_time(self.progress, item.task.key, title, "refine", seconds, seconds)
        found = replace(inferred.found, filtered=filtered)
        return replace(inferred, found=found, seconds={**inferred.seconds, "refine": seconds})

    def _read(self, store: RunFolder, task: Task) -> Detected | None:
        """Returns the raw detections in a folder; None if there are none for this config and these media."""
        if not store.has_ledger:
            return None
        try:
            content = store.detections_path(task).read_bytes()
            needs_media = self.assembly.config.refine is not None
            found = Detected(read_raw(content), raw_file=b"" if needs_media else content)
        except (FileNotFoundError, PrelabelError):  # a damaged file counts as missing, so it is written again
            return None
        return found if found.raw.origin.fingerprint == self._raw_fingerprint(task) else None

    def _raw_fingerprint(self, task: TaskFacts) -> str:
        return f"{self.parts.raw_fingerprint}:{task.identity}"


def _videos(fetched: Iterable[FetchedTask], begun: deque[FetchedTask], *, keep: bool) -> Iterator[Video]:
    """Yields the videos of tasks. It appends each task to `begun` first.

    Args:
        fetched: the tasks.
        begun: filled with the tasks.
        keep: whether the media stay on this machine after a video is read.
    """
    for item in fetched:
        begun.append(item)
        release = nullcontext() if keep else item.release
        yield Video(item.media, item.task.title, item.task.num_frames, item.task.key, release)
