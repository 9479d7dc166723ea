"""The console for people: standard output where that is a terminal, else standard error beside the JSON lines."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer

from rich.console import Console

QUIET_SECONDS = 1.0
WIDTH_OF_LOGS = 160


def person() -> Console:
    """Returns the console that a person reads."""
    stream = sys.stdout if sys.stdout.isatty() else sys.stderr
    return Console(file=stream, highlight=False, soft_wrap=True, width=None if stream.isatty() else WIDTH_OF_LOGS)


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Says what takes its time while the body runs: at once on a terminal, elsewhere if it takes over a second."""
    console = person()
    if console.is_terminal:
        with console.status(text):
            yield
        return
    timer = Timer(QUIET_SECONDS, console.print, [text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
