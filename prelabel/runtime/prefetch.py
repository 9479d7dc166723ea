"""Runs an iterable on a thread, so that it works at the same time as its consumer.

`prefetch` does this for one iterable and `prefetch_each` for several. `one_ahead` makes one value ahead, which may need
closing. `map_ahead` is for work that mostly waits, such as downloads.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from typing import Generic, TypeVar

SIGNAL_SECONDS = 0.5
"""How often a waiting consumer wakes. Python runs signal handlers only while the main thread is awake."""
Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch(
    upstream: Iterable[Item],
    *,
    max_items: int,
    max_bytes: int | None = None,
    num_bytes: Callable[[Item], int] = lambda _: 0,
    num_items: Callable[[Item], int] = lambda _: 1,
    name: str = "prefetch",
    tell_waiting: Callable[[int], None] = lambda _: None,
) -> Generator[Item, None, None]:
    """Yields the items of `upstream` in order while a thread makes the next ones.

    The first request for an item starts the thread. An error of `upstream` is raised here, after the items before it.
    Closing this generator, or an error in its consumer, closes `upstream` on the thread and waits for the thread.

    Args:
        upstream: iterated and closed on the thread.
        max_items: most items in the queue.
        max_bytes: most bytes in the queue; a single item may be larger.
        num_bytes: returns an item's bytes.
        num_items: returns how many items an item counts as; one that counts as 0 always has room.
        name: of the thread.
        tell_waiting: called with the number of queued items whenever it changes, on either thread; must be quick.
    """
    queue: _BoundedQueue[Item] = _BoundedQueue(max_items, max_bytes, num_bytes, num_items, tell_waiting)
    thread = threading.Thread(target=queue.fill, args=(upstream,), name=name, daemon=True)
    thread.start()
    try:
        yield from queue.drain()
    except KeyboardInterrupt:  # the third Ctrl-C: do not wait for the thread, since it is a daemon
        queue.stop()
        raise
    except BaseException:
        queue.stop()
        thread.join()
        raise
    thread.join()


def one_ahead(
    make: Callable[[], Item | None], drop: Callable[[Item], None], *, name: str = "ahead"
) -> Generator[Item, None, None]:
    """Yields the values of `make` until it returns None; a thread makes the next value meanwhile.

    An error of `make` is raised in place of its value. Closing this generator waits for the value that is being made.

    Args:
        make: called on threads, one call at a time.
        drop: called with the last value if it was made but not taken.
        name: of the threads.
    """
    upcoming, thread = _on_thread(make, name)
    try:
        while (made := upcoming.result()) is not None:
            upcoming, thread = _on_thread(make, name)
            yield made
            del made
    finally:
        with suppress(Exception):  # already raised, or no longer needed
            left = upcoming.result()
            if left is not None:
                drop(left)
        thread.join()


def _on_thread(make: Callable[[], Result], name: str) -> tuple[Future[Result], threading.Thread]:
    future: Future[Result] = Future()

    def work() -> None:
        try:
            future.set_result(make())
        except BaseException as error:  # raised in the consumer
            future.set_exception(error)

    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    return future, thread


@contextmanager
def prefetch_each(upstreams: Sequence[Iterable[Item]], *, name: str = "prefetch") -> Iterator[list[Iterator[Item]]]:
    """Yields an iterator for each upstream, while a thread for each makes its next items.

    All threads start at once. An error of an upstream is raised by its iterator, after the items before it. Leaving the
    context closes the upstreams on their threads and waits for them. First wake any upstream that waits for something.

    Args:
        upstreams: iterated and closed on the threads; each must bound the items that it makes ahead.
        name: of the threads.
    """
    queues: list[_BoundedQueue[Item]] = [
        _BoundedQueue(sys.maxsize, None, lambda _: 0, lambda _: 1, lambda _: None) for _ in upstreams
    ]
    threads = [
        threading.Thread(target=queue.fill, args=(upstream,), name=f"{name} {number}", daemon=True)
        for number, (queue, upstream) in enumerate(zip(queues, upstreams, strict=True))
    ]
    for thread in threads:
        thread.start()
    try:
        yield [queue.drain() for queue in queues]
    finally:
        for queue in queues:
            queue.stop()
        for thread in threads:
            thread.join()


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, num_workers: int, name: str = "map"
) -> Generator[Result, None, None]:
    """Yields the result of `function` for each item, as results become ready.

    `items` is read on the caller's thread, only as far as workers are free. With one worker, `function` runs on that
    thread too, in order. An error of `function` is raised here. Closing this generator waits for calls in progress.

    Args:
        function: called from several threads at once.
        items: its arguments.
        num_workers: most calls in progress and results not yet taken.
        name: of the threads.
    """
    if num_workers == 1:
        yield from map(function, items)
        return
    begun: set[Future[Result]] = set()
    with ThreadPoolExecutor(num_workers, thread_name_prefix=name) as workers:
        try:
            for item in items:
                begun.add(workers.submit(function, item))
                if len(begun) == num_workers:
                    yield from _ready(begun)
            while begun:
                yield from _ready(begun)
        finally:
            for future in begun:
                future.cancel()


def _ready(begun: set[Future[Result]]) -> Iterator[Result]:
    """Waits until a call is done; removes and yields all results that are ready."""
    ready, _ = wait(begun, return_when=FIRST_COMPLETED)
    begun -= ready
    while ready:
        yield ready.pop().result()


class _BoundedQueue(Generic[Item]):
    """A queue between two threads that limits its producer, passes on its error, and can be stopped."""

    def __init__(
        self,
        max_items: int,
        max_bytes: int | None,
        num_bytes: Callable[[Item], int],
        num_items: Callable[[Item], int],
        tell_waiting: Callable[[int], None],
    ) -> None:
        self._changed = threading.Condition()
        self._items: deque[Item] = deque()
        self._bytes = self._count = 0
        self._max_items, self._max_bytes = max_items, max_bytes
        self._num_bytes, self._num_items = num_bytes, num_items
        self._tell_waiting = tell_waiting
        self._error: BaseException | None = None
        self._ended = False
        self._stopped = False

    def fill(self, upstream: Iterable[Item]) -> None:
        try:
            iterator = iter(upstream)
            with _closing(iterator):
                for item in iterator:
                    if not self._put(item):
                        return
                    del item  # otherwise this thread keeps frames alive that the consumer has dropped
        except BaseException as error:  # raised in the consumer
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def drain(self) -> Iterator[Item]:
        while True:
            with self._changed:
                while not self._items and not self._ended:
                    self._changed.wait(SIGNAL_SECONDS)
                if not self._items:
                    break
                item = self._items.popleft()
                self._bytes -= self._num_bytes(item)
                self._count -= self._num_items(item)
                self._tell_waiting(self._count)
                self._changed.notify_all()
            yield item
            del item
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._items.clear()
            self._tell_waiting(0)
            self._changed.notify_all()

    def _put(self, item: Item) -> bool:
        size, count = self._num_bytes(item), self._num_items(item)
        with self._changed:
            while not self._stopped and not self._has_room(size, count):
                self._changed.wait()
            if self._stopped:
                return False
            self._items.append(item)
            self._bytes += size
            self._count += count
            self._tell_waiting(self._count)
            self._changed.notify_all()
            return True

    def _has_room(self, size: int, count: int) -> bool:
        if not self._count or not count:
            return True
        fits = self._max_bytes is None or self._bytes + size <= self._max_bytes
        return fits and self._count + count <= self._max_items


@contextmanager
def _closing(iterator: Iterator[Item]) -> Iterator[None]:
    try:
        yield
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()
