"""What may crash or hang the process that tries it, tried in another."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from prelabel.errors import PrelabelError

SECONDS_TO_DIE = 5.0


@dataclass(frozen=True, slots=True)
class Probe:
    """One thing to try.

    Attributes:
        name: what a person calls it.
        attempt: tries it and returns what was seen, in words; raises if it does not work. A module's own function.
        arguments: for `attempt`; they are pickled.
    """

    name: str
    attempt: Callable[..., str]
    arguments: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a probe ended.

    Attributes:
        worked: it neither raised, crashed nor hung.
        text: what was seen, or what went wrong.
    """

    worked: bool
    text: str


def run_probes(probes: Sequence[Probe], patience_seconds: float) -> list[Outcome]:
    """Returns how each probe ended.

    They share a process, so that what they import is imported once; one that crashes or hangs takes only itself along,
    and those after it get a new process.

    Args:
        probes: tried in this order.
        patience_seconds: for one probe, imports included, before it counts as hung.
    """
    outcomes: list[Outcome] = []
    while len(outcomes) < len(probes):
        outcomes += _run_in_one_process(probes[len(outcomes) :], patience_seconds)
    return outcomes


def _run_in_one_process(probes: Sequence[Probe], patience_seconds: float) -> list[Outcome]:
    """Returns outcomes up to and with the first probe that did not answer: one or more."""
    context = multiprocessing.get_context("spawn")  # never fork: decord's and CUDA's handles do not survive it
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(sender, tuple(probes)), daemon=True)
    process.start()
    sender.close()
    try:
        return _collect(receiver, process, len(probes), patience_seconds)
    finally:
        process.kill()
        process.join()
        receiver.close()


def _collect(receiver: Connection, process: BaseProcess, num_probes: int, patience_seconds: float) -> list[Outcome]:
    outcomes: list[Outcome] = []
    while len(outcomes) < num_probes:
        if not receiver.poll(patience_seconds):
            return [*outcomes, Outcome(False, f"gave no answer within {patience_seconds:g} s")]
        try:
            outcomes.append(Outcome(*receiver.recv()))
        except EOFError:
            process.join(SECONDS_TO_DIE)
            return [*outcomes, Outcome(False, _describe_end(process.exitcode))]
    return outcomes


def _describe_end(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"crashed the process: {signal.Signals(-exit_code).name}"
    return f"ended the process, exit code {exit_code}"


def _serve(sender: Connection, probes: Sequence[Probe]) -> None:
    """Runs in the child: sends an outcome for each probe as it ends."""
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)  # native libraries write to the terminal on their own
    os.dup2(silence, 2)
    for probe in probes:
        try:
            sender.send((True, probe.attempt(*probe.arguments)))
        except PrelabelError as error:
            sender.send((False, str(error)))
        except Exception as error:
            sender.send((False, f"{type(error).__name__}: {' '.join(str(error).split())}"))
