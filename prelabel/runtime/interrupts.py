"""Ctrl-C and SIGTERM: once ends after what is in hand, twice gives that up, a third time waits for nothing."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(Exception):  # noqa: N818  (not an error: somebody asked for it)
    """Work in hand was given up, because somebody asked twice."""


class StopSignal:
    """Whether to go on. Asked from any thread."""

    def __init__(self) -> None:
        self._soon = threading.Event()
        self._now = threading.Event()

    @property
    def is_set(self) -> bool:
        """True once no new task is to be begun."""
        return self._soon.is_set()

    @property
    def is_now(self) -> bool:
        """True once work in hand is to be given up, too."""
        return self._now.is_set()

    def ask(self) -> None:
        """Asks to stop after what is in hand; asked again: now."""
        if self._soon.is_set():
            self._now.set()
        self._soon.set()

    def check(self) -> None:
        """Goes on, or raises.

        Raises:
            Stopped: if work in hand is to be given up.
        """
        if self._now.is_set():
            raise Stopped

    def wait(self, seconds: float) -> None:
        """Returns after `seconds`, or as soon as somebody asks to stop."""
        self._soon.wait(seconds)


@contextmanager
def stop_on_signals(stop: StopSignal, tell: Callable[[str], None]) -> Iterator[None]:
    """Turns SIGINT and SIGTERM into `stop.ask()` for as long as the context is open; main thread only.

    Not all that takes long asks `stop`: a batch in a detector, a save, a picture. A third one is a KeyboardInterrupt.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_now:
            raise KeyboardInterrupt
        again = stop.is_set
        stop.ask()
        tell("stopping now" if again else "stopping after what is in hand; once more stops now")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
