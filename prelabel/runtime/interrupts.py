"""Ctrl-C and SIGTERM: the first finishes the current tasks, the second aborts them, the third ends at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(Exception):  # noqa: N818  (not an error: the user asked for it)
    """A second stop request aborted the current task."""


class StopSignal:
    """A stop request; safe to use from any thread."""

    def __init__(self) -> None:
        self._soon = threading.Event()
        self._now = threading.Event()

    @property
    def is_set(self) -> bool:
        """Whether no new task may start."""
        return self._soon.is_set()

    @property
    def is_now(self) -> bool:
        """Whether the current task must be aborted."""
        return self._now.is_set()

    def ask(self) -> None:
        """Requests a stop after the current tasks; the second call requests a stop now."""
        if self._soon.is_set():
            self._now.set()
        self._soon.set()

    def check(self) -> None:
        """Raises if the current task must be aborted.

        Raises:
            Stopped: a stop was requested twice.
        """
        if self._now.is_set():
            raise Stopped

    def wait(self, seconds: float) -> None:
        """Waits for `seconds`, or until a stop is requested."""
        self._soon.wait(seconds)


@contextmanager
def stop_on_signals(stop: StopSignal, tell: Callable[[str], None]) -> Iterator[None]:
    """Calls `stop.ask()` on SIGINT and SIGTERM within the context. For the main thread only.

    The third signal raises KeyboardInterrupt, because a running detector call or save does not check `stop`.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_now:
            raise KeyboardInterrupt
        again = stop.is_set
        stop.ask()
        tell("stopping now" if again else "stopping after the current tasks; once more stops now")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
