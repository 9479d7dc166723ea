"""Which tasks a process has in hand, so that others that share its output folder leave them alone."""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from prelabel.errors import MachineError

LEASES = Path(".prelabel") / "leases"
"""Below the output of a run."""


class Leases:
    """A file lock for each task in hand. May be used from several threads.

    The kernel lets a lock go with the process that holds it, however that ends: no clock has to agree, none is taken
    from a worker that is only slow, and one that was killed holds up nobody. Processes must see one file system; those
    on several machines have outputs of their own, and tell by the platform which tasks are left.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, IO[bytes]] = {}
        self._lock = threading.Lock()

    def take(self, task_key: str) -> bool:
        """Tells whether the task is in this process's hand now; False: another has it.

        Raises:
            MachineError: the lock cannot be written.
        """
        with self._lock:
            if task_key in self._held:
                return True
            path = self._path(task_key)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                file = _lock(path)
            except OSError as error:
                raise MachineError(f"{path}: cannot be locked: {error.strerror}") from error
            if file is not None:
                self._held[task_key] = file
            return file is not None

    def give_back(self, task_key: str) -> None:
        """Lets others have the task; does nothing if it is not in hand."""
        with self._lock:
            file = self._held.pop(task_key, None)
            if file is not None:
                self._path(task_key).unlink(missing_ok=True)
                file.close()

    def close(self) -> None:
        """Gives back all that is in hand."""
        for task_key in list(self._held):
            self.give_back(task_key)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _path(self, task_key: str) -> Path:
        return self._folder / hashlib.sha256(task_key.encode(errors="surrogatepass")).hexdigest()[:32]


def _lock(path: Path) -> IO[bytes] | None:
    """Returns the file, locked; None if another process has it."""
    while True:
        file = path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        if _is_still(path, file):
            return file
        file.close()  # who had it has deleted it since it was opened: the next is another file


def _is_still(path: Path, file: IO[bytes]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
