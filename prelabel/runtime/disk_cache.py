"""A bounded folder for downloads in use, shared by processes and cleaned up even after a kill."""

from __future__ import annotations

import fcntl
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO
from uuid import uuid4

from prelabel.errors import FetchError

_POLL_SECONDS = 0.2
_LOCK = ".lock"


class DiskCache:
    """A folder that holds files while they are in use, up to a number of bytes.

    Processes that share the folder share the limit. Each process has its own sub-folder and holds a file lock on it.
    The kernel releases the lock of a killed process, and the next process that checks deletes its files. The name of a
    file's folder ends in the bytes reserved for it, so every process can add up all reservations.
    """

    def __init__(self, folder: Path, max_bytes: int, *, patience_seconds: float = 3600.0) -> None:
        """Stores the settings; creates nothing on disk.

        Args:
            folder: created when first needed.
            max_bytes: limit for the files in use by all processes.
            patience_seconds: how long to wait while no room is released.
        """
        self._folder, self._max_bytes, self._patience_seconds = folder, max_bytes, patience_seconds
        self._own: Path | None = None
        self._held: IO[bytes] | None = None
        self._num_closed = 0
        self._on_close = threading.Condition()

    @contextmanager
    def room(self, num_bytes: int, title: str) -> Iterator[Path]:
        """Waits for room and yields an empty folder, which is deleted when the context ends.

        Args:
            num_bytes: to reserve; 0 if the size is unknown.
            title: of the task, for errors.

        Raises:
            FetchError: the file is larger than the cache or the free disk, or no room was released for too long.
        """
        if num_bytes > self._max_bytes:
            raise FetchError(
                f"{title}: takes {_gb(num_bytes)} GB on disk, the cache may take {_gb(self._max_bytes)} GB in all: "
                "raise source.cache_gb"
            )
        place = self._wait_for_room(num_bytes, title)
        try:
            free = shutil.disk_usage(place).free
            if num_bytes > free:
                raise FetchError(f"{title}: takes {_gb(num_bytes)} GB, the disk of {self._folder} has {_gb(free)} GB")
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)

    @property
    def max_bytes(self) -> int:
        """The limit for files in use, in bytes."""
        return self._max_bytes

    def sweep(self) -> None:
        """Deletes the files of processes that have ended."""
        if self._folder.is_dir():
            with self._folder_locked():
                self._sweep_and_count()

    def close(self) -> None:
        """Makes all waiting for room fail, and deletes all files of this process.

        The cache can be used again afterwards.
        """
        with self._on_close:
            self._num_closed += 1
            self._on_close.notify_all()
        if self._own is None or self._held is None:
            return
        with self._folder_locked():
            shutil.rmtree(self._own, ignore_errors=True)
            self._held.close()
            self._own = self._held = None

    def _wait_for_room(self, num_bytes: int, title: str) -> Path:
        waited, taken_before, num_closed = 0.0, -1, self._num_closed
        while self._num_closed == num_closed:
            with self._folder_locked():
                taken = self._sweep_and_count()
                if taken + num_bytes <= self._max_bytes:
                    return self._reserve(num_bytes)
            waited = waited + _POLL_SECONDS if taken == taken_before else 0.0
            taken_before = taken
            if waited > self._patience_seconds:
                raise FetchError(
                    f"{title}: waited {waited:.0f} s for {_gb(num_bytes)} GB of the disk cache, of which "
                    f"{_gb(taken)} of {_gb(self._max_bytes)} GB are in use: raise source.cache_gb"
                )
            with self._on_close:
                self._on_close.wait(_POLL_SECONDS)
        raise FetchError(f"{title}: given up while it waited for room on disk: the run is ending")

    def _reserve(self, num_bytes: int) -> Path:
        if self._own is None:
            self._own = self._folder / uuid4().hex
            self._own.mkdir()
            self._held = (self._own / _LOCK).open("wb")
            fcntl.flock(self._held, fcntl.LOCK_EX)
        place = self._own / f"{uuid4().hex}-{num_bytes}"
        place.mkdir()
        return place

    def _sweep_and_count(self) -> int:
        """Deletes the files of processes that have ended; returns the bytes reserved by the others."""
        taken = 0
        for process in self._folder.iterdir():
            if not process.is_dir():
                continue
            if _is_abandoned(process):
                shutil.rmtree(process, ignore_errors=True)
            else:
                taken += sum(int(place.name.rpartition("-")[2]) for place in _leases(process))
        return taken

    @contextmanager
    def _folder_locked(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / _LOCK).open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _is_abandoned(process: Path) -> bool:
    with suppress(OSError), (process / _LOCK).open("rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    # The lock is taken: the process lives. No lock file: it was killed between creating its folder and its lock.
    return not (process / _LOCK).exists()


def _leases(process: Path) -> list[Path]:
    return [place for place in process.iterdir() if place.is_dir()]


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.3f}"
