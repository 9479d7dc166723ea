from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from prelabel.encord.calls import Caller
from prelabel.encord.connection import connect
from prelabel.encord.project import EncordProject
from prelabel.errors import AccountError, OutageError, SaveError
from prelabel.runtime.backoff import Backoff
from prelabel.testing.encord_server import MalformedJson, Refusal, Status
from tests.encord_fixtures import Platform

pytestmark = pytest.mark.usefixtures("encord_environment")


def test_rate_limit_is_waited_for_as_long_as_it_says(platform: Platform) -> None:
    waits: list[float] = []
    caller = Caller(platform.server.url, Backoff(attempts=2, sleep=waits.append))
    row = platform.row()
    platform.server.faults.add("create_label_rows", Status(429, retry_after_seconds=7))
    caller.call("creating", row.initialise_labels, SaveError)
    assert waits == [7.0]


def test_error_quotes_no_link_and_no_answer(platform: Platform, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    row = platform.initialised_row()
    platform.server.faults.add("get_label_rows", MalformedJson(), times=None)
    caller = Caller(platform.server.url, Backoff(sleep=lambda seconds: None))

    def read() -> None:
        row.initialise_labels(overwrite=True, include_signed_url=True)

    with pytest.raises(SaveError, match="cut off or not JSON") as raised:
        caller.call("clip.mp4: reading", read, SaveError)
    assert "sig=" not in str(raised.value) + caplog.text
    assert raised.value.__context__ is None


def test_revoked_key_is_an_account_error_whatever_was_done(platform: Platform) -> None:
    platform.server.faults.add("save_label_rows", Refusal("AUTHENTICATION_ERROR"))
    row = platform.initialised_row()
    with pytest.raises(AccountError, match="does not know this key"):
        Caller(platform.server.url).call("saving", row.save, SaveError)


def looks_with(platform: Platform, waits: list[float], act: Callable[[], None] = lambda: None) -> EncordProject:
    """The platform's project; whoever waits for it acts, and has waited."""

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        act()

    backoff = Backoff(attempts=3, factor=4.0, max_seconds=4.0, sleep=sleep, draw=lambda: 1.0)
    return connect(platform.project.uuid, platform.server.url, backoff=backoff, outage_seconds=20.0)


def test_a_platform_that_is_away_is_waited_for(platform: Platform) -> None:
    waits: list[float] = []

    def come_back() -> None:
        if len(waits) == 5:
            platform.server.faults.clear()

    project = looks_with(platform, waits, come_back)
    platform.server.faults.add(lambda call: True, Status(504), times=None)
    assert project.ontology().title == "Roads"
    assert waits == [1.0, 4.0, 1.0, 4.0, 4.0]


def test_a_long_outage_of_the_platform_fails_no_task(platform: Platform) -> None:
    waits: list[float] = []
    project = looks_with(platform, waits)
    platform.server.faults.add(lambda call: True, Status(504), times=None)
    with pytest.raises(OutageError, match="saving: given up after 0 minutes: looking whether the platform is there"):
        project.caller.call("saving", lambda: project.label_rows([], "main"), SaveError)
    assert sum(waits[2:]) >= 20


def test_a_call_that_fails_on_its_own_is_not_waited_for(platform: Platform) -> None:
    waits: list[float] = []
    project = looks_with(platform, waits)
    platform.server.faults.add("list_label_rows", Status(504), times=None)
    with pytest.raises(SaveError, match="looking: the platform refused"):
        project.caller.call("looking", lambda: project.label_rows([], "main"), SaveError)
    assert waits == [1.0, 4.0]


def test_a_project_that_is_paused_meanwhile_is_said_and_no_task_s_failure(platform: Platform) -> None:
    project = looks_with(platform, [])
    platform.project.status = "paused"
    platform.server.faults.add("save_label_rows", Refusal("OPERATION_NOT_ALLOWED"))
    row = platform.initialised_row()
    with pytest.raises(AccountError, match="is paused: resume it"):
        project.caller.call("saving", row.save, SaveError)
