"""A lock on a bucket: an object that names a run, and that the run changes again and again while it goes on.

pyarrow (26.0) has no conditional writes. So if two runs start within a second, nothing refuses the second one. Each run
reads the object before it changes it, and the one that finds the other's name there uploads nothing more.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from prelabel.errors import MachineError, PrelabelError, SaveError
from prelabel.runtime.buckets import Address, read_object, upload

REFRESH_SECONDS = 20.0
EXPIRY_SECONDS = 100.0
"""A lock that did not change for this long is of a run that was killed."""
_LOG = logging.getLogger(__name__)


class BucketLock:
    """The lock of one run. At the end of the run, its object is empty.

    Attributes:
        address: of the object.
        file: a local file with its content: a line for people, and a line that names the host and the run's folder.
    """

    def __init__(self, address: Address, file: Path) -> None:
        self.address, self.file = address, file
        self._taken_by = ""

    @contextmanager
    def held(self) -> Iterator[None]:
        """Holds the lock, and gives it up at the end.

        Raises:
            MachineError: another run holds it; the message names that run.
            AccountError: the bucket cannot be read or written.
        """
        mine, ended = self.file.read_bytes(), threading.Event()
        self._taken_by = ""
        self._wait_for_others(mine)
        upload(self.file, self.address, MachineError)
        thread = threading.Thread(target=self._refresh, args=(mine, ended), name="bucket lock", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            with suppress(PrelabelError, OSError):  # it expires
                if (read_object(self.address) or b"").startswith(mine):
                    self._write(b"")

    def check(self) -> None:
        """Raises if another run has taken the lock.

        Raises:
            SaveError: this run must not write to the bucket any more.
        """
        if self._taken_by:
            raise SaveError(f"{self.address}: another run has taken over ({self._taken_by}): nothing was uploaded")

    def _wait_for_others(self, mine: bytes) -> None:
        """Returns as soon as no other run holds the lock, or its lock has expired.

        Raises:
            MachineError: another run holds the lock: it has changed it meanwhile.
        """
        found = read_object(self.address)
        # This run has locked its folder, so an earlier run in the same folder has ended.
        if not found or found.splitlines()[1:2] == mine.splitlines()[1:2]:
            return
        _LOG.warning("%s: waiting to see whether this run still goes on: %s", self.address, _for_people(found))
        expires = time.monotonic() + EXPIRY_SECONDS
        while time.monotonic() < expires:
            time.sleep(REFRESH_SECONDS / 4)
            latest = read_object(self.address)
            if not latest:
                return
            if latest != found:
                raise MachineError(
                    f"{self.address}: another run writes to this bucket ({_for_people(latest)}): wait until it ends, "
                    "or give this run its own source.output"
                )

    def _refresh(self, mine: bytes, ended: threading.Event) -> None:
        for number in count(1):
            if ended.wait(REFRESH_SECONDS):
                return
            with suppress(PrelabelError, OSError):  # the storage does not answer, or the disk is full: later it may
                found = read_object(self.address)
                if found and not found.startswith(mine):
                    self._taken_by = _for_people(found)
                    return
                self._write(mine + b"%d\n" % number)

    def _write(self, content: bytes) -> None:
        self.file.write_bytes(content)
        upload(self.file, self.address, SaveError)


def _for_people(content: bytes) -> str:
    return content.decode(errors="replace").partition("\n")[0]
