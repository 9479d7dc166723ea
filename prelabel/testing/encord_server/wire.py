"""Requests, answers, and the API's two forms of refusal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from typing import Any


@dataclass(frozen=True)
class Request:
    """One HTTP request, read whole; `target` is path and query exactly as sent, since v2 signs that text."""

    method: str
    target: str
    path: str
    query: Mapping[str, list[str]]
    headers: Message  # found by name in any case
    body: bytes

    def json(self) -> Any:
        """The body as JSON; `null` where there is none.

        Raises:
            ValueError: The body is not JSON. NaN and Infinity, which Python's `json` writes, are not.
        """
        return json.loads(self.body, parse_constant=_refuse_constant) if self.body else None

    def first(self, name: str) -> str | None:
        return self.query.get(name, [None])[0]

    def flag(self, name: str) -> bool:
        return self.first(name) == "True"


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


@dataclass
class Answer:
    """One HTTP answer. A `body` that ends before `length` bytes cuts the connection where it ends."""

    status: int
    body: Iterable[bytes]
    length: int
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    error: str | None = None  # an envelope's error name, for the call log
    count: Callable[[int], None] | None = None  # told the size of each chunk, right before it is sent

    @classmethod
    def of_json(cls, value: object, status: int = 200, **rest: Any) -> Answer:
        return cls.of_bytes(json.dumps(value).encode(), status, "application/json", **rest)

    @classmethod
    def of_bytes(cls, content: bytes, status: int, content_type: str, **rest: Any) -> Answer:
        return cls(status, [content], len(content), content_type, **rest)


class ConnectionCutError(Exception):
    """Raised by an answer's body, or instead of an answer: the connection is reset at this point."""


class ApiError(Exception):
    """A v2 refusal: a real HTTP status with a message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class EnvelopeError(Exception):
    """A legacy refusal: HTTP 200 with an error name inside."""

    def __init__(self, name: str, payload: object = None, status: int = 400) -> None:
        super().__init__(name)
        self.name = name
        self.payload = payload
        self.status = status

    def as_answer(self) -> Answer:
        envelope = {"status": self.status, "response": [self.name], "payload": self.payload}
        return Answer.of_json(envelope, error=self.name)
