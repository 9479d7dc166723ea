from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from prelabel.files.folder_source import FolderTask
from prelabel.run.finished import OnlyFailed, RetryBackoff
from prelabel.store.ledger import Entry

FAILED_AT = datetime(2026, 1, 1, 12, tzinfo=UTC)
TASK = FolderTask("a.mp4", "1:2", Path("a.mp4"))


def entry(step="failed", num_failures=1, key="a.mp4"):
    return Entry(key, "a.mp4", step, "f1", updated_at=FAILED_AT.isoformat(), num_failures=num_failures)


def is_due(minutes, found, fingerprint="f1"):
    now = FAILED_AT + timedelta(minutes=minutes)
    return RetryBackoff(timedelta(minutes=10), lambda: now)(TASK, found, fingerprint)


@pytest.mark.parametrize(("num_failures", "longest"), [(1, 10), (2, 20), (4, 80), (9, 24 * 60), (200, 24 * 60)])
def test_a_task_rests_longer_with_each_failure(num_failures, longest):
    assert not is_due(longest / 2 - 0.1, entry(num_failures=num_failures))
    assert is_due(longest, entry(num_failures=num_failures))


def test_what_did_not_fail_under_today_s_config_is_due():
    assert is_due(0, None)
    assert is_due(0, entry("labelled"))
    assert is_due(0, entry(), fingerprint="f2")


def test_tasks_that_failed_together_are_not_due_together():
    due = RetryBackoff(timedelta(minutes=10))
    assert len({due.wait(entry(key=str(number))) for number in range(20)}) == 20


def test_a_retry_takes_only_what_is_set_aside():
    assert OnlyFailed(frozenset({"a.mp4"}))(TASK, entry(), "f2")
    assert not OnlyFailed(frozenset({"a.mp4"}))(TASK, entry("done"), "f1")
    assert not OnlyFailed(frozenset({"b.mp4"}))(TASK, entry(), "f1")
    assert not OnlyFailed(frozenset({"a.mp4"}))(TASK, None, "f1")
