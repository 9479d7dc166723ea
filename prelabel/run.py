"""The run: tasks to videos to labels, stage beside stage, one task's failure its own."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

import prelabel
from prelabel.assemble import Assembly
from prelabel.errors import AccountError, PrelabelError
from prelabel.frames import Media
from prelabel.interrupts import Stopped, StopSignal
from prelabel.kept import kept_record, raw_path, shape_raw
from prelabel.ledger import Entry, Ledger, Step
from prelabel.pipeline import Pipeline, ReaderChoice
from prelabel.prefetch import prefetch
from prelabel.progress import Progress
from prelabel.protocols import Task
from prelabel.raw_store import RawRecord, write_raw
from prelabel.redact import redact
from prelabel.report import RunReport, Status, TaskReport
from prelabel.shaping import Shaped


@dataclass(frozen=True, slots=True)
class Fetched:
    """A task whose media are here until `release` is closed."""

    task: Task
    media: Media
    release: ExitStack
    seconds: float


@dataclass(frozen=True, slots=True)
class Inferred:
    """A task whose raw detections are kept."""

    task: Task
    raw: RawRecord
    reader: ReaderChoice | None = None
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """One pass over the tasks that wait.

    Attributes:
        assembly: the parts.
        ledger: what is done; None in a dry run.
        progress: told of all that happens.
        stop: asked between tasks and between batches.
    """

    assembly: Assembly
    ledger: Ledger | None
    progress: Progress
    stop: StopSignal

    def __call__(self, limit: int | None = None) -> RunReport:
        """Works on the tasks that wait and returns how it went; at most on `limit`, those done already not counted."""
        started_at, began = datetime.now(UTC), time.perf_counter()
        self.progress.event(
            "run_started",
            output=str(self.assembly.output),
            model=self.assembly.model.name,
            tasks=self._num_tasks(limit),
        )
        reports: list[TaskReport] = []
        fetched = prefetch(self._fetch(limit), max_items=1, name="fetch")
        inferred = prefetch(self._infer(fetched), max_items=1, name="detect")
        stopped, aborted = False, ""
        source = self.assembly.source
        try:
            for item in inferred:
                report = item if isinstance(item, TaskReport) else self._finish(item)
                reports.append(report)
                self._tell(report)
        except Stopped:
            stopped = True
        except AccountError as error:  # no other task could succeed
            aborted = str(error)
        finally:
            give_up = getattr(source, "close", None)
            if give_up is not None:  # the thread "fetch" may wait for room on disk, which nobody will give back now
                give_up()
            inferred.close()
        return RunReport(
            prelabel=prelabel.__version__,
            started_at=started_at.isoformat(timespec="seconds"),
            config_sha256=self.assembly.config.digest(),
            model=asdict(self.assembly.model),
            dry_run=self.assembly.dry_run,
            seconds=round(time.perf_counter() - began, 3),
            tasks=tuple(reports),
            left_alone=tuple(getattr(source, "left_alone", ())),
            warnings=(
                *self.assembly.label_map.notes,
                *(text for part in (source, self.assembly.sink) for text in getattr(part, "warnings", ())),
            ),
            instances_are=self.assembly.config.labels.instances,
            stopped=stopped or self.stop.is_set,
            aborted=aborted,
        )

    def _num_tasks(self, limit: int | None) -> int | None:
        """Returns how many tasks there will be, None where nobody can say beforehand."""
        count = getattr(self.assembly.source, "count", None)
        if count is None or limit is not None:
            return None
        num: int = count()
        return num

    # Stage 1, on the thread "fetch": what has to be brought here is brought here, one task ahead.

    def _fetch(self, limit: int | None) -> Iterator[Fetched | Inferred | TaskReport]:
        opened: list[ExitStack] = []
        num_begun = 0
        try:
            for task in self.assembly.source.tasks():
                if self.stop.is_set:
                    return
                known = self._known(task)
                yield known if known is not None else self._open(task, opened)
                num_begun += not isinstance(known, TaskReport)
                if num_begun == limit:
                    return
        except BaseException:  # not at the end of the tasks: those fetched last still wait for their turn then
            for release in opened:
                release.close()
            raise

    def _open(self, task: Task, opened: list[ExitStack]) -> Fetched | TaskReport:
        began = time.perf_counter()
        release = ExitStack()
        opened.append(release)
        try:
            media = release.enter_context(task.open())
        except Exception as error:
            return self._failed(task, error)
        return Fetched(task, media, release, time.perf_counter() - began)

    def _known(self, task: Task) -> Inferred | TaskReport | None:
        """Returns what an earlier run has left of this task under the same fingerprint, None if nothing."""
        raw = self._kept_raw(task)
        if raw is None:
            return None
        entry = self.ledger.entry(task.key) if self.ledger is not None else None
        holds = getattr(self.assembly.sink, "holds", None)
        if entry is None or entry.step != "done" or entry.fingerprint != self._label_fingerprint(task):
            return Inferred(task, raw)
        if holds is None or not holds(task):  # the task came back, or its outputs are gone
            return Inferred(task, raw)
        return self._report(Inferred(task, raw), shape_raw(self.assembly, raw), "already done")

    def _kept_raw(self, task: Task) -> RawRecord | None:
        try:
            raw = kept_record(self.assembly, task)
        except PrelabelError:  # damaged: made again
            return None
        return raw if raw is not None and raw.fingerprint == self._raw_fingerprint(task) else None

    # Stage 2, on the thread "detect": decoding runs on a thread of its own beside it.

    def _infer(self, items: Generator[Fetched | Inferred | TaskReport, None, None]) -> Iterator[Inferred | TaskReport]:
        pipeline = Pipeline(
            reader=self.assembly.config.reader,
            folder=self.assembly.folder,
            detector=self.assembly.detector,
            batch_size=self.assembly.batch_size,
            frames=self.assembly.config.frames,
            progress=self.progress,
            stop=self.stop,
        )
        with closing(items):  # an error's traceback would hold the thread "fetch" alive
            for item in items:
                yield self._infer_one(pipeline, item) if isinstance(item, Fetched) else item

    def _infer_one(self, pipeline: Pipeline, item: Fetched) -> Inferred | TaskReport:
        task = item.task
        try:
            with item.release:
                result = pipeline.infer(item.media, task.title, task.num_frames)
            raw = RawRecord(
                info=result.info,
                detections=result.detections,
                class_names=tuple(self.assembly.detector.class_names),
                model=self.assembly.model,
                fingerprint=self._raw_fingerprint(task),
                partial=result.partial,
                cuts=tuple(result.cuts.tolist()),
            )
            write_raw(raw_path(self.assembly, task.key, task.title), raw)
            self._record(task, "inferred")
        except Stopped:
            raise
        except Exception as error:
            return self._failed(task, error)
        return Inferred(task, raw, result.reader, {"fetch": item.seconds, **result.seconds})

    # Stage 3, on the caller's thread: labels, then the move.

    def _finish(self, item: Inferred) -> TaskReport:
        began = time.perf_counter()
        task, config = item.task, self.assembly.config
        try:
            shaped = shape_raw(self.assembly, item.raw)
            if not self._is_labelled(task):
                self.assembly.sink.write(task, item.raw.info, shaped.detections)
                self._record(task, "labelled", len(np.unique(shaped.detections.instance)))
            if not self.assembly.dry_run:
                self.assembly.source.proceed(task, config.pathway)
        except Exception as error:
            return self._failed(task, error)
        report = self._report(item, shaped, "done", save_seconds=time.perf_counter() - began)
        self._record(task, "done", sum(report.instances.values()), report.partial or "")
        return report

    def _is_labelled(self, task: Task) -> bool:
        """Tells whether an earlier run saved these very labels but was cut off before the task moved."""
        entry = self.ledger.entry(task.key) if self.ledger is not None else None
        return entry is not None and entry.step == "labelled" and entry.fingerprint == self._label_fingerprint(task)

    # What is told and kept.

    def _report(self, item: Inferred, shaped: Shaped, status: Status, save_seconds: float | None = None) -> TaskReport:
        label_map, detections = self.assembly.label_map, shaped.detections
        _, first_rows = np.unique(detections.instance, return_index=True)
        category = label_map.category_index[detections.class_id[first_rows]]
        counts = np.bincount(category, minlength=len(label_map.categories))
        seconds = dict(item.seconds)
        if save_seconds is not None:
            seconds["save"] = save_seconds
        return TaskReport(
            title=item.task.title,
            key=item.task.key,
            status=status,
            partial=item.raw.partial,
            num_frames=item.raw.info.num_frames,
            num_inferred=len(item.raw.detections.inferred_frames),
            instances={
                category.name: int(num) for category, num in zip(label_map.categories, counts, strict=True) if num
            },
            num_boxes=len(detections),
            num_interpolated=int(detections.interpolated.sum()),
            dropped={reason: sum(by_class.values()) for reason, by_class in shaped.dropped.counts.items()},
            pathway=self.assembly.pathway,
            reader=f"{item.reader.use} ({item.reader.reason})" if item.reader is not None else "",
            seconds={stage: round(value, 3) for stage, value in seconds.items()},
            outputs=tuple(str(path) for path in self._outputs(item.task)),
        )

    def _outputs(self, task: Task) -> list[Path]:
        path_of = getattr(self.assembly.sink, "path_of", None)  # of a sink that writes a file a task
        return [raw_path(self.assembly, task.key, task.title), *([path_of(task)] if path_of is not None else [])]

    def _failed(self, task: Task, error: Exception) -> TaskReport:
        """Notes a failure that is the task's own; raises what would fail every other task as well."""
        if isinstance(error, AccountError):
            raise error
        reason = str(error) if isinstance(error, PrelabelError) else redact(f"{type(error).__name__}: {error}")
        self._record(task, "failed", reason=reason)
        if not self.assembly.dry_run:
            self.assembly.source.fail(task, reason)
        return TaskReport(title=task.title, key=task.key, status="failed", reason=reason)

    def _record(self, task: Task, step: Step, num_instances: int = 0, reason: str = "") -> None:
        if self.ledger is not None:
            fingerprint = self._label_fingerprint(task)
            self.ledger.record(Entry(task.key, task.title, step, fingerprint, num_instances, reason))

    def _tell(self, report: TaskReport) -> None:
        if report.status == "failed":
            self.progress.event("task_failed", task=report.title, reason=report.reason)
            return
        self.progress.event(
            "task_done" if report.status == "done" else "task_skipped",
            task=report.title,
            frames=report.num_inferred,
            instances=dict(report.instances),
            pathway=report.pathway,
            dry_run=self.assembly.dry_run,
        )
        if report.partial:
            self.progress.event(
                "warning", task=report.title, message=f"{report.title}: labelled in part: {report.partial}"
            )

    def _raw_fingerprint(self, task: Task) -> str:
        return f"{self.assembly.raw_fingerprint}:{task.identity}"

    def _label_fingerprint(self, task: Task) -> str:
        return f"{self.assembly.label_fingerprint}:{task.identity}"
