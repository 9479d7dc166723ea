"""The decoding process: carries out the run's commands one by one, until the run ends."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path

from prelabel.data.frames import FrameBatch
from prelabel.errors import PrelabelError
from prelabel.media.batching import PooledReader
from prelabel.media.choose import build_reader, choose_reader
from prelabel.media.isolation.memory import SharedFramePool
from prelabel.media.isolation.messages import (
    Answer,
    Batch,
    Close,
    Command,
    Done,
    Failed,
    Next,
    Open,
    Opened,
    Read,
    receive_command,
    send_answer,
    unpack_setup,
)
from prelabel.plugins.protocols import VideoReader

_F_SETSIG = 10  # from Linux's fcntl.h; Python has no constant for it


def main() -> None:
    """Serves a socket, whose handle is the only argument."""
    _die_with_the_run()
    _be_first_when_memory_is_short()
    with socket.socket(fileno=int(sys.argv[1])) as connection, suppress(EOFError, BrokenPipeError):
        server = _Server()
        while True:
            answer, handle = server.answer(receive_command(connection))
            send_answer(connection, answer, handle)
            if isinstance(answer, Batch):
                server.forget_batch()


class _Server:
    """Holds one open reader, and one iteration over its batches."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._reader: VideoReader | None = None
        self._pool = SharedFramePool()
        self._batches: Iterator[FrameBatch] = iter(())
        self._batch: FrameBatch | None = None
        self._num_left = 0

    def answer(self, command: Command) -> tuple[Answer, int | None]:
        """Carries out a command; returns the answer, and the handle of memory that is new to the run."""
        try:
            match command:
                case Open():
                    return self._open_media(command), None
                case Read():
                    assert self._reader is not None
                    self._end_reading()
                    self._batches = self._reader.batches(command.frame_indices, command.batch_size)
                    self._num_left = len(command.frame_indices)
                    return self._next_batch(command.freed)
                case Next():
                    return self._next_batch(command.freed)
                case Close():
                    self._close()
                    return Done(), None
        except Exception as error:  # the run raises it
            return _failed(error), None

    def _next_batch(self, freed: tuple[int, ...]) -> tuple[Answer, int | None]:
        self._pool.free(freed)
        self._batch = next(self._batches, None)
        if self._batch is None:
            return Done(), None
        self._num_left -= len(self._batch)
        batch, handle = self._pool.share(self._batch)
        return replace(batch, is_last=self._is_over()), handle

    def _is_over(self) -> bool:
        """Returns whether the reader has nothing after the last requested frame; the next command gets the rest."""
        if self._num_left > 0:
            return False
        try:
            after = next(self._batches, None)
        except Exception as error:
            self._batches = _raising(error)
            return False
        if after is not None:
            self._batches = chain([after], self._batches)
        return after is None

    def forget_batch(self) -> None:
        """Drops the reference to the batch that was sent."""
        self._batch = None

    def _open_media(self, command: Open) -> Opened:
        self._close()
        # Threads that a decoder starts later inherit it. Without privileges, it can only rise.
        os.nice(max(0, command.niceness - os.nice(0)))
        setup = unpack_setup(command.setup)
        choice, keyframes = setup.choice, None
        if choice is None:
            choice, keyframes = choose_reader(command.media, setup.section, setup.machine)
        reader = build_reader(choice, command.media, setup.section, setup.folder)
        if isinstance(reader, PooledReader):
            reader.pool = self._pool
        self._reader = self._open.enter_context(reader)
        alone = None if keyframes is None else tuple(keyframes.tolist())
        return Opened(self._reader.info, choice, alone)

    def _close(self) -> None:
        self._reader = None
        try:
            self._end_reading()
            self._open.close()
        finally:
            self._open = ExitStack()
            self._pool.trim()

    def _end_reading(self) -> None:
        batches, self._batches, self._batch = self._batches, iter(()), None
        close = getattr(batches, "close", None)
        if close is not None:
            close()
        self._pool.free_unsent()


def _raising(error: Exception) -> Iterator[FrameBatch]:
    yield from ()
    raise error


def _failed(error: Exception) -> Failed:
    if isinstance(error, PrelabelError):
        return Failed(type(error).__name__, str(error))
    return Failed("", f"{type(error).__name__}: {error}")


def _die_with_the_run() -> None:
    """Makes the kernel kill this process when the other end of its standard input is closed.

    The run holds that end and writes nothing to it. The kernel closes it when the run ends for any reason. This works
    even while a decoder hangs.
    """
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(0, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)


def _be_first_when_memory_is_short() -> None:
    """Makes the kernel end this process before the run when memory is short."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


if __name__ == "__main__":
    main()
