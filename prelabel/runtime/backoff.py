"""The waits between retries of a failed call."""

from __future__ import annotations

import email.utils
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

MAX_RETRY_AFTER_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits that grow with each consecutive failure. A random part spreads the retries of several workers.

    The random part is "equal jitter" of https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter.

    Attributes:
        attempts: most attempts, including the first.
        first_seconds: wait after the first failure.
        factor: ratio of one wait to the previous one.
        max_seconds: longest wait.
        jitter: random share of each wait, 0 to 1.
        draw: returns a random number from 0 to 1; 1 gives the longest wait.
        sleep: waits for a number of seconds.
    """

    attempts: int = 5
    first_seconds: float = 1.0
    factor: float = 2.0
    max_seconds: float = 60.0
    jitter: float = 0.5
    draw: Callable[[], float] = random.random
    sleep: Callable[[float], None] = time.sleep

    def seconds(self, failures: int, retry_after_seconds: float = 0.0) -> float:
        """Returns the wait after a number of consecutive failures, and at least `retry_after_seconds`.

        >>> backoff = Backoff(first_seconds=1.0, factor=4.0, max_seconds=45.0, draw=lambda: 1.0)
        >>> [backoff.seconds(failures) for failures in (1, 2, 3, 4)]
        [1.0, 4.0, 16.0, 45.0]
        >>> backoff.seconds(1, retry_after_seconds=7.0)
        7.0
        """
        exponent = min(failures - 1, 100)  # avoids an overflow; `max_seconds` is reached long before
        longest = min(self.max_seconds, self.first_seconds * self.factor**exponent)
        return max(longest * (1 - self.jitter + self.jitter * self.draw()), retry_after_seconds)


def retry_after(headers: Mapping[str, str]) -> float:
    """Returns the seconds that a server asks to wait, at most 120; 0 if it does not ask.

    `Retry-After` holds seconds or a date (RFC 9110, 10.2.3). OpenAI also sends `retry-after-ms`.

    >>> retry_after({"Retry-After": "2"}), retry_after({"retry-after-ms": "250"}), retry_after({})
    (2.0, 0.25, 0.0)
    """
    asked = {name.lower(): value for name, value in headers.items() if name.lower().startswith("retry-after")}
    try:
        if "retry-after-ms" in asked:
            seconds = float(asked["retry-after-ms"]) / 1000
        else:
            seconds = _seconds_or_date(asked.get("retry-after", "0"))
    except ValueError:
        return 0.0
    return min(seconds, MAX_RETRY_AFTER_SECONDS) if seconds > 0 else 0.0  # comparisons with "nan" are False


def _seconds_or_date(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return (email.utils.parsedate_to_datetime(value).astimezone(UTC) - datetime.now(UTC)).total_seconds()
