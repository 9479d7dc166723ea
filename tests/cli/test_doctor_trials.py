from __future__ import annotations

import os
import signal
import time

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


def test_each_trial_gets_the_finding_of_its_own_attempt() -> None:
    listed = [
        Trial("a", say, ("fine",)),
        Trial("b", fail, (ValueError("no\n good"),), "missing", "mend it"),
        Trial("c", say, ("too",)),
    ]
    assert run_trials(listed, 60) == [
        Finding("a", "ok", "fine"),
        Finding("b", "missing", "ValueError: no good", "mend it"),
        Finding("c", "ok", "too"),
    ]


def test_an_error_of_the_project_speaks_for_itself() -> None:
    (found,) = run_trials([Trial("a", fail, (MachineError("no GPU here"),))], 60)
    assert (found.status, found.detail) == ("warn", "no GPU here")


def test_a_crash_ends_only_its_own_trial() -> None:
    findings = run_trials([Trial("a", say, ("before",)), Trial("b", crash), Trial("c", say, ("after",))], 60)
    assert [found.status for found in findings] == ["ok", "warn", "ok"]
    assert findings[1].detail == "crashed the process: SIGSEGV"


def test_a_trial_that_hangs_is_ended() -> None:
    began = time.monotonic()
    (found,) = run_trials([Trial("a", hang)], 1)
    assert found.detail == "gave no answer within 1 s"
    assert time.monotonic() - began < 60


def test_a_trial_that_ends_its_process_says_with_which_code() -> None:
    (found,) = run_trials([Trial("a", leave)], 60)
    assert found.detail == "ended the process, exit code 3"


def test_no_trials_start_no_process() -> None:
    assert run_trials([], 1) == []
