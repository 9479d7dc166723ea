from __future__ import annotations

import pytest

from prelabel.run.passes import WatchProgress
from prelabel.runtime.progress import NullProgress


class Noting(NullProgress):
    """Notes what it is told: events with their task, and the tasks that begin."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def begin(self, title, num_frames, task_id="", worker=""):
        self.told.append(("begin", title))

    def event(self, name, **values):
        self.told.append((name, *(values[key] for key in ("task_id", "tasks") if key in values)))


@pytest.fixture
def watch() -> WatchProgress:
    return WatchProgress()


MOVED = ("task_skipped", "b", "moved on")
"""A task that somebody has moved; a task that was done before is skipped without a reason."""


def tell(watch: WatchProgress, *events: tuple[str, ...]) -> list[tuple[object, ...]]:
    """Tells a pass in which these events happen to these tasks; returns what was told of it."""
    noting = Noting()
    watch.begin_pass(noting)
    watch.event("run_started", tasks=9)
    for name, task, *reason in events:
        watch.event(name, task_id=task, reason=reason[0] if reason else None)
    return noting.told


def test_the_first_pass_is_told_whole(watch):
    events = [("task_skipped", "a"), ("warning", "a"), MOVED, ("task_done", "c")]
    assert tell(watch, *events) == [("run_started", 9), *(event[:2] for event in events)]


def test_a_later_pass_tells_what_is_new_and_that_it_began(watch):
    tell(watch, ("task_skipped", "a"), MOVED, ("task_done", "c"))
    old = [("task_skipped", "a"), ("warning", "a"), MOVED, ("task_skipped", "c")]
    assert tell(watch, *old) == []
    assert tell(watch, *old, ("task_done", "d")) == [("run_started", None), ("task_done", "d")]
    assert tell(watch, *old, ("task_skipped", "d")) == []


def test_a_task_that_is_skipped_for_another_reason_is_told_again(watch):
    tell(watch, MOVED)
    done = [("task_skipped", "b"), ("warning", "b")]
    assert tell(watch, *done)[1:] == done
    assert tell(watch, MOVED)[1:] == [MOVED[:2]]


def test_a_task_that_begins_is_told_after_the_start(watch):
    tell(watch)
    noting = Noting()
    watch.begin_pass(noting)
    watch.event("run_started", tasks=9)
    watch.event("stopping", message="soon")
    watch.begin("a.mp4", 10)
    assert noting.told == [("stopping",), ("run_started", None), ("begin", "a.mp4")]
