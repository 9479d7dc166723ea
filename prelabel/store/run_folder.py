"""The output folder of a run: one run at a time, the ledger, and the name of each task's files."""

from __future__ import annotations

import fcntl
import os
import socket
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import IO, Protocol

from prelabel.errors import MachineError
from prelabel.runtime.files import DRY_RUN, candidate_names
from prelabel.store.ledger import LEDGER, Entry, Ledger

LOCK = Path(".prelabel") / "run.lock"
"""Below the output of a run."""


class Keyed(Protocol):
    """A task, its ledger entry or its report."""

    @property
    def key(self) -> str:
        """Unique in its source, the same in every run."""

    @property
    def title(self) -> str:
        """What people call it."""


class RunFolder:
    """What runs keep in one output folder. May be used from several threads.

    Nothing is written before it is needed: a command that only reads leaves a folder without a run as it is.

    Attributes:
        output: the folder.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self._lock = threading.RLock()
        self._ledger: Ledger | None = None
        self._names: dict[tuple[str, str], str] = {}  # a run asks for the same name many times
        self._num_holders = 0

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keeps other runs out of the folder. The object that holds it may hold it again.

        Raises:
            MachineError: another run holds it; the message names the process and the host.
        """
        if self._num_holders:
            self._num_holders += 1
            try:
                yield
            finally:
                self._num_holders -= 1
            return
        with self._open_lock() as file:
            self._num_holders = 1
            try:
                yield
            finally:
                self._num_holders = 0
                file.truncate(0)

    @contextmanager
    def _open_lock(self) -> Iterator[IO[str]]:
        path = self.output / LOCK
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise MachineError(f"{path}: cannot be written: {error.strerror}") from error
        with file:
            try:
                # The kernel drops the lock when the process ends, however it ends: no stale lock to clean up.
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip() or "unknown process"
                raise MachineError(
                    f"{self.output}: another run writes here ({holder}): wait until it ends, "
                    "or give this run its own source.output"
                ) from None
            except OSError as error:
                raise MachineError(f"{path}: cannot be locked: {error.strerror}") from error
            now = datetime.now(UTC).isoformat(timespec="seconds")
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}, since {now}\n")
            file.flush()
            yield file

    @property
    def has_ledger(self) -> bool:
        """Whether a run has written here."""
        return (self.output / LEDGER).exists()

    @property
    def ledger(self) -> Ledger:
        """The ledger; made when there is none yet.

        Raises:
            MachineError: it cannot be opened.
        """
        with self._lock:
            if self._ledger is None:
                self._ledger = Ledger(self.output / LEDGER)
                weakref.finalize(self, self._ledger.close)
            return self._ledger

    @cached_property
    def dry_run(self) -> RunFolder:
        """The folder of dry runs below this one."""
        return RunFolder(self.output / DRY_RUN)

    def entries(self) -> list[Entry]:
        """Returns the ledger's entries, the latest last; none where no run has written."""
        return self.ledger.entries() if self.has_ledger else []

    def name(self, task: Keyed) -> str:
        """Returns the relative path of a task's files without their ending: the same in every run.

        It is the title without its suffix. Where another task has that name (`a.mp4`, `a.mov`), it is the whole title;
        where that is taken too, the title and a digest of the key.
        """
        wanted = (task.key, task.title)
        with self._lock:
            if wanted not in self._names:
                self._names[wanted] = self.ledger.give_name(task.key, candidate_names(task.key, task.title))
            return self._names[wanted]

    def path(self, task: Keyed, ending: str) -> Path:
        """Returns where the task's file with this ending (`.labels.json`) is or will be."""
        return self.output / f"{self.name(task)}{ending}"

    def detections_path(self, task: Keyed) -> Path:
        """Returns where the task's raw detections are or will be."""
        return self.path(task, ".detections.parquet")

    def labelled_path(self, task: Keyed) -> Path:
        """Returns where the task's labelled detections are or will be."""
        return self.output / ".prelabel" / "labelled" / f"{self.name(task)}.parquet"

    def classes_path(self, task: Keyed) -> Path:
        """Returns where the task's class probabilities are or will be."""
        return self.path(task, ".classes.parquet")

    def call_path(self, task: Keyed) -> Path:
        """Returns where the result of the task's function call is or will be."""
        return self.path(task, ".agent.json")
