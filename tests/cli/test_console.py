from __future__ import annotations

import time

import pytest

from prelabel.cli import console


def test_what_is_quick_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with console.waiting("loading …"):
        pass
    assert capsys.readouterr().err == ""


def test_what_takes_long_says_so_once_the_command_was_quiet(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    token = console.COMMAND_BEGAN.set(time.monotonic() - console.QUIET_SECONDS)
    try:
        with console.waiting("loading …"):
            deadline = time.monotonic() + 30
            said = ""
            while not said and time.monotonic() < deadline:
                said = capsys.readouterr().err
                time.sleep(0.01)
    finally:
        console.COMMAND_BEGAN.reset(token)
    assert said == "loading …\n"
