"""Notifications as Encord signs them."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from uuid import UUID, uuid4

SECRET = "whsec-test"


def notification(project: UUID | str, stage: UUID | str, **changes: object) -> bytes:
    """Returns the body of a notification about a stage."""
    payload = {"project_hash": str(project), "stage_uuid": str(stage), "pending_count": 1, "reason": "max_wait_elapsed"}
    envelope = {
        "uid": str(uuid4()),
        "version": 1,
        "source": "encord",
        "event_type": "agent_stage_work_available_event",
        "event_created_timestamp": "2026-11-30T00:00:00Z",
        "payload": payload,
    }
    return json.dumps({**envelope, **changes}).encode()


def signed(body: bytes, *, secret: str = SECRET, at: float | None = None) -> dict[str, str]:
    """Returns the headers that sign a body at a time in Unix seconds, by default now."""
    timestamp = str(int(time.time() if at is None else at))
    digest = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return {"X-Encord-Signature": digest, "X-Encord-Timestamp": timestamp}
