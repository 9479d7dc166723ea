"""One unit of work: what a worker gets for a task, and what it returns.

A worker fetches media and runs inference. It needs neither the ledger nor the platform's key: `Work` and `InferredTask`
are plain values that can travel to another process and back. All else is the run's: retries, labels, saves and moves.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, Self, TypeVar

from prelabel.data.frames import Media
from prelabel.errors import AccountError, OntologyError, OutageError, PrelabelError, TakenError, TaskError
from prelabel.plugins.protocols import Task
from prelabel.runtime.redact import redact
from prelabel.store.report import TaskReport

Found = TypeVar("Found")
Labels = TypeVar("Labels")


class TaskFacts(Protocol):
    """What is known of a task without a look at its media."""

    @property
    def key(self) -> str:
        """Unique in its source, the same in every run."""

    @property
    def title(self) -> str:
        """What people call it."""

    @property
    def identity(self) -> str:
        """Changes when the media behind the key do."""

    @property
    def num_frames(self) -> int | None:
        """Frames that the platform promises; None where nothing promises a number."""


@dataclass(frozen=True, slots=True)
class Work:
    """The facts of a task as plain values, for a worker in another process."""

    key: str
    title: str
    identity: str
    num_frames: int | None

    @classmethod
    def of(cls, task: TaskFacts) -> Self:
        """Returns the facts of a task."""
        return cls(task.key, task.title, task.identity, task.num_frames)


@dataclass(frozen=True, slots=True)
class FetchedTask:
    """A task whose media are on this machine until `release` is closed.

    Attributes:
        task: its facts; in the process that lists the tasks, the task itself.
        media: the files.
        release: closed by the agent as soon as it needs the files no longer.
        seconds: how long the fetch took.
    """

    task: TaskFacts
    media: Media
    release: ExitStack
    seconds: float


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a task is not done, as plain values.

    An exception would keep its traceback alive, and with that the frames of a batch.

    Attributes:
        kind: class name of the error.
        reason: in words, without secrets.
        effect: `failed`: only this task; `skipped`: somebody else has moved the task on; `run_ends`: every other task
            would fail too; `outage`: the same, until the platform answers again.
        retryable: whether another attempt may succeed.
    """

    kind: str
    reason: str
    effect: Literal["failed", "skipped", "run_ends", "outage"] = "failed"
    retryable: bool = True

    @classmethod
    def of(cls, error: Exception) -> Self:
        """Returns an error as a record."""
        kind = type(error).__name__
        # A reason of our own is redacted too: it may quote what a user's detector or sink raised.
        reason = redact(str(error) if isinstance(error, PrelabelError) else f"{kind}: {error}")
        if isinstance(error, AccountError | OntologyError):
            return cls(kind, reason, "outage" if isinstance(error, OutageError) else "run_ends", retryable=False)
        effect: Literal["failed", "skipped"] = "skipped" if isinstance(error, TakenError) else "failed"
        return cls(kind, reason, effect, retryable=not isinstance(error, TaskError) or error.retryable)


@dataclass(frozen=True, slots=True)
class InferredTask(Generic[Found]):
    """What a worker returns for a task.

    Attributes:
        key: the task's.
        found: what the model found, plain values; None if there is a failure.
        failure: why nothing was found; None if there is a result.
        seconds: busy time by stage: fetch, decode, detect and so on.
        is_cached: an earlier run has found it, and it is stored already.
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
class LabelledTask(Generic[Labels]):
    """What becomes of a task, decided but not saved; plain values.

    Attributes:
        report: as it is once the labels are saved; its pathway and priority say where the task goes.
        labels: what is saved.
        stays: whether the task stays at its stage by choice.
    """

    report: TaskReport
    labels: Labels
    stays: bool = False


@dataclass(frozen=True, slots=True)
class TaskResult:
    """How one attempt at a task ended.

    Attributes:
        task: which.
        report: for the run's report.
        retryable: it failed, and another attempt may succeed.
    """

    task: Task
    report: TaskReport
    retryable: bool = False
