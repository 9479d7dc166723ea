"""The command line in processes of its own, each forked from one that has imported all: they start at once."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from prelabel.cli.app import main
from tests.killing import PRELOADED


def forking() -> ForkServerContext:
    """Returns the context whose processes are forks of one that has imported what a run needs."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


@dataclass
class Command:
    """A command at work in a process of its own.

    Attributes:
        process: to send signals to.
        log: the file with all that it says.
    """

    process: BaseProcess
    log: Path
    _num_read: int = 0

    def lines(self) -> Iterator[str]:
        """Yields the lines that nobody has read yet as they come, until the process has ended."""
        while True:
            is_alive = self.process.is_alive()
            complete = self.log.read_text().rpartition("\n")[0].splitlines()[self._num_read :]
            for line in complete:
                self._num_read += 1
                yield line
            if not complete:
                if not is_alive:
                    return
                time.sleep(0.02)

    def end(self) -> int | None:
        """Waits for the end, for as long as the test may take, and returns the exit code."""
        self.process.join()
        return self.process.exitcode


@contextmanager
def command(words: Sequence[str], folder: Path, **environment: str) -> Iterator[Command]:
    """Runs `prelabel WORDS` in a folder, with more variables in its environment; kills it at the end."""
    log = folder / f"{len(list(folder.iterdir()))}.log"
    log.touch()
    process = forking().Process(target=_run, args=(list(words), folder, log, {**os.environ, **environment}))
    process.start()
    try:
        yield Command(process, log)
    finally:
        process.kill()
        process.join()


def _run(words: list[str], folder: Path, log: Path, environment: dict[str, str]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    with log.open("a") as said:
        for stream in (1, 2):
            os.dup2(said.fileno(), stream)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    sys.argv = ["prelabel", *words]
    main()
