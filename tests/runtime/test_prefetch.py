from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable

import pytest

from prelabel.runtime.prefetch import map_ahead, one_ahead, prefetch, prefetch_each


def wait_until(holds: Callable[[], bool]) -> None:
    """Waits for what another thread does, at most as long as the test may take."""
    while not holds():
        time.sleep(0.01)


def test_items_keep_their_order():
    assert list(prefetch(iter(range(100)), max_items=3)) == list(range(100))


def test_an_error_reaches_the_consumer_after_what_came_before_it():
    def upstream():
        yield 1
        yield 2
        raise ValueError("frame 3 is broken")

    seen = []
    with pytest.raises(ValueError, match="frame 3"):
        seen.extend(prefetch(upstream(), max_items=8))
    stream = prefetch(upstream(), max_items=8)
    assert [next(stream), next(stream)] == [1, 2]
    with pytest.raises(ValueError, match="frame 3"):
        next(stream)


def test_a_slow_consumer_holds_the_producer_back():
    made, waiting = [], []

    def upstream():
        for number in range(20):
            made.append(number)
            yield number

    stream = prefetch(upstream(), max_items=2, tell_waiting=waiting.append)
    for wanted in [*range(4, 21), 20, 20, 20]:  # the one that was taken, two waiting, one in the producer's hand
        next(stream)
        while len(made) < wanted:
            time.sleep(0.001)
        assert len(made) == wanted
    assert list(stream) == []
    assert max(waiting) == 2


def test_waiting_bytes_are_bounded_but_one_large_item_passes():
    made, waiting = [], []

    def upstream():
        for size in (15, 14, 500, 13):
            made.append(size)
            yield size

    bounds = {"max_items": 100, "max_bytes": 20, "num_bytes": lambda size: size}
    stream = prefetch(upstream(), **bounds, tell_waiting=waiting.append)
    assert next(stream) == 15
    wait_until(lambda: made == [15, 14, 500])
    assert list(stream) == [14, 500, 13]
    assert max(waiting) == 1


def test_what_counts_as_no_item_waits_beside_the_others():
    made, waiting = [], []

    def upstream():
        for item in (1, "end", "begin", 2, 3):
            made.append(item)
            yield item

    count = {"max_items": 2, "num_items": lambda item: int(isinstance(item, int))}
    stream = prefetch(upstream(), **count, tell_waiting=waiting.append)
    assert next(stream) == 1
    wait_until(lambda: waiting[-1] == 2)
    assert made == [1, "end", "begin", 2, 3]
    assert max(waiting) == 2
    assert list(stream) == ["end", "begin", 2, 3]


def test_leaving_early_closes_upstream_on_its_thread_and_leaves_none_behind():
    closed_on = []

    def upstream():
        try:
            while True:
                yield 0
        finally:
            closed_on.append(threading.current_thread().name)

    before = set(threading.enumerate())
    stream = prefetch(upstream(), max_items=2, name="decode")
    next(stream)
    stream.close()
    assert closed_on == ["decode"]
    assert not set(threading.enumerate()) - before


def test_nothing_starts_before_the_first_item_is_asked_for():
    before = set(threading.enumerate())
    stream = prefetch(iter([1]), max_items=1)
    assert not set(threading.enumerate()) - before
    stream.close()


def test_stages_chain_and_close_from_the_far_end():
    def numbers():
        yield from range(1000)

    first = prefetch(numbers(), max_items=1)
    second = prefetch((n * 2 for n in first), max_items=1)
    before = set(threading.enumerate())
    assert [next(second) for _ in range(3)] == [0, 2, 4]
    second.close()
    first.close()
    assert not set(threading.enumerate()) - before


def test_items_are_not_kept_alive_by_the_queue():
    import weakref

    class Frame:
        pass

    def upstream():
        for _ in range(3):
            yield Frame()

    stream = prefetch(upstream(), max_items=1)
    frame = next(stream)
    seen = weakref.ref(frame)
    next(stream)
    next(stream)
    del frame
    assert seen() is None
    stream.close()


def test_the_next_one_is_made_while_the_last_is_in_use_and_no_more():
    made, is_made = [], [threading.Event() for _ in range(4)]

    def make():
        number = len(made)
        made.append(number)
        is_made[number].set()
        return number if number < 3 else None

    for number in one_ahead(make, made.remove):
        assert is_made[number + 1].wait(50)
        assert made == list(range(number + 2))


def test_what_was_made_ahead_and_not_taken_is_dropped():
    numbers, dropped = itertools.count(), []
    stream = one_ahead(lambda: next(numbers), dropped.append)
    assert [next(stream), next(stream)] == [0, 1]
    stream.close()
    assert dropped == [2]


def test_an_error_in_making_comes_in_its_turn():
    numbers = iter([1, 2])

    def make():
        number = next(numbers, None)
        if number is None:
            raise ValueError("no more")
        return number

    taken = []
    with pytest.raises(ValueError, match="no more"):
        taken.extend(number for number in one_ahead(make, taken.remove))
    assert taken == [1, 2]


def test_streams_on_threads_of_their_own_begin_at_once_and_end_when_left():
    together = threading.Barrier(3, timeout=50)  # breaks unless three streams meet

    def stream(number):
        together.wait()
        yield from [number] * 3
        if number == 1:
            raise ValueError("number 1")

    before = set(threading.enumerate())
    with prefetch_each([stream(number) for number in range(3)]) as streams:
        assert list(streams[2]) == [2, 2, 2]
        assert [next(streams[1]) for _ in range(3)] == [1, 1, 1]
        with pytest.raises(ValueError, match="number 1"):
            next(streams[1])
    assert not set(threading.enumerate()) - before


def test_several_workers_wait_at_the_same_time():
    together = threading.Barrier(3, timeout=30)  # breaks unless three calls meet

    def meet(number):
        together.wait()
        return number

    assert sorted(map_ahead(meet, range(6), num_workers=3)) == list(range(6))


def test_a_result_that_is_ready_first_is_handed_on_first():
    """Else one that waits for what the ready one holds would wait for ever."""
    given_back = threading.Event()

    def take(number):
        return number if number else given_back.wait(30)

    stream = map_ahead(take, range(2), num_workers=2)
    assert next(stream) == 1
    given_back.set()
    assert list(stream) == [True]


def test_items_are_read_only_as_far_as_there_are_workers():
    read = []

    def items():
        for number in range(100):
            read.append(number)
            yield number

    stream = map_ahead(abs, items(), num_workers=4)
    next(stream)
    assert len(read) == 4
    stream.close()


def test_an_error_of_a_worker_is_raised_and_no_thread_is_left():
    before = set(threading.enumerate())
    with pytest.raises(ZeroDivisionError):
        list(map_ahead(lambda number: 1 // number, [1, 2, 0, 3], num_workers=2))
    assert not set(threading.enumerate()) - before


def test_one_worker_keeps_order_and_makes_no_thread():
    names = set()
    assert list(map_ahead(lambda n: names.add(threading.current_thread().name) or n, range(5), num_workers=1)) == [
        *range(5)
    ]
    assert names == {threading.main_thread().name}
