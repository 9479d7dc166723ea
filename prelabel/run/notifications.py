"""Encord's signed task-ready notifications: who sent one, and which stage it is about.

The form is that of encord-agents 0.2.10 (`core/webhooks.py`): the header `X-Encord-Signature` is HMAC-SHA256 in
lower-case hex over the text of `X-Encord-Timestamp`, a dot, and the body's bytes.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from pydantic import BaseModel, ValidationError

SECRET_VARIABLE = "ENCORD_WEBHOOK_SECRET"
EVENT = "agent_stage_work_available_event"
VERSION = 1
TOLERANCE_SECONDS = 300
"""How far a signed time may be from now."""
MAX_BODY_BYTES = 64 * 1024
"""A notification has some 400 bytes."""


class RefusedNotification(Exception):  # noqa: N818  (an answer to the sender, not an error of the run)
    """A request that starts no work.

    Attributes:
        status: the HTTP status to answer.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class _Payload(BaseModel):
    project_hash: UUID
    stage_uuid: UUID


class _Envelope(BaseModel):
    event_type: str
    version: int
    payload: _Payload | None = None


@dataclass(frozen=True, slots=True)
class StageNotification:
    """Tasks are waiting at a stage. Which and how many, the stage itself says.

    Attributes:
        project_hash: of the project.
        stage_uuid: of its agent stage.
    """

    project_hash: UUID
    stage_uuid: UUID


@dataclass
class NotificationReader:
    """Verifies and reads notifications. May be used from several threads.

    Attributes:
        secret: the signing secret, as Encord's app shows it.
        now: returns the time in Unix seconds.
    """

    secret: str = field(repr=False)
    now: Callable[[], float] = time.time
    _seen: dict[str, float] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def read(self, body: bytes, headers: Mapping[str, str]) -> StageNotification | None:
        """Returns which stage has work; None for a genuine event of another kind.

        Args:
            body: exactly as received, since the signature covers its bytes.
            headers: of the request; case does not matter.

        Raises:
            RefusedNotification: it is not signed, too old, a replay, or cannot be read.
        """
        lower = {name.lower(): value for name, value in headers.items()}
        self._verify(body, lower.get("x-encord-signature", ""), lower.get("x-encord-timestamp", ""))
        try:
            envelope = _Envelope.model_validate_json(body)
        except ValidationError as error:
            places = ", ".join(".".join(map(str, problem["loc"])) or "the body" for problem in error.errors())
            raise RefusedNotification(400, f"the notification cannot be read: {places}") from error
        if envelope.event_type != EVENT:
            return None
        if envelope.version != VERSION:
            raise RefusedNotification(501, f"version {envelope.version} of the notification is not known: {VERSION} is")
        if envelope.payload is None:
            raise RefusedNotification(400, "the notification cannot be read: payload")
        return StageNotification(envelope.payload.project_hash, envelope.payload.stage_uuid)

    def _verify(self, body: bytes, signature: str, timestamp: str) -> None:
        if not signature or not timestamp:
            raise RefusedNotification(401, "the request is not signed")
        # Only ASCII digits: int() takes other scripts, spaces and underscores too.
        if not (timestamp.isascii() and timestamp.isdigit()) or len(timestamp) > 12:
            raise RefusedNotification(401, "the timestamp is not in Unix seconds")
        expected = hmac.new(self.secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
        # Compared as bytes: compare_digest refuses text that is not ASCII, and a header is whatever the sender wrote.
        if not hmac.compare_digest(expected.encode(), signature.encode(errors="replace")):
            raise RefusedNotification(401, "the signature does not match")
        if abs(self.now() - int(timestamp)) > TOLERANCE_SECONDS:
            raise RefusedNotification(401, f"the timestamp is more than {TOLERANCE_SECONDS} seconds from now")
        self._refuse_replay(signature)

    def _refuse_replay(self, signature: str) -> None:
        """Remembers a signature until its time has passed; after that, the timestamp refuses it."""
        now = self.now()
        with self._lock:
            for old in [known for known, until in self._seen.items() if until < now]:
                del self._seen[old]
            if signature in self._seen:
                raise RefusedNotification(409, "the same notification came before")
            self._seen[signature] = now + 2 * TOLERANCE_SECONDS
