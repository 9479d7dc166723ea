"""Calls Encord's SDK: repeats calls that may succeed later, and explains the SDK's errors to the user."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from prelabel.errors import AccountError, OutageError, PrelabelError, RowTooLargeError, SaveError
from prelabel.runtime.backoff import Backoff
from prelabel.runtime.redact import redact

Result = TypeVar("Result")

_LOG = logging.getLogger(__name__)
_US_DOMAIN = "https://api.us.encord.com"


# The SDK (0.1.211) itself repeats a call for about 9 s if the connection is refused, and for the statuses 413, 429,
# 500, 502 and 503. It does not repeat it for 504, or if the answer is cut off or is not JSON. It never repeats the
# creation of rows.
CALL_BACKOFF = Backoff(attempts=5, first_seconds=1.0, factor=4.0, max_seconds=45.0)
OUTAGE_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class Caller:
    """Makes calls of the SDK.

    Attributes:
        domain: the API's address, for messages.
        backoff: how often to repeat a call, in addition to the SDK's own repeats.
        outage_seconds: how long to wait for a platform that does not answer any call.
        look: called after a failed call, to check whether any call can succeed. It returns, or it raises an
            `AccountError` or an error of the SDK. None for no such check.
    """

    domain: str
    backoff: Backoff = CALL_BACKOFF
    outage_seconds: float = OUTAGE_SECONDS
    look: Callable[[], None] | None = None

    def call(self, doing: str, function: Callable[[], Result], failure: type[PrelabelError]) -> Result:
        """Returns the result of `function`; repeats it after transient errors.

        Args:
            doing: the start of an error message, such as `clip.mp4: saving the labels`.
            function: makes the call. It must be safe to repeat, because the first call may have succeeded although its
                answer was lost.
            failure: the error to raise for all other errors. A `PrelabelError` is raised unchanged.

        Raises:
            OutageError: the platform does not answer any call.
            AccountError: the platform does not accept the key, or the project is closed.
        """
        failures, has_waited = 0, False
        while True:
            try:
                return function()
            except PrelabelError:
                raise
            except Exception as error:  # the SDK also raises a bare Exception, for an answer that it cannot convert
                failures += 1
                explained = self._explained(doing, error, failure)
                is_last = failures >= self.backoff.attempts or not is_transient(error)
                asked_seconds = float(getattr(error, "retry_after", None) or 0.0)
            # This is outside of `except`, so that the SDK's error is not the context of ours. The SDK's error quotes
            # whole answers, which may contain signed links.
            if not is_last:
                wait = self.backoff.seconds(failures, asked_seconds)
                _LOG.info("%s; trying again in %.1f s", explained, wait, extra={"retry": "call"})
                self.backoff.sleep(wait)
            elif not has_waited and self.was_away(doing):
                failures, has_waited = 0, True
            else:
                raise explained

    def was_away(self, doing: str) -> bool:
        """Waits while the platform does not answer any call; returns whether it had to wait.

        Raises:
            OutageError: the platform did not answer for `outage_seconds`.
            AccountError: the platform answers that no call can succeed.
        """
        looks, waited_seconds = 0, 0.0
        while self.look is not None and (trouble := self._trouble(self.look)):
            if waited_seconds >= self.outage_seconds:
                raise OutageError(f"{doing}: given up after {self.outage_seconds / 60:.0f} minutes: {trouble}")
            _LOG.warning("%s: waiting for the platform: %s", doing, trouble)
            looks += 1
            wait = self.backoff.seconds(looks)
            self.backoff.sleep(wait)
            waited_seconds += wait
        return looks > 0

    def _trouble(self, look: Callable[[], None]) -> str:
        """Returns why the platform does not answer; empty if it answers.

        Raises:
            AccountError: the platform answers that no call can succeed.
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
            failure = AccountError  # ends the run: with a revoked key, no other task can succeed
        elif isinstance(error, sdk.PayloadTooLargeError) and issubclass(failure, SaveError):
            failure = RowTooLargeError
        return failure(f"{doing}: {explain(error, self.domain)}")


def key_errors() -> tuple[type[Exception], ...]:
    """Returns the SDK's errors for a key that the platform does not accept."""
    from encord import exceptions as sdk

    return (sdk.AuthenticationError, sdk.SshKeyNotFound)


def is_transient(error: Exception) -> bool:
    """Returns whether the same call may succeed a little later."""
    from encord import exceptions as sdk

    return isinstance(
        error, sdk.RequestException | sdk.UnknownException | sdk.GenericServerError | sdk.RateLimitExceededError
    )


def explain(error: Exception, domain: str) -> str:
    """Returns the meaning of an SDK error and what to do about it, without links and keys."""
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
            "the platform's rate limit was exceeded in several tries: run fewer workers at a time",
        ),
        ((sdk.RequestException,), _explain_no_answer(error, domain)),
        ((sdk.EncordException,), f"the platform refused: {said} ({type(error).__name__})"),
    )
    for kinds, meaning in meanings:
        if isinstance(error, kinds):
            return meaning
    return f"the SDK could not read the platform's answer: {type(error).__name__}: {said}"


def _explain_no_answer(error: Exception, domain: str) -> str:
    import requests

    if error.__cause__ is None:
        return f"the platform refused: {redact(str(error))[:300]}"
    cause = error.__cause__
    if isinstance(cause, requests.RequestException) and not isinstance(cause, requests.JSONDecodeError):
        return (
            f"no answer from {domain} ({type(cause).__name__}): check the address (source.domain or "
            "ENCORD_DOMAIN), the network and the proxy"
        )
    return f"the answer of {domain} is cut off or not JSON: if that was so from the start, check the API's address"


def is_never_connected(error: BaseException) -> bool:
    """Returns whether an SDK error means that no connection was made: it was refused, or the host is unknown."""
    from urllib3.exceptions import MaxRetryError, NewConnectionError

    tried = error.__cause__.args[0] if error.__cause__ is not None and error.__cause__.args else None
    return isinstance(tried, MaxRetryError) and isinstance(tried.reason, NewConnectionError)
