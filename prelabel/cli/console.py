"""The console for people: standard output where that is a terminal, else standard error beside the JSON lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Timer

from rich.console import Console

QUIET_SECONDS = 1.2
WIDTH_OF_LOGS = 160
COMMAND_BEGAN: ContextVar[float] = ContextVar("COMMAND_BEGAN")
"""When the command began, as `time.monotonic` has it."""


def person() -> Console:
    """Returns the console that a person reads."""
    stream = sys.stdout if sys.stdout.isatty() else sys.stderr
    return Console(file=stream, highlight=False, soft_wrap=True, width=None if stream.isatty() else WIDTH_OF_LOGS)


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Says what takes its time: at once on a terminal, elsewhere if the command has been quiet for long.

    A mistake in a config is mostly found sooner, and then is the only line.
    """
    console = person()
    if console.is_terminal:
        with console.status(text):
            yield
        return
    now = time.monotonic()
    timer = Timer(max(0.0, QUIET_SECONDS - (now - COMMAND_BEGAN.get(now))), console.print, [text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
