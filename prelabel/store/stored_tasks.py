"""Tasks whose boxes an earlier run has found: the media are not needed again, and nothing moves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from prelabel.data.frames import Media
from prelabel.errors import FetchError
from prelabel.plugins.protocols import LeftAlone, Task


@dataclass(frozen=True, slots=True)
class StoredTask:
    """A task as the ledger knows it.

    Attributes:
        key: as in the run that found its boxes.
        title: as people call it.
        identity: of the media at that time.
        num_instances: that prelabel wrote last.
    """

    key: str
    title: str
    identity: str
    num_instances: int
    num_frames: None = None

    def open(self) -> AbstractContextManager[Media]:
        """Raises a FetchError: media are not looked at again."""
        raise FetchError(f"{self.title}: what was found in it cannot be read: `prelabel run CONFIG` finds it again")


class StoredSource:
    """Tasks that are here already.

    Attributes:
        left_alone: tasks that are not labelled anew, and why.
        warnings: what else somebody should know of them.
    """

    def __init__(self, tasks: Sequence[StoredTask], left_alone: Sequence[LeftAlone], warnings: Sequence[str]) -> None:
        self._tasks = tasks
        self.left_alone = list(left_alone)
        self.warnings = tuple(warnings)

    def tasks(self) -> Iterator[Task]:
        """Yields each task once."""
        yield from self._tasks

    def count(self) -> int:
        """Returns how many there are."""
        return len(self._tasks)

    def proceed(self, task: Task, pathway: str | None) -> None:
        """Does nothing: a task stays where it is."""

    def fail(self, task: Task, reason: str) -> None:
        """Does nothing: the report has the reason."""
