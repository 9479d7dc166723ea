from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from prelabel.cli import show as console


@pytest.fixture
def began() -> Iterator[Callable[[float], None]]:
    """Sets when the command began, in seconds from now."""
    before = console.COMMAND_BEGAN.set(time.monotonic())
    yield lambda seconds: console.COMMAND_BEGAN.set(time.monotonic() + seconds) and None
    console.COMMAND_BEGAN.reset(before)


def test_what_is_quick_says_nothing(began: Callable[[float], None], capsys: pytest.CaptureFixture[str]) -> None:
    began(60)
    with console.waiting("loading …"):
        pass
    assert capsys.readouterr().err == ""


def test_what_takes_long_says_so_once_the_command_was_quiet(
    began: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    began(-console.QUIET_SECONDS)
    said, deadline = "", time.monotonic() + 30
    with console.waiting("loading …"):
        while not said and time.monotonic() < deadline:
            said = capsys.readouterr().err
            time.sleep(0.01)
    assert said == "loading …\n"
