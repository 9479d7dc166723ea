"""The agent that answers a classification and moves each task along the pathway of its answer."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from prelabel.assembly.assemble import Assembly
from prelabel.assembly.classifier_parts import ClassifierParts
from prelabel.data.frames import VideoInfo
from prelabel.errors import PrelabelError
from prelabel.export.classifications import write_predictions
from prelabel.labels.answers import PlacedAnswer
from prelabel.labels.row.answers import write_answers
from prelabel.plugins.protocols import ModelRecord, Task, TaskFacts, metadata_of
from prelabel.plugins.traits import usage_of, usage_warnings, warnings_of
from prelabel.routing.facts import Facts
from prelabel.run.agents.checks import check_reader, describe_model, describe_sink, describe_source
from prelabel.run.agents.pictures import Classified, EndOfTask, FullBatches, Picture, PictureReader, prepare_image
from prelabel.run.work import FetchedTask, InferredTask, LabelledTask
from prelabel.runtime.interrupts import StopSignal
from prelabel.runtime.prefetch import prefetch
from prelabel.runtime.progress import Progress, emit_stage_time
from prelabel.store.labelled import ClassRecord, read_classes, write_classes
from prelabel.store.ledger import Step
from prelabel.store.report import RunReport, TaskReport
from prelabel.store.run_folder import RunFolder

CLASSES_SHOWN = 3
OPTIONS_SHOWN = 20
MAX_WAITING_PICTURES = 64
MAX_WAITING_BYTES = 512_000_000
"""Images that are decoded ahead of the classifier, at most. The bytes matter if images are large."""


@dataclass(frozen=True, slots=True)
class ClassifiedMedia:
    """The class probabilities of a task.

    Attributes:
        record: the probabilities as they are stored.
        reader: which reader read the media, and why; empty if an earlier run read them.
    """

    record: ClassRecord
    reader: str = ""


@dataclass(frozen=True, slots=True)
class AnswerLabels:
    """The answers that are saved for a task.

    Attributes:
        info: size, length and frame rate of the media, as displayed.
        answers: the answers, each with its first and last frame.
    """

    info: VideoInfo
    answers: tuple[PlacedAnswer, ...]


@dataclass(frozen=True)
class ClassificationAgent:
    """Classifies the images of many tasks in shared batches and answers a classification for each task.

    Attributes:
        assembly: the components of the run.
        progress: notified of every task and image.
        stop: checked before every batch.
    """

    assembly: Assembly
    progress: Progress
    stop: StopSignal
    reads_media = True
    stays_because = ""
    shapes = ()
    device = ""

    @property
    def parts(self) -> ClassifierParts:
        """The classifier and its thresholds, answers and fingerprints."""
        return self.assembly.classification

    def checks(self) -> Mapping[str, Callable[[], str]]:
        """Returns the checks of `prelabel check`, by name."""
        return {
            "tasks": partial(describe_source, self.assembly),
            "weights": self._describe_classifier,
            "reader": partial(check_reader, self.assembly),
            "classes": self._check_answers,
            "labels": partial(describe_sink, self.assembly),
        }

    def prepare(self) -> None:
        """Creates the classifier, the answer map and the sink."""
        self._check_answers()
        _ = self.assembly.sink

    @property
    def routing_classes(self) -> Sequence[str]:
        """The names of the options."""
        return [choice.name for choice in self.parts.answer_map.choices]

    @property
    def model(self) -> ModelRecord:
        """The classifier's model."""
        return self.parts.model

    @property
    def warnings(self) -> Sequence[str]:
        """The warnings of the answer map, the classifier and the sink."""
        # If the config names classes, it omits the others on purpose.
        notes = () if self.assembly.config.labels.classes else self.parts.answer_map.notes
        return [*notes, *warnings_of(self.parts.classifier, self.assembly.rows)]

    @property
    def usage(self) -> Mapping[str, float]:
        """The usage counters of a classifier behind a service; empty for other classifiers."""
        return usage_of(self.parts.classifier)

    def usage_warnings(self, usage: Mapping[str, float]) -> Sequence[str]:
        """Returns the classifier's warnings about its usage in this run."""
        return usage_warnings(self.parts.classifier, usage)

    @property
    def summary_path(self) -> Path:
        """Path of `classifications.csv`."""
        return self.assembly.output / "classifications.csv"

    def write_summary(self, path: Path, report: RunReport) -> None:
        """Writes one row per answer, for all tasks."""
        write_predictions(path, self.assembly, report)

    def fingerprint(self, task: Task) -> str:
        """Returns the hash of the classifier, the label settings and the media."""
        return f"{self.parts.label_fingerprint}:{task.identity}"

    def load_cached(self, task: Task, step: Step | None) -> ClassifiedMedia | None:
        """Returns the probabilities that an earlier run, or else a dry run, stored under the same fingerprint."""
        record = self._read(self.assembly.store, task)
        if record is None and not self.assembly.dry_run:
            record = self._read(self.assembly.store.dry_run, task)
            if record is not None:
                write_classes(self.assembly.store.classes_path(task), record)
        return None if record is None else ClassifiedMedia(record)

    def infer(self, fetched: Iterable[FetchedTask]) -> Iterator[InferredTask[ClassifiedMedia]]:
        """Yields the probabilities of each task. A separate thread reads images ahead."""
        reader = PictureReader(
            reader=self.assembly.config.reader,
            folder=self.assembly.folder,
            frames_per_video=self.parts.section.frames_per_video,
            frames=self.assembly.config.frames,
            prepare=partial(prepare_image, self.parts.classifier),
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
        classified = prefetch(  # so that the classifier does not wait while results are written to disk
            batches.run(pictures),
            max_items=self.parts.batch_size,
            max_bytes=MAX_WAITING_BYTES,
            num_bytes=lambda seen: seen.probabilities.nbytes,
            name="classify",
        )
        with closing(pictures), closing(classified):
            for seen in classified:
                yield self._result(seen)

    def store(self, task: Task, found: ClassifiedMedia) -> None:
        """Writes the probabilities to the run's folder."""
        write_classes(self.assembly.store.classes_path(task), found.record)

    def build_labels(self, task: Task, found: ClassifiedMedia) -> LabelledTask[AnswerLabels]:
        """Returns the answers to save."""
        answers = self._within(task, self.parts.place_answers(found.record))
        report = self._report(task, found, answers, self._facts(task, found.record, answers))
        return LabelledTask(report, AnswerLabels(found.record.info, tuple(answers)))

    def save(self, task: Task, labelled: LabelledTask[AnswerLabels]) -> int:
        """Writes the answers to the task's label row."""
        labels, classification = labelled.labels, self.parts.answer_map.classification
        return self.assembly.rows.edit(
            task, labels.info, lambda row, now: write_answers(row, labels.answers, classification, now=now)
        )

    def outputs_exist(self, task: Task) -> bool:
        """Returns whether the file of the label row exists. For rows on the platform, returns False without a check."""
        path = self.assembly.label_path(task)
        return path is not None and path.exists()

    def _describe_classifier(self) -> str:
        parts = self.parts
        num = parts.section.frames_per_video
        frames = "all frames that reader leaves" if num is None else f"{num} frames"
        described = describe_model(parts.model, len(parts.classifier.class_names), parts.batch_size)
        return f"{described}; of a video it sees {frames}"

    def _check_answers(self) -> str:
        """Describes which option each class is mapped to.

        Raises:
            SetupError: the classification, an option or a class is missing.
        """
        parts = self.parts
        _ = parts.thresholds
        answers = parts.answer_map
        options = []
        for index, choice in enumerate(answers.choices[:OPTIONS_SHOWN]):
            members = [answers.class_names[class_id] for class_id, option in answers.links.tolist() if option == index]
            more = f" and {len(members) - CLASSES_SHOWN} more" if len(members) > CLASSES_SHOWN else ""
            is_same = members == [choice.path]
            options.append(choice.path if is_same else f"{choice.path} from {', '.join(members[:CLASSES_SHOWN])}{more}")
        if len(answers.choices) > OPTIONS_SHOWN:
            options.append(f"and {len(answers.choices) - OPTIONS_SHOWN} options more")
        return "; ".join(
            [f"'{answers.classification.name}' of '{parts.ontology.title}': {options[0]}", *options[1:], *answers.notes]
        )

    def _read(self, store: RunFolder, task: Task) -> ClassRecord | None:
        """Returns the probabilities in a folder; None if there are none for this config and these media."""
        if not store.has_ledger:
            return None
        try:
            path = store.classes_path(task)
            record = read_classes(path) if path.exists() else None
        except PrelabelError:  # a damaged file counts as missing, so it is written again
            return None
        return record if record is not None and record.fingerprint == self._raw_fingerprint(task) else None

    def _result(self, seen: Classified) -> InferredTask[ClassifiedMedia]:
        end, task = seen.end, seen.end.task
        if seen.error is not None or end.info is None:
            return InferredTask.failed(task.key, seen.error or ValueError("no media"))
        record = ClassRecord(end.info, seen.frame_index, seen.probabilities, self._raw_fingerprint(task), end.partial)
        self.progress.frames(len(seen.frame_index))
        seconds = {**end.seconds, "classify": seen.seconds}
        for stage in ("decode", "classify"):
            wall_seconds = time.perf_counter() - end.began
            emit_stage_time(self.progress, task.key, task.title, stage, seconds[stage], wall_seconds)
        return InferredTask(task.key, ClassifiedMedia(record, end.reader), seconds=seconds)

    def _within(self, task: Task, answers: Sequence[PlacedAnswer]) -> list[PlacedAnswer]:
        """Returns the answers cut to the frames that the platform has, since a file labelled in part may have more."""
        if task.num_frames is None:
            return list(answers)
        last = task.num_frames - 1
        return [
            PlacedAnswer(placed.answer, placed.first_frame, min(placed.last_frame, last))
            for placed in answers
            if placed.first_frame <= last
        ]

    def _facts(self, task: Task, record: ClassRecord, answers: Sequence[PlacedAnswer]) -> Facts:
        """Returns the facts for routing rules: one row for each answer's option and each option above it."""
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

    def _report(self, task: Task, found: ClassifiedMedia, answers: Sequence[PlacedAnswer], facts: Facts) -> TaskReport:
        outputs = [self.assembly.store.classes_path(task), self.assembly.label_path(task)]
        return TaskReport(
            title=task.title,
            key=task.key,
            status="done",
            partial=found.record.partial,
            num_frames=found.record.info.num_frames,
            num_inferred=len(found.record.frame_index),
            instances=dict(Counter(placed.answer.name for placed in answers)),
            pathway=self.assembly.router.pathway(facts),
            priority=self.assembly.router.priority_of(facts),
            reader=found.reader,
            outputs=tuple(str(path) for path in outputs if path is not None),
        )

    def _raw_fingerprint(self, task: TaskFacts) -> str:
        return f"{self.parts.raw_fingerprint}:{task.identity}"


def _num_bytes(item: Picture | EndOfTask) -> int:
    return item.num_bytes if isinstance(item, Picture) else 0
