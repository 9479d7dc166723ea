from __future__ import annotations

import os
import signal
import time

import pytest

from prelabel.cli.doctor import Finding, Trial, run_trials
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


@pytest.fixture(scope="module")
def findings() -> dict[str, Finding]:
    listed = [
        Trial("good", say, ("fine",)),
        Trial("bad", fail, (ValueError("no\n good"),), "missing", "mend it"),
        Trial("known", fail, (MachineError("no GPU here"),)),
        Trial("crash", crash),
        Trial("after the crash", say, ("fine too",)),
        Trial("leave", leave),
    ]
    return {found.name: found for found in run_trials(listed, 60)}


@pytest.mark.slow
def test_each_trial_gets_the_finding_of_its_own_attempt(findings: dict[str, Finding]) -> None:
    assert findings["good"] == Finding("good", "ok", "fine")
    assert findings["bad"] == Finding("bad", "missing", "ValueError: no good", "mend it")


@pytest.mark.slow
def test_an_error_of_the_project_speaks_for_itself(findings: dict[str, Finding]) -> None:
    assert (findings["known"].status, findings["known"].detail) == ("warn", "no GPU here")


@pytest.mark.slow
def test_a_crash_ends_only_its_own_trial(findings: dict[str, Finding]) -> None:
    assert (findings["crash"].status, findings["crash"].detail) == ("warn", "crashed the process: SIGSEGV")
    assert findings["after the crash"] == Finding("after the crash", "ok", "fine too")


@pytest.mark.slow
def test_a_trial_that_ends_its_process_says_with_which_code(findings: dict[str, Finding]) -> None:
    assert findings["leave"].detail == "ended the process, exit code 3"


@pytest.mark.slow
def test_a_trial_that_hangs_is_ended() -> None:
    began = time.monotonic()
    (found,) = run_trials([Trial("a", hang)], 1)
    assert found.detail == "gave no answer within 1 s"
    assert time.monotonic() - began < 60


def test_no_trials_start_no_process() -> None:
    assert run_trials([], 1) == []
