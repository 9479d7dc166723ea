"""What is done with each task at an agent stage: looked at, decided on, written. The run does the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from prelabel.data.frames import Media
from prelabel.plugins.protocols import ModelRecord, Task
from prelabel.store.ledger import Step
from prelabel.store.report import TaskReport

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class FetchedTask:
    """A task whose media are here until `release` is closed.

    Attributes:
        task: whose.
        media: files on this machine.
        release: to be closed by whoever has looked at them.
        seconds: that it took to bring them here.
    """

    task: Task
    media: Media
    release: ExitStack
    seconds: float


@dataclass(frozen=True, slots=True)
class InferredTask(Generic[Found]):
    """A task that was looked at.

    Attributes:
        task: which.
        found: what was found, on disk by now; or why nothing could be.
        seconds: busy time by stage.
    """

    task: Task
    found: Found | Exception
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to become of a task.

    Attributes:
        report: as it will stand once all is done.
        pathway: where the task goes; None where tasks have nowhere to go.
        write: saves the labels: all or nothing, and the same when repeated; returns the bytes of the label row, None
            where nothing says.
        priority: of the task at its next stage, 0 to 1; None: stays as it is.
        stays: the task is left where it is, by choice.
    """

    report: TaskReport
    pathway: str | None
    write: Callable[[], int | None]
    priority: float | None = None
    stays: bool = False


class TaskAgent(Protocol[Found]):
    """What a run does with its tasks. `look` runs on a thread of its own beside the other members."""

    @property
    def model(self) -> ModelRecord:
        """Which model makes the labels, or what stands in for one."""

    @property
    def warnings(self) -> Sequence[str]:
        """What somebody should know of the run that failed no task; grows while it goes on."""

    def fingerprint(self, task: Task) -> str:
        """Returns a hash of all that decides what the task's labels will say."""

    @property
    def reads_media(self) -> bool:
        """Whether media have to be brought here before `look`."""

    def recall(self, task: Task, step: Step | None) -> Found | None:
        """Returns what an earlier run found under the same fingerprint; None: the media have to be looked at.

        Args:
            task: that waits.
            step: to which an earlier run came with it under the same fingerprint; None: to none.
        """

    def look(self, fetched: Iterable[FetchedTask]) -> Iterator[InferredTask[Found]]:
        """Yields what is found in each task's media, in their order; closes `release` of each.

        May take several tasks before it yields the first. A task's own failure is yielded, not raised.

        Raises:
            Stopped: somebody asked twice to stop.
        """

    def decide(self, task: Task, found: Found) -> Decision:
        """Returns what is to become of the task. Changes nothing.

        Raises:
            TaskError: nothing can be decided for this task.
        """

    def holds(self, task: Task) -> bool:
        """Tells whether what an earlier run wrote of the task is still there, and the task need not be done again."""
