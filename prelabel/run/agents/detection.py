"""The agent that puts boxes on videos and pictures."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from prelabel.assembly.assemble import Assembly
from prelabel.assembly.detector_parts import DetectorParts
from prelabel.assembly.stored import load_detections, load_labelled
from prelabel.data.detections import VideoDetections
from prelabel.data.frames import VideoInfo
from prelabel.errors import PrelabelError, SaveError
from prelabel.inference.batch_runner import BatchRunner
from prelabel.inference.decoding import Video
from prelabel.inference.pipeline import Inference, Pipeline
from prelabel.labels.filter import FilteredDetections
from prelabel.media.choose import ReaderChoice
from prelabel.plugins.protocols import ModelRecord, Task, metadata_of
from prelabel.plugins.traits import warnings_of
from prelabel.routing.facts import Facts
from prelabel.run.agents.agent import Decision, FetchedTask, InferredTask
from prelabel.runtime.interrupts import StopSignal
from prelabel.runtime.progress import Progress, emit_stage_time
from prelabel.store.ledger import Step
from prelabel.store.raw_detections import DetectionProvenance, RawRecord, write_raw
from prelabel.store.report import TaskReport


@dataclass(frozen=True, slots=True)
class Seen:
    """Raw detections of a task.

    Attributes:
        raw: as they are kept.
        reader: which reader read the media; None if that was an earlier run.
    """

    raw: RawRecord
    reader: ReaderChoice | None = None


@dataclass(frozen=True)
class DetectionAgent:
    """Runs the detector over a task's frames, and makes object instances of what it finds.

    Attributes:
        assembly: the parts.
        progress: told of every batch.
        stop: asked before every batch.
    """

    assembly: Assembly
    progress: Progress
    stop: StopSignal

    @property
    def model(self) -> ModelRecord:
        """The detector's."""
        return self._parts.finder.model

    @property
    def warnings(self) -> Sequence[str]:
        """Of the class map, of the detector and of the sink."""
        return [*self._parts.label_map.short_notes, *warnings_of(self._parts.asked_detector, self.assembly.sink)]

    @property
    def reads_media(self) -> bool:
        """It looks at every task's frames."""
        return True

    def fingerprint(self, task: Task) -> str:
        """Returns a hash of detector, labels and media."""
        return f"{self._parts.label_fingerprint}:{task.identity}"

    def recall(self, task: Task, step: Step | None) -> Seen | None:
        """Returns the raw detections that an earlier run kept, if another look would find the same."""
        try:
            raw = load_detections(self.assembly, task)
        except PrelabelError:  # damaged: made again
            return None
        return Seen(raw) if raw is not None and raw.origin.fingerprint == self._raw_fingerprint(task) else None

    def look(self, fetched: Iterable[FetchedTask]) -> Iterator[InferredTask[Seen]]:
        """Yields the raw detections of each task, kept on disk. Decoding runs ahead on a thread of its own."""
        begun: deque[FetchedTask] = deque()
        with closing(self._pipeline.infer(_noted(fetched, begun))) as results:
            for result in results:
                yield self._keep(begun.popleft(), result)

    def decide(self, task: Task, found: Seen) -> Decision:
        """Returns which detections become labels."""
        filtered = load_labelled(self.assembly, task, found.raw).filtered
        facts = Facts.of_labels(
            task.title, found.raw.info, filtered.detections, self._parts.label_map, metadata_of(task)
        )
        router = self.assembly.router

        def write() -> int | None:
            return self._write(task, found.raw.info, filtered.detections)

        return Decision(self._report(task, found, filtered), router.pathway(facts), write, router.priority_of(facts))

    def _write(self, task: Task, info: VideoInfo, detections: VideoDetections) -> int | None:
        """Has the sink write, which may be somebody's own: it may raise, and return, anything."""
        try:
            num_bytes = self.assembly.sink.write(task, info, detections)
        except PrelabelError:
            raise
        except Exception as error:
            if self.assembly.config.sink is None:
                raise
            raise SaveError(f"{task.title}: the sink raised {type(error).__name__}: {error}") from error
        return num_bytes if isinstance(num_bytes, int) else None

    def holds(self, task: Task) -> bool:
        """Tells whether the label row's file is there; of rows on the platform nobody knows without a look.

        A sink of somebody's own is taken at the ledger's word, unless the task has come back to its stage.
        """
        path = self.assembly.label_path(task)
        return not self.assembly.source.moves_tasks if path is None else path.exists()

    @cached_property
    def _pipeline(self) -> Pipeline:
        return Pipeline(
            reader=self.assembly.config.reader,
            folder=self.assembly.folder,
            runner=BatchRunner(self._parts.detector),
            batch_size=self._parts.batch_size,
            frames=self.assembly.config.frames,
            progress=self.progress,
            stop=self.stop,
            fit_batch=self._parts.fit_batch,
            device=self._parts.device,
        )

    @property
    def _parts(self) -> DetectorParts:
        return self.assembly.detection

    def _keep(self, item: FetchedTask, result: Inference | Exception) -> InferredTask[Seen]:
        task = item.task
        if isinstance(result, Exception):
            return InferredTask(task, result)
        try:
            for stage, busy_seconds in result.seconds.items():
                emit_stage_time(
                    self.progress, task.key, task.title, stage, busy_seconds, time.perf_counter() - result.began[stage]
                )
            raw = RawRecord(
                info=result.info,
                detections=result.detections,
                origin=DetectionProvenance(
                    class_names=tuple(self._parts.detector.class_names),
                    model=self.model,
                    fingerprint=self._raw_fingerprint(task),
                    lowest_conf=self._parts.finder.lowest_conf,
                    offer=self._parts.given_geometry,
                    digests=self._parts.detection_key_hashes,
                ),
                partial=result.partial,
                cuts=tuple(result.cuts.tolist()),
            )
            write_raw(self.assembly.found_store.detections_path(task), raw)
        except Exception as error:  # handed on: the run judges whether it is the task's own
            return InferredTask(task, error)
        return InferredTask(task, Seen(raw, result.reader), {"fetch": item.seconds, **result.seconds})

    def _report(self, task: Task, found: Seen, filtered: FilteredDetections) -> TaskReport:
        label_map, detections = self._parts.label_map, filtered.detections
        _, first_rows = np.unique(detections.instance, return_index=True)
        category = label_map.category_index[detections.class_id[first_rows]]
        counts = np.bincount(category, minlength=len(label_map.categories))
        return TaskReport(
            title=task.title,
            key=task.key,
            status="done",
            partial=found.raw.partial,
            num_frames=found.raw.info.num_frames,
            num_inferred=len(found.raw.detections.inferred_frames),
            instances={
                category.name: int(num) for category, num in zip(label_map.categories, counts, strict=True) if num
            },
            num_boxes=len(detections),
            num_interpolated=int(detections.interpolated.sum()),
            thinning=filtered.thinning,
            dropped={reason: sum(by_class.values()) for reason, by_class in filtered.dropped.items()},
            reader=f"{found.reader.use} ({found.reader.reason})" if found.reader is not None else "",
            outputs=tuple(str(path) for path in self._outputs(task)),
        )

    def _outputs(self, task: Task) -> list[Path]:
        kept, labels = self.assembly.found_store.detections_path(task), self.assembly.label_path(task)
        return [kept] if labels is None else [kept, labels]

    def _raw_fingerprint(self, task: Task) -> str:
        return f"{self._parts.raw_fingerprint}:{task.identity}"


def _noted(fetched: Iterable[FetchedTask], begun: deque[FetchedTask]) -> Iterator[Video]:
    """Yields the tasks' videos; notes each in `begun` before."""
    for item in fetched:
        begun.append(item)
        yield Video(item.media, item.task.title, item.task.num_frames, item.task.key, item.release)
