"""Waits between tries."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from prelabel.runtime.backoff import MAX_RETRY_AFTER_SECONDS, Backoff, retry_after


def test_waits_grow_up_to_the_longest() -> None:
    backoff = Backoff(first_seconds=0.2, factor=5.0, max_seconds=15.0, draw=lambda: 1.0)
    assert [backoff.seconds(failures) for failures in (1, 2, 3, 4, 5)] == [0.2, 1.0, 5.0, 15.0, 15.0]
    assert backoff.seconds(100_000) == 15.0


@pytest.mark.parametrize(
    ("jitter", "draw", "wait"), [(0.5, 0.0, 2.0), (0.5, 0.5, 3.0), (0.5, 1.0, 4.0), (0.0, 0.0, 4.0)]
)
def test_the_random_part_only_shortens_a_wait(jitter: float, draw: float, wait: float) -> None:
    assert Backoff(first_seconds=2.0, jitter=jitter, draw=lambda: draw).seconds(2) == wait


def test_a_server_can_ask_for_a_longer_wait_but_not_for_a_shorter_one() -> None:
    backoff = Backoff(first_seconds=2.0, draw=lambda: 1.0)
    assert backoff.seconds(1, retry_after_seconds=7.0) == 7.0
    assert backoff.seconds(1, retry_after_seconds=1.0) == 2.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0),
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"Retry-After": "86400"}, MAX_RETRY_AFTER_SECONDS),
        ({"Retry-After": "-5"}, 0.0),
        ({"Retry-After": "soon"}, 0.0),
        ({"Retry-After": "nan"}, 0.0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
    ],
)
def test_what_a_server_asks_for_is_read(headers: dict[str, str], seconds: float) -> None:
    assert retry_after(headers) == seconds


def test_a_server_can_name_the_time() -> None:
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 25 < retry_after({"Retry-After": at}) <= 30
