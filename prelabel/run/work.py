"""The input and the result of a worker for one task.

A worker fetches media and runs inference. It needs neither the ledger nor the platform's key. `Work` and `InferredTask`
are plain values, so they can be sent to another process and back. The run does the rest: retries, labels, saves and
moves.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Generic, Literal, Self, TypeVar
from uuid import UUID

from prelabel.data.frames import Media, MediaLocation
from prelabel.errors import AccountError, OntologyError, OutageError, PrelabelError, TakenError, TaskError
from prelabel.plugins.protocols import Task, TaskFacts
from prelabel.runtime.redact import redact
from prelabel.store.report import TaskReport

Found = TypeVar("Found")
Labels = TypeVar("Labels")


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker in another process gets for a task, as plain values.

    Attributes:
        key: of the task, like the next three attributes.
        title: see `TaskFacts`.
        identity: see `TaskFacts`.
        num_frames: see `TaskFacts`.
        location: of its media.
        expected_row: the task's label row as JSON, as the run expects it; empty if the labels go elsewhere.
        raw_file: content of the file of raw detections, if an earlier run has stored them; a worker then only labels.
        metadata: what users have set for the task, such as Encord's client metadata.
        data_hash: on Encord, like the next three attributes; a function of the user's own may read them.
        branch: of the label row.
        kind: of the data unit, such as `video`.
        uuid: of the task in the workflow.
    """

    key: str
    title: str
    identity: str
    num_frames: int | None
    location: MediaLocation
    expected_row: bytes = field(default=b"", repr=False)
    raw_file: bytes = field(default=b"", repr=False)
    metadata: Mapping[str, object] = field(default_factory=dict, repr=False)
    data_hash: str = ""
    branch: str = ""
    kind: str = ""
    uuid: UUID | None = None

    @classmethod
    def of(cls, task: Task, location: MediaLocation, expected_row: bytes = b"", raw_file: bytes = b"") -> Self:
        """Returns what a worker gets for a task whose media are at a location."""
        names = ("metadata", "data_hash", "branch", "kind", "uuid")
        known = {name: getattr(task, name) for name in names if hasattr(task, name)}
        return cls(task.key, task.title, task.identity, task.num_frames, location, expected_row, raw_file, **known)


@dataclass(frozen=True, slots=True)
class FetchedTask:
    """A task whose media are on this machine until `release` is closed.

    Attributes:
        task: its facts; in the process that lists the tasks, the task itself.
        media: the files.
        release: the agent closes it as soon as it no longer needs the files.
        seconds: how long the fetch took.
    """

    task: TaskFacts
    media: Media
    release: ExitStack
    seconds: float


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a task is not done, as plain values.

    An exception would keep its traceback alive, and with it the frames of a batch.

    Attributes:
        kind: class name of the error.
        reason: the error in words, without secrets.
        effect: `failed`: only this task fails; `skipped`: somebody else has moved the task on; `run_ends`: every other
            task would fail too; `outage`: every task would fail until the platform answers again.
        retryable: whether another attempt may succeed.
    """

    kind: str
    reason: str
    effect: Literal["failed", "skipped", "run_ends", "outage"] = "failed"
    retryable: bool = True

    @classmethod
    def of(cls, error: Exception) -> Self:
        """Returns an error as plain values."""
        kind = type(error).__name__
        # Messages of prelabel are redacted too, since they may quote errors of a user's detector or sink.
        reason = redact(str(error) if isinstance(error, PrelabelError) else f"{kind}: {error}")
        if isinstance(error, AccountError | OntologyError):
            return cls(kind, reason, "outage" if isinstance(error, OutageError) else "run_ends", retryable=False)
        effect: Literal["failed", "skipped"] = "skipped" if isinstance(error, TakenError) else "failed"
        return cls(kind, reason, effect, retryable=not isinstance(error, TaskError) or error.retryable)


@dataclass(frozen=True, slots=True)
class InferredTask(Generic[Found]):
    """What a worker returns for a task.

    Attributes:
        key: the task's key.
        found: the inference result as plain values; None if there is a failure.
        failure: why there is no result; None if there is one.
        seconds: busy time by step: fetch, decode, detect and so on.
        is_cached: whether the result comes from an earlier run and is stored already.
    """

    key: str
    found: Found | None = None
    failure: Failure | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    is_cached: bool = False

    @classmethod
    def failed(cls, key: str, error: Exception) -> Self:
        """Returns the result of a task whose inference raised an error."""
        return cls(key, failure=Failure.of(error))


@dataclass(frozen=True, slots=True)
class CachedTask(Generic[Found]):
    """A task with the result of an earlier run.

    Attributes:
        task: the task.
        found: the inference result.
    """

    task: Task
    found: Found

    @property
    def key(self) -> str:
        """The task's key."""
        return self.task.key

    @property
    def result(self) -> InferredTask[Found]:
        """The result as a worker would return it."""
        return InferredTask(self.key, self.found, is_cached=True)


@dataclass(frozen=True, slots=True)
class LabelledTask(Generic[Labels]):
    """The labels and the pathway of a task, not saved yet, as plain values.

    Attributes:
        report: the task's report, valid after the labels are saved; it holds the pathway and the priority.
        labels: the labels to save.
        stays: whether the task stays at its stage by choice.
    """

    report: TaskReport
    labels: Labels
    stays: bool = False


@dataclass(frozen=True, slots=True)
class TaskResult:
    """The result of one attempt at a task.

    Attributes:
        task: the task.
        report: the task's report.
        retryable: whether the attempt failed and another one may succeed.
    """

    task: Task
    report: TaskReport
    retryable: bool = False
