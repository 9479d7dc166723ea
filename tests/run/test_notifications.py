"""Which notifications start a pass, and what the others are answered."""

from __future__ import annotations

import time
from uuid import UUID, uuid4

import pytest
from encord_agents.core.webhooks import verify_and_parse_notification

from prelabel.run.serve import NotificationReader, RefusedNotification
from tests.signed import SECRET, notification, signed

PROJECT, STAGE = UUID(int=1), UUID(int=2)
NOW = 1_790_000_000.0


def refusal(body: bytes, headers: dict[str, str], reader: NotificationReader | None = None) -> RefusedNotification:
    with pytest.raises(RefusedNotification) as caught:
        (reader or NotificationReader(SECRET)).read(body, headers)
    return caught.value


def test_a_signed_notification_names_its_stage():
    body = notification(PROJECT, STAGE)
    assert NotificationReader(SECRET).read(body, signed(body)) == (PROJECT, STAGE)


def test_what_is_accepted_here_is_accepted_by_encord_agents():
    body = notification(PROJECT, STAGE)
    theirs = verify_and_parse_notification(body, signed(body), secret=SECRET)
    assert (theirs.project_hash, theirs.stage_uuid) == (PROJECT, STAGE)


def test_header_names_may_have_any_case():
    body = notification(PROJECT, STAGE)
    headers = {name.upper(): value for name, value in signed(body).items()}
    assert NotificationReader(SECRET).read(body, headers) is not None


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "is not signed"),
        ({"X-Encord-Signature": "00"}, "is not signed"),
        ({"X-Encord-Signature": "00", "X-Encord-Timestamp": "soon"}, "not in Unix seconds"),
        ({"X-Encord-Signature": "00", "X-Encord-Timestamp": "1_0"}, "not in Unix seconds"),
        ({"X-Encord-Signature": "é", "X-Encord-Timestamp": str(int(time.time()))}, "does not match"),
    ],
)
def test_a_request_without_a_good_signature_is_refused(headers: dict[str, str], reason: str):
    refused = refusal(notification(PROJECT, STAGE), headers)
    assert refused.status == 401
    assert reason in str(refused)


def test_another_secret_or_another_body_is_refused():
    body = notification(PROJECT, STAGE)
    assert refusal(body, signed(body, secret="another")).status == 401
    assert refusal(body + b" ", signed(body)).status == 401


@pytest.mark.parametrize("seconds_ago", [301, -301])
def test_a_timestamp_far_from_now_is_refused(seconds_ago: float):
    body, reader = notification(PROJECT, STAGE), NotificationReader(SECRET, now=lambda: NOW)
    assert "300 seconds" in str(refusal(body, signed(body, at=NOW - seconds_ago), reader))


@pytest.mark.parametrize("seconds_ago", [300, -300])
def test_a_clock_that_is_a_little_off_is_no_matter(seconds_ago: float):
    body, reader = notification(PROJECT, STAGE), NotificationReader(SECRET, now=lambda: NOW)
    assert reader.read(body, signed(body, at=NOW - seconds_ago)) is not None


def test_a_replay_is_refused_and_forgotten_once_its_timestamp_is_too_old():
    body, times = notification(PROJECT, STAGE), [NOW]
    reader, headers = NotificationReader(SECRET, now=lambda: times[0]), signed(body, at=NOW)
    reader.read(body, headers)
    assert refusal(body, headers, reader).status == 409
    times[0] += 700
    assert "300 seconds" in str(refusal(body, headers, reader))
    other = notification(PROJECT, STAGE)
    reader.read(other, signed(other, at=NOW + 700))
    assert len(reader._seen) == 1


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"", "the body"),
        (b"[]", "the body"),
        (b"{", "the body"),
        (b'{"event_type": "agent_stage_work_available_event"}', "version"),
        (notification(PROJECT, STAGE, payload=None), "payload"),
        (notification(PROJECT, STAGE, payload={"project_hash": "x"}), "payload.project_hash"),
    ],
)
def test_a_signed_body_that_cannot_be_read_is_refused_by_name(body: bytes, place: str):
    refused = refusal(body, signed(body))
    assert refused.status == 400
    assert place in str(refused)


def test_an_event_of_another_kind_is_no_work():
    body = notification(PROJECT, uuid4(), event_type="task_submitted_event", version=7, payload=None)
    assert NotificationReader(SECRET).read(body, signed(body)) is None


def test_a_later_version_is_refused():
    body = notification(PROJECT, STAGE, version=2)
    assert refusal(body, signed(body)).status == 501
