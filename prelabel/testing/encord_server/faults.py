"""Faults to inject: which calls they match, what happens to these, how many times.

    server.faults.add("save_label_rows", Status(503))               # refused once; the SDK tries again at once
    server.faults.add("act_on_tasks", LostAnswer(carried_out=True)) # the task moves, the caller cannot know
    server.faults.add(download_of(clip.item), Truncated(1000), times=None)  # every time
    server.faults.add(lambda call: "Annotate" in call.summary, Delay(2.0), skip=3)
    server.faults.add(lambda call: True, Delay(0.2), times=None, rate=0.1)  # on a tenth of all answers

A match is an operation's name, as in `Call.operation`, or a function of the call. An action is any callable like those
below.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from .records import StorageItem
from .wire import Answer, ConnectionCutError, EnvelopeError

CarryOut = Callable[[], Answer]


@dataclass
class Call:
    """One request and its outcome."""

    operation: str
    method: str
    path: str
    query: dict[str, list[str]]
    summary: str  # the beginning of the body
    user: str | None = None
    status: int | None = None  # None: the connection was reset before an answer
    error: str | None = None  # the error name in a legacy envelope


Match = str | Callable[[Call], bool]


Action = Callable[[CarryOut, threading.Event], Answer]
"""Returns the answer to send in place of that of the function that it gets, which carries the request out.

If it does not call that function, the world stays as it is, and not even the signature is checked. It runs on the
connection's thread. It may wait for the event, which is set when the server closes. It may raise `ConnectionCutError`,
which resets the connection instead of answering.
"""


@dataclass
class _Fault:
    fits: Callable[[Call], bool]
    action: Action
    times: int | None
    skip: int
    rate: float


@dataclass
class Faults:
    """The faults that wait. A call uses up the first that matches it."""

    draw: random.Random = field(default_factory=lambda: random.Random(1))
    _waiting: list[_Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, match: Match, action: Action, *, times: int | None = 1, skip: int = 0, rate: float = 1.0) -> None:
        """Applies `action` to the next `times` calls that match, after the first `skip` of them; None: to all.

        With a rate below 1, `draw` chooses the calls, so its seed repeats the choice.
        """
        fits = match if callable(match) else lambda call: call.operation == match
        with self._lock:
            self._waiting.append(_Fault(fits, action, times, skip, rate))

    def clear(self) -> None:
        with self._lock:
            self._waiting.clear()

    def take(self, call: Call) -> Action | None:
        with self._lock:
            fault = next((fault for fault in self._waiting if fault.fits(call)), None)
            if fault is None:
                return None
            if fault.skip > 0:
                fault.skip -= 1
                return None
            if self.draw.random() >= fault.rate:
                return None
            if fault.times is not None:
                fault.times -= 1
                if fault.times == 0:
                    self._waiting.remove(fault)
            return fault.action


def download_of(item: StorageItem) -> Match:
    """Matches the downloads of one file."""
    return lambda call: call.operation == "download" and call.path.endswith(item.uuid)


@dataclass(frozen=True)
class Status:
    """An HTTP status from the infrastructure in front of the API; the request is not carried out."""

    status: int
    retry_after_seconds: int | None = None
    message: str = "injected by a test"

    def __call__(self, carry_out: CarryOut, stopping: threading.Event) -> Answer:
        wait = self.retry_after_seconds
        headers = {} if wait is None else {"Retry-After": str(wait)}
        return Answer.of_json({"message": self.message}, self.status, headers=headers)


@dataclass(frozen=True)
class Refusal:
    """An error name in a 200 envelope; the request is not carried out."""

    name: str
    payload: str | None = None

    def __call__(self, carry_out: CarryOut, stopping: threading.Event) -> Answer:
        return EnvelopeError(self.name, self.payload).as_answer()


@dataclass(frozen=True)
class MalformedJson:
    """The first half of the answer, sent as if it were whole."""

    def __call__(self, carry_out: CarryOut, stopping: threading.Event) -> Answer:
        answer = carry_out()
        return Shortened(answer.length // 2)(lambda: answer, stopping)


@dataclass(frozen=True)
class LostAnswer:
    """The connection is reset before the answer, after the request was carried out or instead of it."""

    carried_out: bool

    def __call__(self, carry_out: CarryOut, stopping: threading.Event) -> Answer:
        if self.carried_out:
            carry_out()
        raise ConnectionCutError


@dataclass(frozen=True)
class ResetInsideBody:
    """The connection is reset after some bytes of the body."""

    after_bytes: int

    def __call__(self, carry_out: CarryOut, stopping: threading.Event) -> Answer:
        answer = carry_out()
        return replace(answer, body=self._cut(answer))

    def _cut(self, answer: Answer) -> Iterator[bytes]:
        yield from _first(answer, self.after_bytes)
        raise ConnectionCutError


@dataclass(frozen=True)
class Truncated:
    """The connection is closed in good order before the body is whole."""

    after_bytes: int

    def __call__(self, carry_out: CarryOut, stopping: threading.Event) -> Answer:
        answer = carry_out()
        return replace(answer, body=_first(answer, self.after_bytes))


@dataclass(frozen=True)
class Shortened:
    """A body that is too short and says that it is whole: only a known size shows it."""

    num_bytes: int

    def __call__(self, carry_out: CarryOut, stopping: threading.Event) -> Answer:
        answer = carry_out()
        return replace(answer, body=_first(answer, self.num_bytes), length=min(self.num_bytes, answer.length))


@dataclass(frozen=True)
class WrongBytes:
    """A body of the right length whose bytes are inverted from `offset` on."""

    offset: int = 0

    def __call__(self, carry_out: CarryOut, stopping: threading.Event) -> Answer:
        return replace(answer := carry_out(), body=self._inverted(answer))

    def _inverted(self, answer: Answer) -> Iterator[bytes]:
        position = 0
        for chunk in answer.body:
            kept = max(0, min(len(chunk), self.offset - position))
            position += len(chunk)
            yield chunk[:kept] + bytes(255 - byte for byte in chunk[kept:])


@dataclass(frozen=True)
class Trickle:
    """The body comes at this rate, in ten portions a second."""

    bytes_per_second: int

    def __call__(self, carry_out: CarryOut, stopping: threading.Event) -> Answer:
        return replace(answer := carry_out(), body=self._slowly(answer, stopping))

    def _slowly(self, answer: Answer, stopping: threading.Event) -> Iterator[bytes]:
        portion = max(1, self.bytes_per_second // 10)
        for chunk in answer.body:
            for start in range(0, len(chunk), portion):
                if stopping.wait(0.1):
                    return
                yield chunk[start : start + portion]


@dataclass(frozen=True)
class Delay:
    """The request is carried out, and answered, only after this time."""

    seconds: float

    def __call__(self, carry_out: CarryOut, stopping: threading.Event) -> Answer:
        if stopping.wait(self.seconds):
            raise ConnectionCutError
        return carry_out()


def _first(answer: Answer, num_bytes: int) -> Iterator[bytes]:
    left = num_bytes
    for chunk in answer.body:
        if left <= 0:
            return
        yield chunk[:left]
        left -= len(chunk)
