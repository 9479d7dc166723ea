"""Calls to Encord: what is tried again, and what the SDK's errors mean to a user."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from typing import TypeVar

from prelabel.errors import AccountError, OutageError, PrelabelError, RowTooLargeError, SaveError
from prelabel.runtime.redact import redact

Result = TypeVar("Result")

_LOG = logging.getLogger(__name__)
_US_DOMAIN = "https://api.us.encord.com"


@dataclass(frozen=True, slots=True)
class Retry:
    """How long to go on while the platform is in passing trouble, beyond what the SDK itself tries again.

    The SDK repeats refused connections and the statuses 413, 429, 500, 502 and 503 for about 9 s. It does not repeat
    504, answers that are cut or are not JSON, and the creation of rows.

    Attributes:
        waits_seconds: before each further try; each wait is drawn from half of this to all of it.
        outage_seconds: how long to wait for a platform that answers nothing at all.
        sleep: waits that many seconds.
        draw: returns a number from 0 to 1.
    """

    waits_seconds: tuple[float, ...] = (1.0, 4.0, 15.0, 45.0)
    outage_seconds: float = 1800.0
    sleep: Callable[[float], None] = time.sleep
    draw: Callable[[], float] = random.random

    def pauses(self) -> Iterator[float]:
        """Yields the seconds to wait before each further try.

        >>> list(Retry(waits_seconds=(1.0, 4.0), draw=lambda: 0.5).pauses())
        [0.75, 3.0]
        """
        for wait in self.waits_seconds:
            yield self._jittered(wait)

    def outage_pauses(self) -> Iterator[float]:
        """Yields the seconds to wait before each look whether the platform is back, while patience lasts."""
        waited = 0.0
        for longest in chain(self.waits_seconds, repeat(self.waits_seconds[-1])):
            if waited >= self.outage_seconds:
                return
            wait = self._jittered(longest)
            waited += wait
            yield wait

    def _jittered(self, wait: float) -> float:
        return wait * (0.5 + 0.5 * self.draw())


@dataclass(frozen=True, slots=True)
class Caller:
    """Makes calls of the SDK.

    Attributes:
        domain: the API's address, for messages.
        retry: how long to go on.
        look: looks, when a call failed, whether the platform still lets us work: returns, or raises AccountError or an
            error of the SDK; None: nobody looks.
    """

    domain: str
    retry: Retry
    look: Callable[[], None] | None = None

    def call(self, doing: str, function: Callable[[], Result], failure: type[PrelabelError]) -> Result:
        """Returns what `function` does, tried again while the trouble looks passing.

        Args:
            doing: what is being done, as an error begins: `clip.mp4: saving the labels`.
            function: does it; may be called several times, so a repeat must do no harm.
            failure: the error to raise. An error of our own passes through as it is.

        Raises:
            OutageError: the platform stayed away.
            AccountError: the platform does not take the key, or rests the project; else `failure`.
        """
        pauses, has_waited = self.retry.pauses(), False
        while True:
            try:
                return function()
            except PrelabelError:
                raise
            except Exception as error:  # the SDK raises bare Exception, too, for an answer that it cannot convert
                pause = next(pauses, None) if is_transient(error) else None
                explained = self._explained(doing, error, failure)
                wait = max(pause, _retry_after(error)) if pause is not None else None
            # What follows stands here and not above: the SDK's errors quote whole answers, and with them signed links,
            # so they must not hang on ours as context.
            if wait is not None:
                _LOG.info("%s; trying again in %.1f s", explained, wait, extra={"retry": "call"})
                self.retry.sleep(wait)
            elif not has_waited and self.was_away(doing):
                pauses, has_waited = self.retry.pauses(), True
            else:
                raise explained

    def was_away(self, doing: str) -> bool:
        """Waits while the platform answers nothing at all; tells whether it had to: else it is this call that fails.

        Raises:
            OutageError: it stays away.
            AccountError: no call would succeed.
        """
        pauses, was_away = self.retry.outage_pauses(), False
        while self.look is not None and (trouble := self._trouble(self.look)):
            pause = next(pauses, None)
            if pause is None:
                raise OutageError(f"{doing}: given up after {self.retry.outage_seconds / 60:.0f} minutes: {trouble}")
            _LOG.warning("%s: waiting for the platform: %s", doing, trouble)
            self.retry.sleep(pause)
            was_away = True
        return was_away

    def _trouble(self, look: Callable[[], None]) -> str:
        """Returns why the platform does not answer; empty if it does.

        Raises:
            AccountError: it answers that no call would succeed.
        """
        try:
            look()
        except PrelabelError:
            raise
        except Exception as error:
            explained = self._explained("looking whether the platform is there", error, AccountError)
            is_away = is_transient(error)
        else:
            return ""
        if is_away:
            return str(explained)
        raise explained

    def _explained(self, doing: str, error: Exception, failure: type[PrelabelError]) -> PrelabelError:
        from encord import exceptions as sdk

        if isinstance(error, key_errors()):
            failure = AccountError  # a key that is revoked: no other task could succeed
        elif isinstance(error, sdk.PayloadTooLargeError) and issubclass(failure, SaveError):
            failure = RowTooLargeError
        return failure(f"{doing}: {explain(error, self.domain)}")


def key_errors() -> tuple[type[Exception], ...]:
    """Returns the SDK's errors that say that the platform does not take the key."""
    from encord import exceptions as sdk

    return (sdk.AuthenticationError, sdk.SshKeyNotFound)


def is_transient(error: Exception) -> bool:
    """Tells whether the same call may succeed a little later."""
    from encord import exceptions as sdk

    return isinstance(
        error, sdk.RequestException | sdk.UnknownException | sdk.GenericServerError | sdk.RateLimitExceededError
    )


def explain(error: Exception, domain: str) -> str:
    """Returns what an error of the SDK means, with the next step where there is one; without links and keys."""
    from encord import exceptions as sdk

    said = redact(str(getattr(error, "message", error)))[:300]
    meanings: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
        (
            key_errors(),
            f"{domain} does not know this key: add its public half to the user or service account there, or name the "
            f"platform that the account is on: source.domain or ENCORD_DOMAIN (the US platform is {_US_DOMAIN})",
        ),
        (
            (sdk.AuthorisationError,),
            f"the key's user may not do this ({said}): have a project admin add the user, or raise its role",
        ),
        (
            (sdk.FeatureDoesNotExistError,),
            "a label is of an object that the project's ontology does not have: if the ontology has changed since this "
            "run began, start the run again",
        ),
        (
            (sdk.RateLimitExceededError,),
            "the platform's rate limit stayed passed over several tries: run fewer workers at a time",
        ),
        ((sdk.RequestException,), _explain_no_answer(error, domain)),
        ((sdk.EncordException,), f"the platform refused: {said} ({type(error).__name__})"),
    )
    for kinds, meaning in meanings:
        if isinstance(error, kinds):
            return meaning
    return f"the SDK could not read the platform's answer: {type(error).__name__}: {said}"


def _explain_no_answer(error: Exception, domain: str) -> str:
    if error.__cause__ is None:
        return f"the platform refused: {redact(str(error))[:300]}"
    if _is_connection_trouble(error.__cause__):
        return (
            f"no answer from {domain} ({type(error.__cause__).__name__}): check the address (source.domain or "
            "ENCORD_DOMAIN), the network and the proxy"
        )
    return f"the answer of {domain} is cut or not JSON; if none ever came whole, check that this is the API's address"


def is_never_connected(error: BaseException) -> bool:
    """Tells whether an SDK error means that no connection came about at all: a refused one, or an unknown host."""
    from urllib3.exceptions import MaxRetryError, NewConnectionError

    tried = error.__cause__.args[0] if error.__cause__ is not None and error.__cause__.args else None
    return isinstance(tried, MaxRetryError) and isinstance(tried.reason, NewConnectionError)


def _is_connection_trouble(cause: BaseException) -> bool:
    import requests

    return isinstance(cause, requests.RequestException) and not isinstance(cause, requests.JSONDecodeError)


def _retry_after(error: Exception) -> float:
    return float(getattr(error, "retry_after", None) or 0.0)
