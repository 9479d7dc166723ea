from __future__ import annotations

import os
import signal
import time

from prelabel.cli.doctor import Outcome, Probe, run_probes
from prelabel.errors import MachineError


def say(text: str) -> str:
    print("this goes nowhere")
    return text


def crash() -> str:
    os.kill(os.getpid(), signal.SIGSEGV)
    raise AssertionError("unreachable")


def hang() -> str:
    time.sleep(600)
    raise AssertionError("unreachable")


def leave() -> str:
    os._exit(3)


def fail(error: Exception) -> str:
    raise error


def test_each_probe_gets_the_outcome_of_its_own_attempt() -> None:
    probes = [Probe("a", say, ("fine",)), Probe("b", fail, (ValueError("no\n good"),)), Probe("c", say, ("too",))]
    assert run_probes(probes, 60) == [
        Outcome(True, "fine"),
        Outcome(False, "ValueError: no good"),
        Outcome(True, "too"),
    ]


def test_an_error_of_the_project_speaks_for_itself() -> None:
    assert run_probes([Probe("a", fail, (MachineError("no GPU here"),))], 60) == [Outcome(False, "no GPU here")]


def test_a_crash_takes_only_itself_along() -> None:
    outcomes = run_probes([Probe("a", say, ("before",)), Probe("b", crash), Probe("c", say, ("after",))], 60)
    assert [outcome.worked for outcome in outcomes] == [True, False, True]
    assert outcomes[1].text == "crashed the process: SIGSEGV"


def test_a_probe_that_hangs_is_ended() -> None:
    began = time.monotonic()
    assert run_probes([Probe("a", hang)], 1) == [Outcome(False, "gave no answer within 1 s")]
    assert time.monotonic() - began < 60


def test_a_probe_that_ends_its_process_says_with_which_code() -> None:
    assert run_probes([Probe("a", leave)], 60) == [Outcome(False, "ended the process, exit code 3")]


def test_no_probes_make_no_process() -> None:
    assert run_probes([], 1) == []
