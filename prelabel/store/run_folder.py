"""The output folder of a run: its lock, its ledger, and the name of each task's files."""

from __future__ import annotations

import fcntl
import os
import socket
import threading
import weakref
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import IO, TypeAlias

from prelabel.errors import AccountError, FetchError, MachineError, SaveError
from prelabel.plugins.protocols import TaskFacts
from prelabel.runtime.buckets import Address, find_object, upload
from prelabel.runtime.files import DRY_RUN, atomic_write, candidate_names, write_text_atomically
from prelabel.store.bucket_lock import BucketLock
from prelabel.store.ledger import LEDGER, Entry, Ledger
from prelabel.store.report import TaskReport

LOCK = Path(".prelabel") / "run.lock"
"""Path of the lock below the output of a run."""
CLAIM = Path(".prelabel") / "run.txt"
"""Path of the file that names the folder of a bucket's runs, below both."""


Keyed: TypeAlias = TaskFacts | Entry | TaskReport
"""A task, its ledger entry or its report. Each has the task's key and title."""


class RunFolder:
    """The output folder of runs. Several threads may use it.

    It writes nothing before that is needed. So a command that only reads does not change a folder without a run.

    If the run has a bucket, the files for people are uploaded there. The ledger and the caches stay in the folder. A
    label row in the bucket is newer than the one in the folder, because people may have edited it there.

    Attributes:
        output: path of the folder.
        bucket: the address to which files for people are uploaded; None if they stay in the folder.
    """

    def __init__(self, output: Path, bucket: Address | None = None) -> None:
        self.output, self.bucket = output, bucket
        self._lock = threading.RLock()  # re-entrant, because `name` reads `ledger` while it holds the lock
        self._ledger: Ledger | None = None
        self._names: dict[tuple[str, str], str] = {}  # a run asks for the same name many times
        self._num_holders = 0
        self._bucket_lock = None if bucket is None else BucketLock(bucket.below(LOCK.as_posix()), output / LOCK)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Locks the folder, and its bucket, against other runs. The same object may lock it several times.

        Raises:
            MachineError: another run has locked it; the message names the process and the host.
            AccountError: the bucket cannot be read or written.
        """
        if self._num_holders:
            self._num_holders += 1
            try:
                yield
            finally:
                self._num_holders -= 1
            return
        with ExitStack() as stack:
            file = stack.enter_context(self._open_lock())
            stack.callback(file.truncate, 0)
            if self._bucket_lock is not None:
                stack.enter_context(self._bucket_lock.held())
            self._num_holders = 1
            try:
                yield
            finally:
                self._num_holders = 0

    @contextmanager
    def _open_lock(self) -> Iterator[IO[str]]:
        path = self.output / LOCK
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Mode "a+" does not empty the file, which names the process that holds the lock.
            file = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise MachineError(f"{path}: cannot be written: {error.strerror}") from error
        with file:
            try:
                # The kernel releases the lock when the process ends, even after a crash. So no lock becomes stale.
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.readline().strip() or "unknown process"
                raise MachineError(
                    f"{self.output}: another run writes here ({holder}): wait until it ends, "
                    "or give this run its own source.output"
                ) from None
            except OSError as error:
                raise MachineError(f"{path}: cannot be locked: {error.strerror}") from error
            now, host = datetime.now(UTC).isoformat(timespec="seconds"), socket.gethostname()
            file.truncate(0)
            file.write(f"process {os.getpid()} on {host}, since {now}\n{host}:{self.output.absolute()}\n")
            file.flush()
            yield file

    @property
    def has_ledger(self) -> bool:
        """Whether a run has written to this folder."""
        return (self.output / LEDGER).exists()

    @property
    def ledger(self) -> Ledger:
        """The ledger; created if there is none yet.

        Raises:
            MachineError: the ledger cannot be opened.
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

    # The bucket

    @property
    def described(self) -> str:
        """The place of the files for people, in words."""
        return f"{self.output}" if self.bucket is None else f"{self.bucket}, by way of {self.output}"

    def claim_bucket(self) -> None:
        """Writes an object that names this folder, so that missing rights show before the first task.

        Raises:
            AccountError: the bucket cannot be written to.
        """
        if self.bucket is not None:
            path = self.output / CLAIM
            write_text_atomically(path, f"written by prelabel on {socket.gethostname()}: {self.output.absolute()}\n")
            upload(path, self.bucket.below(CLAIM.as_posix()), AccountError)

    def publish(self, paths: Iterable[Path]) -> None:
        """Uploads those of the files that are in this folder, and the pictures of pages, if the run has a bucket.

        Raises:
            SaveError: a file was not uploaded.
        """
        if self._bucket_lock is not None:
            self._bucket_lock.check()
        for path in paths:
            if self.bucket is not None and path.is_relative_to(self.output):
                pictures = path.with_name(f"{path.stem}_files").glob("*") if path.suffix == ".html" else ()
                for file in (*pictures, path):
                    upload(file, self._address_of(file, self.bucket), SaveError)

    def refresh(self, path: Path) -> None:
        """Replaces a file of this folder by the version in the bucket, if there is one.

        Raises:
            FetchError: the object was not downloaded.
        """
        if self.bucket is None:
            return
        found = find_object(self._address_of(path, self.bucket), FetchError)
        if found is not None:
            with atomic_write(path) as unfinished:
                found.download(unfinished, path.name)

    def _address_of(self, path: Path, bucket: Address) -> Address:
        return bucket.below(path.relative_to(self.output).as_posix())

    def entries(self) -> list[Entry]:
        """Returns the ledger's entries, the last changed one last; none if no run has written to this folder."""
        return self.ledger.entries() if self.has_ledger else []

    def name(self, task: Keyed) -> str:
        """Returns the relative path of a task's files without their ending; it is the same in every run.

        It is the title without its suffix. If another task has that name (`a.mp4`, `a.mov`), it is the whole title. If
        another task has that too, it is the title and a digest of the key.
        """
        wanted = (task.key, task.title)
        with self._lock:
            if wanted not in self._names:
                self._names[wanted] = self.ledger.give_name(task.key, candidate_names(task.key, task.title))
            return self._names[wanted]

    def path(self, task: Keyed, ending: str) -> Path:
        """Returns the path of the task's file with this ending, such as `.labels.json`; it may not exist yet."""
        return self.output / f"{self.name(task)}{ending}"

    def detections_path(self, task: Keyed) -> Path:
        """Returns the path of the task's raw detections; it may not exist yet."""
        return self.path(task, ".detections.parquet")

    def labelled_path(self, task: Keyed) -> Path:
        """Returns the path of the task's labelled detections; it may not exist yet."""
        return self.output / ".prelabel" / "labelled" / f"{self.name(task)}.parquet"

    def classes_path(self, task: Keyed) -> Path:
        """Returns the path of the task's class probabilities; it may not exist yet."""
        return self.path(task, ".classes.parquet")

    def call_path(self, task: Keyed) -> Path:
        """Returns the path of the result of the task's function call; it may not exist yet."""
        return self.path(task, ".agent.json")
