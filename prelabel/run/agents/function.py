"""The agent that calls a user's function for each task."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import cast

from prelabel.assembly.assemble import Assembly
from prelabel.config.fingerprints import fingerprint, frame_values, values_affecting
from prelabel.data.frames import VideoInfo
from prelabel.errors import AccountError, AnswerError, ConfigError, PluginError, PrelabelError
from prelabel.files.folder_sink import LABELS_ENDING
from prelabel.labels.row.offline import added_labels
from prelabel.plugins.affects import Affects
from prelabel.plugins.load import Plugin
from prelabel.plugins.protocols import ModelRecord, Task, metadata_of
from prelabel.routing.facts import Facts
from prelabel.run.agents.calls import NEEDS_MEDIA, PLATFORM_ONLY, TRAVELS, Answer, Call, UserFunction, read_signature
from prelabel.run.agents.checks import check_reader, describe_source
from prelabel.run.agents.task_media import EditedRow, FunctionRows, TaskMedia
from prelabel.run.work import FetchedTask, InferredTask, LabelledTask
from prelabel.runtime.files import write_text_atomically
from prelabel.runtime.interrupts import Stopped, StopSignal
from prelabel.runtime.progress import Progress
from prelabel.store.ledger import Step
from prelabel.store.report import RunReport, TaskReport


@dataclass(frozen=True, slots=True)
class CallRecord:
    """The stored result of a call.

    Attributes:
        fingerprint: hash of the function, its options and the media.
        answer: what the function returned.
        changed: whether the function changed the label row.
        added: instances that the function added to the row: names by object or classification hash.
        num_frames: number of frames of the media; 0 if it is not known.
        partial: which frames the function did not get, under `frames: warn`; None if it got all it asked for.
    """

    fingerprint: str
    answer: Answer
    changed: bool = False
    added: Mapping[str, str] = field(default_factory=dict)
    num_frames: int = 0
    partial: str | None = None


def write_call(path: Path, record: CallRecord) -> None:
    """Writes a record to a file, atomically."""
    write_text_atomically(path, json.dumps(asdict(record), indent=1, ensure_ascii=False) + "\n")


def read_call(path: Path) -> CallRecord | None:
    """Returns the record in a file; None if the file is missing or damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return CallRecord(**{**values, "answer": Answer(**values["answer"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


@dataclass(frozen=True, slots=True)
class CalledTask:
    """A task for which the function was called.

    Attributes:
        record: the result of the call.
        info: size, length and frame rate of the media; None if neither the function nor its label row needed them.
        edited: the label row before and after; None if the function did not change it, or an earlier run saved it.
    """

    record: CallRecord
    info: VideoInfo | None = None
    edited: EditedRow | None = None


@dataclass(frozen=True)
class FunctionAgent:
    """Calls a user's function, one task at a time, on one thread.

    Attributes:
        assembly: the components of the run.
        progress: notified of every task and of frames that are read.
        stop: checked before every batch of frames.
    """

    assembly: Assembly
    progress: Progress
    stop: StopSignal
    routing_classes = ()
    shapes = ()
    device = ""
    summary_path = None

    def checks(self) -> Mapping[str, Callable[[], str]]:
        """Returns the checks of `prelabel check`, by name."""
        return {
            "tasks": partial(describe_source, self.assembly),
            "agent": self._check_function,
            "reader": partial(check_reader, self.assembly),
        }

    def prepare(self) -> None:
        """Loads the function."""
        self._check_function()

    @property
    def model(self) -> ModelRecord:
        """The function, recorded in place of a model."""
        return self.assembly.model

    @property
    def warnings(self) -> Sequence[str]:
        """The warnings of the label rows, if the function uses them."""
        return self._rows.warnings if "label_row" in self._function.signature.all_arguments() else ()

    def write_summary(self, path: Path, report: RunReport) -> None:
        """Does nothing: there is no file about all tasks."""

    @property
    def reads_media(self) -> bool:
        """Whether the function needs a task's files. Label rows in files need them too."""
        arguments = self._function.signature.all_arguments()
        return bool(arguments & NEEDS_MEDIA) or ("label_row" in arguments and not self.assembly.on_platform)

    @property
    def stays_because(self) -> str:
        """Which objects of the SDK the function gets; empty if none, so that it does not need the platform."""
        bound = sorted(self._function.signature.all_arguments() - TRAVELS)
        return f"it gets {', '.join(bound)}" if bound else ""

    def fingerprint(self, task: Task) -> str:
        """Returns the hash of the function, its options and the media."""
        return f"{self._fingerprint}:{task.identity}"

    def load_cached(self, task: Task, step: Step | None) -> CalledTask | None:
        """Returns the result of an earlier call if it is still valid; None if the function must be called.

        For a task that was moved on and has come back, the function is called again.
        """
        record = read_call(self.assembly.store.call_path(task))
        if record is None or record.fingerprint != self.fingerprint(task):
            return None
        if step == "done":
            is_current = not self.assembly.on_platform and self.outputs_exist(task)
        else:
            is_current = step == "labelled" or self._is_saved(task, record)
        return CalledTask(record) if is_current else None

    def infer(self, fetched: Iterable[FetchedTask]) -> Iterator[InferredTask[CalledTask]]:
        """Yields the result of the call for each task, without saving its label row."""
        return map(self._infer, fetched)

    def store(self, task: Task, found: CalledTask) -> None:
        """Writes the result of the call to the run's folder."""
        write_call(self.assembly.store.call_path(task), found.record)

    def build_labels(self, task: Task, found: CalledTask) -> LabelledTask[CalledTask]:
        """Returns the task's pathway: the function's, or else the config's. Without either, the task stays."""
        record, answer, router = found.record, found.record.answer, self.assembly.router
        listed: VideoInfo | None = getattr(task, "listed_info", None)
        facts = Facts(task.title, found.info or listed, metadata_of(task))
        if answer.pathway is not None:
            self._check_pathway(task, answer.pathway)
        pathway = answer.pathway if answer.pathway is not None else router.pathway(facts)
        report = TaskReport(
            title=task.title,
            key=task.key,
            status="done",
            num_frames=record.num_frames,
            partial=record.partial,
            instances=dict(Counter(record.added.values())),
            pathway=pathway,
            priority=answer.priority if answer.priority is not None else router.priority_of(facts),
            outputs=tuple(str(path) for path in self._outputs(task, record)),
        )
        return LabelledTask(report, found, stays=pathway is None)

    def save(self, task: Task, labelled: LabelledTask[CalledTask]) -> None:
        """Saves the label row if the function changed it."""
        if labelled.labels.edited is not None:
            self._rows.save(task, labelled.labels.edited, labelled.labels.info)

    def outputs_exist(self, task: Task) -> bool:
        """Returns whether the files of the call still exist. Rows on the platform are not checked."""
        record = read_call(self.assembly.store.call_path(task))
        return record is not None and all(path.exists() for path in self._outputs(task, record))

    @cached_property
    def _function(self) -> UserFunction:
        return load_function(self.assembly)

    @property
    def _rows(self) -> FunctionRows:
        return FunctionRows(self.assembly)

    @cached_property
    def _fingerprint(self) -> str:
        decides = {
            **frame_values(self.assembly.config, self.assembly.folder),
            "agent": values_affecting(self.assembly.function.section, Affects.LABELS),
            "source_sha256": self.assembly.function.plugin.source_sha256,
        }
        return fingerprint(decides)

    def _check_function(self) -> str:
        """Describes the function and its arguments.

        Raises:
            SetupError: the function is missing, rejects its options, or needs something that is missing.
        """
        function = self._function
        arguments = sorted(function.signature.all_arguments())
        if "label_row" in arguments:
            _ = self.assembly.ontology
        return f"{function.use}, called with {', '.join([*arguments, *function.options]) or 'nothing'}"

    def _infer(self, item: FetchedTask) -> InferredTask[CalledTask]:
        # In the process that lists the tasks, a function gets the task itself; in another one, its `Work`.
        task, began = cast(Task, item.task), time.perf_counter()
        try:
            with item.release:
                found = self._call(task, item)
        except Stopped:
            raise
        except Exception as error:  # the run decides whether only this task fails
            return InferredTask.failed(task.key, error)
        return InferredTask(task.key, found, seconds={"fetch": item.seconds, "agent": time.perf_counter() - began})

    def _call(self, task: Task, item: FetchedTask) -> CalledTask:
        self.progress.begin(task.title, 0, task.key)
        media = self._media(task, item)
        call = Call(self._function, task, media, self._rows, lambda: self.assembly.encord)
        answer = call.run()
        changed = call.row.changed() if call.row is not None else None
        edited = added = None
        if call.row is not None and changed is not None:
            edited, added = EditedRow(call.row.sent, call.row.before, changed), added_labels(call.row.before, changed)
        num_frames = task.num_frames or (media.known_info.num_frames if media.known_info is not None else 0)
        record = CallRecord(self.fingerprint(task), answer, edited is not None, added or {}, num_frames, media.partial)
        return CalledTask(record, media.known_info, edited)

    def _media(self, task: Task, item: FetchedTask) -> TaskMedia:
        config = self.assembly.config
        return TaskMedia(
            media=item.media,
            title=task.title,
            key=task.key,
            promised_frames=task.num_frames,
            reader=config.reader,
            folder=self.assembly.folder,
            policy=config.frames,
            progress=self.progress,
            stop=self.stop,
        )

    def _check_pathway(self, task: Task, pathway: str) -> None:
        try:
            self.assembly.source.check_pathway(pathway)
        except AccountError as error:  # fails only this task: the function may return valid pathways for others
            raise AnswerError(f"{task.title}: {self._function.use} returned {pathway!r}: {error}") from error

    def _is_saved(self, task: Task, record: CallRecord) -> bool:
        """Returns whether the row has what the function added, since a run may be killed right after the save."""
        if not record.added or not self.assembly.on_platform or self.assembly.dry_run:
            return False
        try:
            row = self._rows.checkout(task, _no_info)
        except PrelabelError:  # the same error occurs again when the function is called
            return False
        on_row = {*row.before["object_answers"], *row.before["classification_answers"]}
        return set(record.added) <= on_row

    def _outputs(self, task: Task, record: CallRecord) -> list[Path]:
        call_path = self.assembly.store.call_path(task)
        if not record.changed or (self.assembly.on_platform and not self.assembly.dry_run):
            return [call_path]
        return [call_path, self.assembly.store.path(task, LABELS_ENDING)]


def _no_info() -> VideoInfo:
    raise ValueError("got media that are not here, expected a row on the platform")


def load_function(assembly: Assembly) -> UserFunction:
    """Returns the function that the config names, with checked options.

    Raises:
        ConfigError: an option is unknown or missing, or the function needs what only tasks of Encord have.
        PluginError: the function is missing or cannot be called.
    """
    plugin, section = assembly.function.plugin, assembly.function.section
    options = section.options
    target = plugin.factory
    if isinstance(target, type):  # for a class, the options go to its constructor, and its object is called
        target, options = plugin.build(options=options), {}
        if not callable(target):
            raise PluginError(f"agent.use: {plugin.use!r}: objects of this class cannot be called: give it __call__")
    signature = read_signature(target, plugin.use)
    if not assembly.on_platform:
        for argument in sorted(signature.all_arguments() & PLATFORM_ONLY):
            raise ConfigError(f"agent.use: {plugin.use!r} asks for {argument!r}, which only tasks of Encord have")
    checked = Plugin("agent", plugin.use, target).check_options(options, given=signature.given)
    return UserFunction(plugin.use, target, signature, checked)
