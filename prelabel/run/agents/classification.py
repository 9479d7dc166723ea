"""The agent that answers a classification, and sends each task down the pathway of its answer."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np

from prelabel.assembly.assemble import Assembly
from prelabel.assembly.classifier_parts import ClassifierParts
from prelabel.errors import PrelabelError
from prelabel.labels.answers import PlacedAnswer
from prelabel.labels.row.answers import write_answers
from prelabel.plugins.protocols import ModelRecord, Task, metadata_of
from prelabel.plugins.traits import usage_of, usage_warnings, warnings_of
from prelabel.routing.facts import Facts
from prelabel.run.agents.agent import Decision, FetchedTask, InferredTask
from prelabel.run.agents.pictures import Classified, EndOfTask, FullBatches, Picture, PictureReader
from prelabel.runtime.interrupts import StopSignal
from prelabel.runtime.prefetch import prefetch
from prelabel.runtime.progress import Progress, emit_stage_time
from prelabel.store.class_probabilities import ClassRecord, read_classes, write_classes
from prelabel.store.ledger import Step
from prelabel.store.report import TaskReport

MAX_WAITING_PICTURES = 64
MAX_WAITING_BYTES = 512_000_000


@dataclass(frozen=True, slots=True)
class Seen:
    """Probabilities of a task's pictures.

    Attributes:
        record: as it is kept.
        reader: which reader read the media, and why; empty if that was an earlier run.
    """

    record: ClassRecord
    reader: str = ""


@dataclass(frozen=True)
class ClassificationAgent:
    """Runs the classifier over the pictures of many tasks at once, and answers a classification of each task.

    Attributes:
        assembly: the parts.
        progress: told of every task and picture.
        stop: asked before every batch.
    """

    assembly: Assembly
    progress: Progress
    stop: StopSignal

    @property
    def parts(self) -> ClassifierParts:
        """Those that only a classifier has."""
        return self.assembly.classification

    @property
    def model(self) -> ModelRecord:
        """The classifier's."""
        return self.parts.model

    @property
    def warnings(self) -> Sequence[str]:
        """Of the class map, of the classifier and of the sink."""
        # Where the config names classes, it leaves out the others by choice.
        notes = () if self.assembly.config.labels.classes else self.parts.answer_map.notes
        return [*notes, *warnings_of(self.parts.classifier, self.assembly.rows)]

    @property
    def usage(self) -> Mapping[str, float]:
        """What a classifier behind a service has counted; empty of others."""
        return usage_of(self.parts.classifier)

    def usage_warnings(self, usage: Mapping[str, float]) -> Sequence[str]:
        """Returns what the classifier has to say of what it counted in this run."""
        return usage_warnings(self.parts.classifier, usage)

    @property
    def reads_media(self) -> bool:
        """It looks at every task's frames."""
        return True

    def fingerprint(self, task: Task) -> str:
        """Returns a hash of classifier, labels and media."""
        return f"{self.parts.label_fingerprint}:{task.identity}"

    def recall(self, task: Task, step: Step | None) -> Seen | None:
        """Returns the probabilities that an earlier run kept, if another look would find the same."""
        path = self.assembly.store.classes_path(task)
        try:
            record = read_classes(path) if path.exists() else None
        except PrelabelError:  # damaged: made again
            return None
        return Seen(record) if record is not None and record.fingerprint == self._raw_fingerprint(task) else None

    def look(self, fetched: Iterable[FetchedTask]) -> Iterator[InferredTask[Seen]]:
        """Yields the probabilities of each task, kept on disk; pictures are read on a thread of their own beside it."""
        reader = PictureReader(
            reader=self.assembly.config.reader,
            folder=self.assembly.folder,
            frames_per_video=self.parts.section.frames_per_video,
            frames=self.assembly.config.frames,
            stop=self.stop,
            begun=self.progress.begin,
        )
        pictures = prefetch(
            reader.read(fetched),
            max_items=MAX_WAITING_PICTURES,
            max_bytes=MAX_WAITING_BYTES,
            num_bytes=_num_bytes,
            name="decode",
            tell_waiting=partial(self.progress.waiting, "decode"),
        )
        batches = FullBatches(self.parts.classifier, self.parts.batch_size)
        classified = prefetch(  # so that the classifier does not wait for the disk
            batches.run(pictures),
            max_items=self.parts.batch_size,
            max_bytes=MAX_WAITING_BYTES,
            num_bytes=lambda seen: seen.probabilities.nbytes,
            name="classify",
        )
        with closing(pictures), closing(classified):
            for seen in classified:
                yield self._keep(seen)

    def decide(self, task: Task, found: Seen) -> Decision:
        """Returns what is answered, and where the task goes."""
        answers = self._within(task, self.parts.place_answers(found.record))
        facts = self._facts(task, found.record, answers)
        router = self.assembly.router

        def write() -> int:
            classification = self.parts.answer_map.classification
            return self.assembly.rows.edit(
                task, found.record.info, lambda row, now: write_answers(row, answers, classification, now=now)
            )

        report = self._report(task, found, answers)
        return Decision(report, router.pathway(facts), write, router.priority_of(facts))

    def holds(self, task: Task) -> bool:
        """Tells whether the label row's file is there; of rows on the platform nobody knows without a look."""
        path = self.assembly.label_path(task)
        return path is not None and path.exists()

    def _keep(self, seen: Classified) -> InferredTask[Seen]:
        end = seen.end
        if seen.error is not None or end.info is None:
            return InferredTask(end.task, seen.error or ValueError("no media"))
        record = ClassRecord(
            end.info, seen.frame_index, seen.probabilities, self._raw_fingerprint(end.task), end.partial
        )
        try:
            write_classes(self.assembly.store.classes_path(end.task), record)
        except Exception as error:  # handed on: the run judges whether it is the task's own
            return InferredTask(end.task, error)
        self.progress.frames(len(seen.frame_index))
        seconds = {**end.seconds, "classify": seen.seconds}
        for stage in ("decode", "classify"):
            emit_stage_time(
                self.progress, end.task.key, end.task.title, stage, seconds[stage], time.perf_counter() - end.began
            )
        return InferredTask(end.task, Seen(record, end.reader), seconds)

    def _within(self, task: Task, answers: Sequence[PlacedAnswer]) -> list[PlacedAnswer]:
        """Returns the answers on frames that the platform has: a file that is labelled in part may have more."""
        if task.num_frames is None:
            return list(answers)
        last = task.num_frames - 1
        return [
            PlacedAnswer(placed.answer, placed.first_frame, min(placed.last_frame, last))
            for placed in answers
            if placed.first_frame <= last
        ]

    def _facts(self, task: Task, record: ClassRecord, answers: Sequence[PlacedAnswer]) -> Facts:
        """Returns what rules may ask: a row for each answer's choice, and for each option above it."""
        answers_to = self.parts.answer_map
        rows = [(n, place, placed) for n, placed in enumerate(answers) for place in answers_to.places_of(placed.answer)]
        return Facts(
            title=task.title,
            info=record.info,
            metadata=metadata_of(task),
            class_names=tuple(choice.name for choice in answers_to.choices),
            class_index=np.array([place for _, place, _ in rows], np.int64),
            frame_index=np.array([placed.first_frame for _, _, placed in rows], np.int64),
            instance=np.array([n for n, _, _ in rows], np.int64),
            confidence=np.array([placed.answer.confidence for _, _, placed in rows], np.float32),
            num_frames_seen=len(record.frame_index),
        )

    def _report(self, task: Task, found: Seen, answers: Sequence[PlacedAnswer]) -> TaskReport:
        kept, labels = self.assembly.store.classes_path(task), self.assembly.label_path(task)
        outputs = [kept] if labels is None else [kept, labels]
        return TaskReport(
            title=task.title,
            key=task.key,
            status="done",
            partial=found.record.partial,
            num_frames=found.record.info.num_frames,
            num_inferred=len(found.record.frame_index),
            instances=dict(Counter(placed.answer.name for placed in answers)),
            reader=found.reader,
            outputs=tuple(str(path) for path in outputs),
        )

    def _raw_fingerprint(self, task: Task) -> str:
        return f"{self.parts.raw_fingerprint}:{task.identity}"


def _num_bytes(item: Picture | EndOfTask) -> int:
    return item.num_bytes if isinstance(item, Picture) else 0
