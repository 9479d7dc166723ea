"""The agent that calls a user's function for each task, and does the rest for it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

from prelabel.assembly.assemble import Assembly
from prelabel.config.fingerprints import fingerprint, frame_values, values_affecting
from prelabel.errors import AccountError, AnswerError, ConfigError, PluginError, PrelabelError
from prelabel.files.folder_sink import LABELS_ENDING
from prelabel.labels.row.editable import EditableRow, added_labels, count_names
from prelabel.labels.row.own import LabelRow
from prelabel.plugins.affects import Affects
from prelabel.plugins.load import Plugin
from prelabel.plugins.protocols import ListedTask, ModelRecord, Task, metadata_of
from prelabel.routing.facts import Facts
from prelabel.run.agents.agent import Decision, FetchedTask, InferredTask
from prelabel.run.agents.calls import Answer, Call, UserFunction
from prelabel.run.agents.parameters import NEEDS_MEDIA, PLATFORM_ONLY, read_signature
from prelabel.run.agents.rows import Rows, make_rows, no_info
from prelabel.run.agents.task_media import TaskMedia
from prelabel.runtime.files import write_text_atomically
from prelabel.runtime.interrupts import Stopped, StopSignal
from prelabel.runtime.progress import Progress
from prelabel.store.ledger import Step
from prelabel.store.report import TaskReport


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a call.

    Attributes:
        fingerprint: of function, options and media.
        answer: what the function said.
        changed: whether it changed the label row.
        added: instances that it put there: names by object or classification hash.
        num_frames: that the media have, 0 where nobody asked.
    """

    fingerprint: str
    answer: Answer
    changed: bool = False
    added: Mapping[str, str] = field(default_factory=dict)
    num_frames: int = 0


def write_outcome(path: Path, outcome: Outcome) -> None:
    """Writes an outcome, whole or not at all."""
    write_text_atomically(path, json.dumps(asdict(outcome), indent=1, ensure_ascii=False) + "\n")


def read_outcome(path: Path) -> Outcome | None:
    """Returns the outcome of a file; None if there is none, or it is damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Outcome(**{**values, "answer": Answer(**values["answer"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


@dataclass(frozen=True, slots=True)
class Called:
    """A task for which the function was called.

    Attributes:
        outcome: what came of it.
        media: the task's.
        row: that it was handed; None if it asked for none, or an earlier run has saved it.
        changed: the row as it is to be saved; None if there is nothing to save.
    """

    outcome: Outcome
    media: TaskMedia | None = None
    row: EditableRow | None = None
    changed: LabelRow | None = None


@dataclass(frozen=True)
class FunctionAgent:
    """Calls a user's function, one task at a time, on one thread.

    Attributes:
        assembly: the parts.
        progress: told of every task and of frames that are read.
        stop: asked before every batch of frames.
    """

    assembly: Assembly
    progress: Progress
    stop: StopSignal

    @property
    def model(self) -> ModelRecord:
        """The function stands in for one."""
        return self.assembly.model

    @property
    def warnings(self) -> Sequence[str]:
        """Of the label rows."""
        return self._rows.warnings if "label_row" in self._function.signature.all_asks() else ()

    @property
    def reads_media(self) -> bool:
        """Whether the function asks for a task's files; label rows of files on this machine need them, too."""
        asks = self._function.signature.all_asks()
        return bool(asks & NEEDS_MEDIA) or ("label_row" in asks and not self._on_platform)

    def fingerprint(self, task: Task) -> str:
        """Returns a hash of function, options and media."""
        return f"{self._fingerprint}:{task.identity}"

    def recall(self, task: Task, step: Step | None) -> Called | None:
        """Returns what the function said, where what it said is not carried out yet, or need not be again.

        A task that was moved on and has come back is a new one: the function is called again.
        """
        outcome = read_outcome(self.assembly.store.call_path(task))
        if outcome is None or outcome.fingerprint != self.fingerprint(task):
            return None
        if step == "done":
            return Called(outcome) if not self._on_platform and self.holds(task) else None
        return Called(outcome) if step == "labelled" or self._is_saved(task, outcome) else None

    def look(self, fetched: Iterable[FetchedTask]) -> Iterator[InferredTask[Called]]:
        """Yields what the function says of each task; its label row is not saved yet."""
        return map(self._call, fetched)

    def decide(self, task: Task, found: Called) -> Decision:
        """Returns where the task goes: where the function says, else where the config says, else nowhere."""
        outcome, answer, router = found.outcome, found.outcome.answer, self.assembly.router
        seen = None if found.media is None else found.media.known_info
        listed = task.listed_info if isinstance(task, ListedTask) else None
        facts = Facts(task.title, seen if seen is not None else listed, metadata_of(task))
        if answer.pathway is not None:
            self._check_pathway(task, answer.pathway)
        pathway = answer.pathway if answer.pathway is not None else router.pathway(facts)
        priority = answer.priority if answer.priority is not None else router.priority_of(facts)
        report = TaskReport(
            title=task.title,
            key=task.key,
            status="done",
            num_frames=outcome.num_frames,
            instances=count_names(outcome.added),
            outputs=tuple(str(path) for path in self._outputs(task, outcome)),
        )
        return Decision(report, pathway, lambda: self._save(task, found), priority, stays=pathway is None)

    def holds(self, task: Task) -> bool:
        """Tells whether the label row that the function has changed is still there; on the platform nobody knows."""
        outcome = read_outcome(self.assembly.store.call_path(task))
        return outcome is not None and all(path.exists() for path in self._outputs(task, outcome))

    # The parts

    @property
    def _on_platform(self) -> bool:
        return self.assembly.on_platform

    @cached_property
    def _function(self) -> UserFunction:
        return load_function(self.assembly)

    @cached_property
    def _rows(self) -> Rows:
        return make_rows(self.assembly)

    @cached_property
    def _fingerprint(self) -> str:
        section = self.assembly.config.agent
        decides = {
            **frame_values(self.assembly.config, self.assembly.folder),
            "agent": None if section is None else values_affecting(section, Affects.LABELS),
            "source_sha256": self.assembly.agent_plugin.source_sha256,
        }
        return fingerprint(decides)

    # The call

    def _call(self, item: FetchedTask) -> InferredTask[Called]:
        task, began = item.task, time.perf_counter()
        try:
            with item.release:
                found = self._called(task, self._media(item))
            write_outcome(self.assembly.store.call_path(task), found.outcome)
        except Stopped:
            raise
        except Exception as error:  # handed on: the run judges whether it is the task's own
            return InferredTask(task, error)
        return InferredTask(task, found, {"fetch": item.seconds, "agent": time.perf_counter() - began})

    def _called(self, task: Task, media: TaskMedia) -> Called:
        self.progress.begin(task.title, 0, task.key)
        call = Call(self._function, task, media, lambda: self._rows, lambda: self.assembly.encord)
        answer = call.run()
        row = call.row
        changed = row.changed() if row is not None else None
        added = added_labels(row.before, changed) if row is not None and changed is not None else {}
        num_frames = task.num_frames or (media.known_info.num_frames if media.known_info is not None else 0)
        outcome = Outcome(self.fingerprint(task), answer, changed is not None, added, num_frames)
        return Called(outcome, media, row, changed)

    def _media(self, item: FetchedTask) -> TaskMedia:
        config, task = self.assembly.config, item.task
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

    # What comes of it

    def _check_pathway(self, task: Task, pathway: str) -> None:
        source = self.assembly.source
        try:
            source.check_pathway(pathway)
        except AccountError as error:  # this task's own: the function may say better of others
            raise AnswerError(f"{task.title}: {self._function.use} returned {pathway!r}: {error}") from error

    def _save(self, task: Task, found: Called) -> None:
        if found.row is None or found.changed is None or found.media is None:
            return
        media = found.media
        self._rows.save(task, found.row, found.changed, lambda: media.info)

    def _is_saved(self, task: Task, outcome: Outcome) -> bool:
        """Tells whether what the function added is on the row: a run was cut off between the save and its note."""
        if not outcome.added or not self._on_platform or self.assembly.dry_run:
            return False
        try:
            row = self._rows.checkout(task, no_info)
        except PrelabelError:  # found out again, and told, when the function is called
            return False
        on_row = {*row.before["object_answers"], *row.before["classification_answers"]}
        return set(outcome.added) <= on_row

    def _outputs(self, task: Task, outcome: Outcome) -> list[Path]:
        kept = self.assembly.store.call_path(task)
        if not outcome.changed or (self._on_platform and not self.assembly.dry_run):
            return [kept]
        return [kept, self.assembly.store.path(task, LABELS_ENDING)]


def load_function(assembly: Assembly) -> UserFunction:
    """Returns the function that the config names, its options checked.

    Raises:
        ConfigError: an option is unknown or missing, or it asks for what only tasks of Encord have.
        PluginError: it is not there, or is none.
    """
    plugin, section = assembly.agent_plugin, assembly.config.agent
    options = {} if section is None else section.options
    target = plugin.factory
    if isinstance(target, type):  # its objects are called; the options are its own
        target, options = plugin.build(options=options), {}
        if not callable(target):
            raise PluginError(f"agent.use: {plugin.use!r}: objects of this class cannot be called: give it __call__")
    signature = read_signature(target, plugin.use)
    if not assembly.on_platform:
        for ask in sorted(signature.all_asks() & PLATFORM_ONLY):
            raise ConfigError(f"agent.use: {plugin.use!r} asks for {ask!r}, which only tasks of Encord have")
    checked = Plugin("agent", plugin.use, target).check_options(options, given=signature.given)
    return UserFunction(plugin.use, target, signature, checked)
