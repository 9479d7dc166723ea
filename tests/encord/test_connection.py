from __future__ import annotations

import logging

import pytest

from prelabel.encord.connection import connect
from prelabel.errors import AccountError
from prelabel.runtime.backoff import Backoff
from tests.encord_server import AGENT, MalformedJson, Status
from tests.encord_server.populated import Platform
from tests.encord_server.signing import KeyPair
from tests.reach import reach

pytestmark = pytest.mark.usefixtures("encord_environment")


def test_key_is_in_no_log_and_no_repr(platform: Platform, encord_key: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    project = reach(platform)
    list(project.agent_stage(AGENT).get_tasks())
    for line in encord_key.splitlines()[1:-1]:
        assert line not in caplog.text
        assert line not in repr(project)


def test_unknown_key_names_the_domain(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCORD_SSH_KEY", KeyPair.make().private_text)
    with pytest.raises(AccountError, match=r"does not know this key.*api\.us\.encord\.com"):
        reach(platform)


def test_unknown_and_closed_projects_are_told_apart_from_nothing(platform: Platform) -> None:
    with pytest.raises(AccountError, match="has no project 00000000"):
        connect("00000000-0000-4000-8000-000000000000", platform.server.url)
    platform.project.members = {"somebody@example.com"}
    with pytest.raises(AccountError, match="that this key's user may enter"):
        reach(platform)
    with pytest.raises(AccountError, match="expected a uuid"):
        connect("Roads", platform.server.url)


@pytest.mark.parametrize(
    ("domain", "said"),
    [
        ("api.encord.com", "expected an address such as https://"),
        ("https://app.us.encord.com", r"expected the API's: https://api\.us\.encord\.com"),
    ],
)
def test_wrong_domain_is_named_before_any_call(platform: Platform, domain: str, said: str) -> None:
    with pytest.raises(AccountError, match=said):
        connect(platform.project.uuid, domain)


def test_server_that_is_not_there_ends_soon(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("urllib3.util.retry.time.sleep", lambda seconds: None)  # the SDK's own 9 s
    with pytest.raises(AccountError, match=r"no answer from http://127\.0\.0\.1:9 .*check the address"):
        connect(platform.project.uuid, "http://127.0.0.1:9", backoff=Backoff(sleep=waits.append))
    assert waits == []


@pytest.mark.parametrize("status", ["paused", "archived"])
def test_project_that_rests_is_said(platform: Platform, status: str) -> None:
    platform.project.status = status
    with pytest.raises(AccountError, match=f"is {status}: resume it"):
        reach(platform)


@pytest.mark.parametrize("fault", [MalformedJson(), Status(504)], ids=["malformed", "504"])
def test_passing_trouble_is_waited_out(platform: Platform, fault: MalformedJson | Status) -> None:
    platform.server.faults.add("get_project", fault, times=2)
    assert reach(platform).title == "Road users"


def test_lasting_trouble_ends_after_jittered_waits(platform: Platform) -> None:
    platform.server.faults.add("get_ontology", Status(504), times=None)
    waits: list[float] = []
    backoff = Backoff(attempts=3, factor=4.0, sleep=waits.append, draw=lambda: 0.5)
    with pytest.raises(AccountError, match="the platform refused: injected by a test"):
        connect(platform.project.uuid, platform.server.url, backoff=backoff)
    assert waits == [0.75, 3.0]
