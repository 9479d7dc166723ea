"""Starts decoding processes, and ends those that hang or use too much memory."""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from prelabel.media.isolation.memory import MappedFrames
from prelabel.media.isolation.messages import Answer, Command, receive_answer, send_command
from prelabel.runtime.buckets import CREDENTIALS
from prelabel.runtime.gpus import imported_torch

SECRETS = ("ENCORD_SSH_KEY", "ENCORD_SSH_KEY_FILE", *CREDENTIALS)
"""Environment variables that are withheld from the process that parses untrusted files."""
MAX_SILENCES = 20
"""A process is ended after this many `stall_seconds` without an answer, even if it still reads the file."""
CAN_ISOLATE = hasattr(os, "memfd_create")
"""Whether the system supports isolation (only Linux does)."""
BESIDE_CPU_MODEL = 10
"""Added niceness next to a model on the CPU. Its threads wait for each other, so delaying one would delay all."""
_LOOK_SECONDS = 0.25
_MAX_IDLE = 2


class ProcessLostError(Exception):
    """The process has ended; the text says why."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits beyond which a decoding process is ended.

    Attributes:
        stall_seconds: how long it may neither answer nor read from files.
        max_memory_bytes: most resident memory.
    """

    stall_seconds: float
    max_memory_bytes: float


@dataclass(slots=True)
class _Watch:
    """Monitors a process while it works on one command."""

    pid: int
    limits: Limits
    began: float = field(default_factory=time.monotonic)
    moved_at: float = field(default_factory=time.monotonic)
    bytes_read: int = -1
    memory_bytes: int = 0

    def complaint(self) -> str:
        """Returns why the process must be ended; empty if it may continue."""
        now = time.monotonic()
        memory = self.memory_bytes = resident_bytes(self.pid)
        if memory > self.limits.max_memory_bytes:
            limit = f"reader.max_memory_gb allows {self.limits.max_memory_bytes / 1e9:g}"
            return f"took {memory / 1e9:.1f} GB of memory, {limit}, and was ended: raise it if the machine has more"
        bytes_read = _bytes_read(self.pid)
        if bytes_read != self.bytes_read:
            self.moved_at, self.bytes_read = now, bytes_read
        silent, stall = now - self.began, self.limits.stall_seconds
        if now - self.moved_at > stall or silent > MAX_SILENCES * stall:
            return f"hung for {silent:.0f} s and was ended: raise reader.stall_seconds if file or disk are that slow"
        return ""


class ReaderProcess:
    """A decoding process. It starts at once; `kill` or the end of this process ends it.

    It is spawned, not forked, because forking is unsafe with threads and CUDA. It gets no signals from the terminal.

    Attributes:
        owner: id of the process that started it.
        frames: the shared memory with its frames.
        memory_bytes: resident memory at the last check.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self._connection = ours
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "prelabel.media.isolation.child", str(theirs.fileno())],
                stdin=subprocess.PIPE,
                stdout=sys.__stderr__.fileno() if sys.__stderr__ is not None else subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=_environment(),
                start_new_session=True,
            )
        self.owner = os.getpid()
        self.frames = MappedFrames()
        self.memory_bytes = 0
        self._lost = False
        self._look_at = 0.0

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it can take commands."""
        return not self._lost and self._process.poll() is None

    def ask(self, command: Command, limits: Limits) -> tuple[Answer, int | None]:
        """Returns the answer, and the file handle sent with it.

        Raises:
            ProcessLostError: the process crashed, hung or used too much memory, and has ended.
        """
        try:
            send_command(self._connection, command)
            self._wait(limits)
            return receive_answer(self._connection)
        except (OSError, EOFError):
            self._lost = True
            raise ProcessLostError(self._how_it_ended()) from None

    def kill(self) -> None:
        """Kills the process and waits for its end."""
        self._lost = True
        self._process.kill()
        self._process.wait()
        self._connection.close()
        assert self._process.stdin is not None
        self._process.stdin.close()

    def _wait(self, limits: Limits) -> None:
        """Waits for an answer and checks the process at most every `_LOOK_SECONDS`."""
        self._connection.settimeout(limits.stall_seconds)
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        watch = _Watch(self.pid, limits)
        while True:
            now = time.monotonic()
            if now >= self._look_at:
                complaint = watch.complaint()
                self.memory_bytes = watch.memory_bytes
                if complaint:
                    self.kill()
                    raise ProcessLostError(complaint)
                self._look_at = now + _LOOK_SECONDS
            if poll.poll((self._look_at - now) * 1000):
                return

    def _how_it_ended(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)  # its socket closes a moment before it ends
        code = self._process.poll()
        self.kill()
        if code is None:
            return "stopped making sense and was ended"
        if code >= 0:
            return f"ended with exit code {code}"
        name = signal.Signals(-code).name
        return f"was killed by {name}" + (", probably for want of memory" if -code == signal.SIGKILL else "")


def niceness() -> int:
    """Returns the niceness for a decoding process. If the model runs on the CPU, decoding yields to it.

    Models load before media open, so initialised CUDA means a model on a GPU.
    """
    torch = imported_torch()
    is_on_gpu = torch is not None and torch.cuda.is_initialized()
    return os.getpriority(os.PRIO_PROCESS, 0) + (0 if is_on_gpu else BESIDE_CPU_MODEL)


def resident_bytes(pid: int) -> int:
    """Returns a process's resident memory in bytes; 0 if unknown."""
    with suppress(OSError, IndexError, ValueError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    return 0


def _bytes_read(pid: int) -> int:
    """Returns how many bytes a process has read so far; 0 if unknown."""
    with suppress(OSError, IndexError, ValueError):
        return int(Path(f"/proc/{pid}/io").read_text().split()[1])
    return 0


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in SECRETS}
    return {**kept, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


_IDLE: list[ReaderProcess] = []


@contextmanager
def reader_process(limits: Limits) -> Iterator[ReaderProcess]:
    """Yields a decoding process. If it is still usable afterwards, it is reused for the next video."""
    process = _take_idle() or ReaderProcess()
    try:
        yield process
    finally:
        is_small = process.memory_bytes < limits.max_memory_bytes / 2
        if process.is_alive and is_small and len(_IDLE) < _MAX_IDLE:
            _IDLE.append(process)
        else:
            process.kill()


def start_process_ahead() -> None:
    """Starts a decoding process that waits for a video, unless one waits already."""
    _IDLE.append(_take_idle() or ReaderProcess())


def end_idle_processes() -> None:
    """Kills the processes that wait for a video."""
    while (process := _take_idle()) is not None:
        process.kill()


def _take_idle() -> ReaderProcess | None:
    while True:
        try:
            process = _IDLE.pop()
        except IndexError:
            return None
        if process.owner == os.getpid() and process.is_alive:
            return process
