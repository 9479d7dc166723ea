"""Calls of a chat-completions endpoint: not more a minute than allowed, again while the service is busy or fails."""

from __future__ import annotations

import email.utils
import random
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from prelabel.errors import AccountError, ClassifyError
from prelabel.redact import redact

PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 1.0, 60.0
_CONNECT_SECONDS = 10.0


class ChatEndpoint:
    """`POST BASE/chat/completions`. May be called from several threads."""

    def __init__(
        self,
        base_url: str,
        key: str | None,
        *,
        attempts: int,
        timeout_seconds: float,
        requests_per_minute: float | None,
        num_workers: int,
    ) -> None:
        """Makes no call.

        Args:
            base_url: without `/chat/completions`.
            key: sent as a bearer token; None: none is sent.
            attempts: tries at each request.
            timeout_seconds: for an answer.
            requests_per_minute: at most; None: no limit of ours.
            num_workers: threads that will call.
        """
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._name = f"classifier 'openai': {urlsplit(base_url).hostname}"
        self._key = key or ""
        self._session = requests.Session()
        self._session.auth = self._sign  # else a .netrc would go before the key
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=num_workers))
        self._attempts, self._timeout_seconds = attempts, timeout_seconds
        self._gap_seconds = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._next_at = 0.0
        self._lock = threading.Lock()

    def complete(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the answer's JSON.

        Raises:
            AccountError: the service does not take the key, or has no such model: no other request could succeed.
            ClassifyError: it refused the request, or went on failing.
        """
        trouble = ""
        for attempt in range(1, self._attempts + 1):
            self._wait_for_turn()
            wait = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)
            try:
                response = self._session.post(
                    self._url,
                    json=request,
                    timeout=(_CONNECT_SECONDS, self._timeout_seconds),
                    allow_redirects=False,  # a bearer token is for one host
                )
                if response.status_code not in PASSING:
                    return self._content(response, request)
                trouble = f"{response.status_code}: {self._said(response)}"
                wait = _retry_after(response.headers, wait)
            except requests.RequestException as error:
                trouble = type(error).__name__
            if attempt < self._attempts:
                time.sleep(wait)
        raise ClassifyError(f"{self._name}: no answer after {self._attempts} tries: {trouble}")

    def _sign(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def _content(self, response: requests.Response, request: Mapping[str, Any]) -> dict[str, Any]:
        status = response.status_code
        if status in (401, 403):
            raise AccountError(
                f"{self._name}: does not take the key in OPENAI_API_KEY ({status}): {self._said(response)}"
            )
        if status == 404:
            raise AccountError(
                f"{self._name}: has no model {request['model']!r}, or is no such endpoint (404): {self._said(response)}"
            )
        if status != 200:
            raise ClassifyError(f"{self._name}: refused the request ({status}): {self._said(response)}")
        try:
            content = response.json()
        except ValueError as error:
            raise ClassifyError(f"{self._name}: answered what is not JSON") from error
        if not isinstance(content, dict):
            raise ClassifyError(f"{self._name}: answered a {type(content).__name__}, expected an object")
        return content

    def _said(self, response: requests.Response) -> str:
        """Returns what a service says of an error, cut, and without the key that some quote."""
        text = response.text
        with suppress(KeyError, TypeError, ValueError):
            text = str(response.json()["error"]["message"])
        return redact(" ".join((text.replace(self._key, "…") if self._key else text).split()))[:300]

    def _wait_for_turn(self) -> None:
        if not self._gap_seconds:
            return
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next_at)
            self._next_at = turn + self._gap_seconds
        time.sleep(turn - now)


def _retry_after(headers: Mapping[str, str], otherwise: float) -> float:
    """Returns the seconds that a service asks to wait, within reason; `otherwise` where it asks for none.

    >>> _retry_after({"retry-after": "2"}, 8.0), _retry_after({}, 8.0), _retry_after({"retry-after-ms": "250"}, 8.0)
    (2.0, 8.0, 0.25)
    """
    try:
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        else:
            seconds = float(headers["retry-after"])
    except KeyError:
        return otherwise
    except ValueError:
        try:
            at = email.utils.parsedate_to_datetime(headers["retry-after"])
        except (KeyError, ValueError):
            return otherwise
        seconds = (at - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), 2 * _LONGEST_WAIT_SECONDS)
