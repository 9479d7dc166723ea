"""Which tasks a process has in hand, so that others that share its output folder leave them alone."""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from prelabel.errors import MachineError

LEASES = Path(".prelabel") / "leases.lock"
"""Below the output of a run."""
_FLOCK = struct.Struct("hhqqi")  # `struct flock` of Linux with 64 bits: l_type, l_whence, l_start, l_len, l_pid


class Leases:
    """A lock for each task in hand, on a byte of a file that stays empty. May be used from several threads.

    The kernel lets a lock go with the process that holds it, however that ends: no clock has to agree, none is taken
    from a worker that is only slow, and one that was killed holds up nobody. Processes must see one file system; those
    on several machines have outputs of their own, and tell by the platform which tasks are left.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None  # not opened yet
        self._held: set[str] = set()
        self._lock = threading.Lock()

    def take(self, task_key: str) -> bool:
        """Tells whether the task is in this process's hand now; False: another has it.

        Raises:
            MachineError: the file cannot be locked.
        """
        with self._lock:
            if task_key in self._held:
                return True
            try:
                self._set(task_key, fcntl.F_WRLCK)
            except BlockingIOError:
                return False
            except OSError as error:
                raise MachineError(f"{self._path}: cannot be locked: {error.strerror}") from error
            self._held.add(task_key)
            return True

    def give_back(self, task_key: str) -> None:
        """Lets others have the task; does nothing if it is not in hand."""
        with self._lock:
            if task_key in self._held:
                self._held.remove(task_key)
                self._set(task_key, fcntl.F_UNLCK)

    def close(self) -> None:
        """Gives back all that is in hand."""
        with self._lock:
            if self._file is not None:
                self._file.close()
            self._file, self._held = None, set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _set(self, task_key: str, kind: int) -> None:
        """Sets the lock on the task's byte: one of 2^62, by a digest of its key."""
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("ab")
        digest = hashlib.sha256(task_key.encode(errors="surrogatepass")).digest()
        byte = int.from_bytes(digest[:8]) >> 2
        # Locks of the open file (OFD), not of the process: two of one process keep each other off, too.
        fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0))
