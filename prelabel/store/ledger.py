"""The ledger of a run's folder: an SQLite file with each task's progress and file names."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from prelabel.errors import MachineError

LEDGER = Path(".prelabel") / "ledger.sqlite"
"""Path of the ledger below the output of a run."""

Step = Literal["inferred", "labelled", "done", "failed"]
Synchronous = Literal["NORMAL", "FULL"]

_VERSION = 3
_TASKS = f"""
CREATE TABLE IF NOT EXISTS tasks (
    key TEXT PRIMARY KEY,
    title TEXT NOT NULL,
    step TEXT NOT NULL CHECK (step IN {get_args(Step)}),
    fingerprint TEXT NOT NULL,
    num_instances INTEGER NOT NULL,
    reason TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    num_failures INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID
"""
_NAMES = "CREATE TABLE IF NOT EXISTS names (name TEXT PRIMARY KEY, key TEXT NOT NULL) WITHOUT ROWID"
_RECORD = """
INSERT INTO tasks (key, title, step, fingerprint, num_instances, reason, updated_at, num_failures)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET
    title = excluded.title,
    step = excluded.step,
    fingerprint = excluded.fingerprint,
    num_instances = CASE WHEN ? THEN tasks.num_instances ELSE excluded.num_instances END,
    reason = excluded.reason,
    updated_at = excluded.updated_at,
    num_failures = CASE excluded.step WHEN 'done' THEN 0 ELSE tasks.num_failures + excluded.num_failures END
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """The progress of a task.

    Attributes:
        key: of the task.
        title: of the task.
        step: the last step that succeeded, or `failed`.
        fingerprint: of the config, model and media at that step.
        num_instances: number of object instances that were last saved.
        reason: why the task failed, or what it lacks; else empty.
        updated_at: UTC, ISO 8601.
        num_failures: number of failures since the task was last done.
    """

    key: str
    title: str
    step: Step
    fingerprint: str
    num_instances: int = 0
    reason: str = ""
    updated_at: str = ""
    num_failures: int = 0


class Ledger:
    """The entries of tasks by key. Several threads may use it.

    An entry is on disk when `record` returns. Only an entry with the step `inferred` may be lost if the power fails.
    The raw detections are in a file of their own, where the next run finds them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._synchronous: Synchronous | None = None  # the connection's setting; None means not set yet
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # All threads share the connection; `_execute` holds the lock. Without an isolation level, each statement
            # commits by itself.
            self._connection = sqlite3.connect(path, check_same_thread=False, timeout=30, isolation_level=None)
            # With a write-ahead log, a process that reads does not wait for one that writes.
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute(_TASKS)
            self._connection.execute(_NAMES)
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if version > _VERSION:
                raise sqlite3.DatabaseError("a later version of prelabel has written it")
            self._connection.execute(f"PRAGMA user_version = {_VERSION}")
        except (OSError, sqlite3.Error) as error:
            raise MachineError(f"{path}: the ledger cannot be opened: {error}") from error

    def entry(self, key: str) -> Entry | None:
        """Returns the entry of a task; None if no run has worked on the task."""
        rows = self._execute("SELECT * FROM tasks WHERE key = ?", (key,))
        return Entry(*rows[0]) if rows else None

    def entries(self) -> list[Entry]:
        """Returns all entries; the one that was changed last comes last."""
        return [Entry(*row) for row in self._execute("SELECT * FROM tasks ORDER BY updated_at, key")]

    def record(self, entry: Entry, *, keeps_instances: bool = False) -> None:
        """Replaces the entry of a task, sets its time and counts its failures.

        Args:
            entry: the new entry; its `updated_at` and `num_failures` are ignored.
            keeps_instances: whether the earlier entry's `num_instances` stays.
        """
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        failures = int(entry.step == "failed")
        values = (entry.key, entry.title, entry.step, entry.fingerprint, entry.num_instances, entry.reason)
        # FULL waits for the disk at each commit, NORMAL in WAL mode does not.
        synchronous: Synchronous = "NORMAL" if entry.step == "inferred" else "FULL"
        self._execute(_RECORD, (*values, now, failures, keeps_instances), synchronous)

    def close(self) -> None:
        """Closes the file; SQLite merges the write-ahead log into it."""
        with self._lock:
            self._connection.close()

    def give_name(self, key: str, candidates: Sequence[str]) -> str:
        """Returns the first name that no other task has, and reserves it for the task.

        Args:
            key: of the task.
            candidates: names in order of preference; the last one must be free.
        """
        for name in candidates:
            if not self._owner(name):
                # Two processes may get here at the same time: the database gives the name to one of them.
                self._execute("INSERT OR IGNORE INTO names VALUES (?, ?)", (name, key), "FULL")
            if self._owner(name) == [(key,)]:
                return name
        raise ValueError(f"{key}: got {list(candidates)}, which other tasks have, expected a name that is free")

    def _owner(self, name: str) -> list[tuple[str]]:
        return self._execute("SELECT key FROM names WHERE name = ?", (name,))

    def _execute(
        self, statement: str, values: tuple[str | int, ...] = (), synchronous: Synchronous | None = None
    ) -> list[tuple[Any, ...]]:
        """Returns the rows of a statement.

        Args:
            statement: SQL.
            values: of the statement's parameters.
            synchronous: SQLite's setting for a statement that writes; None for one that reads.
        """
        try:
            with self._lock:
                if synchronous not in (None, self._synchronous):
                    self._connection.execute(f"PRAGMA synchronous={synchronous}")
                    self._synchronous = synchronous
                return self._connection.execute(statement, values).fetchall()
        except sqlite3.OperationalError as error:  # a full disk, or a lock that another process holds
            raise MachineError(f"{self.path}: the ledger cannot be used: {error}") from error
