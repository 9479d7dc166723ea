"""Runs passes over agent stages when Encord notifies that tasks are waiting.

The main thread waits for a notification, then runs a pass over the stages. Another thread answers HTTP. If
notifications arrive during a pass, exactly one more pass follows, however many arrive.
"""

from __future__ import annotations

import hashlib
import hmac
import importlib.util
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from pydantic import BaseModel, ValidationError

from prelabel.assembly.assemble import Assembly
from prelabel.encord.connection import project_uuid
from prelabel.encord.source import EncordSection
from prelabel.errors import ConfigError, MachineError
from prelabel.runtime.interrupts import StopSignal

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request


SECRET_VARIABLE = "ENCORD_WEBHOOK_SECRET"
EVENT = "agent_stage_work_available_event"
VERSION = 1
TOLERANCE_SECONDS = 300
"""The largest difference between a signed time and the current time."""
MAX_BODY_BYTES = 64 * 1024
"""The largest request body; a notification has about 400 bytes."""


class RefusedNotification(Exception):  # noqa: N818  (an answer to the sender, not an error of the run)
    """A refused request, which starts no pass.

    Attributes:
        status: the HTTP status of the response.
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


@dataclass
class NotificationReader:
    """Verifies and reads notifications. May be used from several threads.

    Attributes:
        secret: the signing secret, as Encord's app shows it.
        now: returns the current time in Unix seconds.
    """

    secret: str = field(repr=False)
    now: Callable[[], float] = time.time
    _seen: dict[str, float] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def read(self, body: bytes, headers: Mapping[str, str]) -> tuple[UUID, UUID] | None:
        """Returns the project and the stage where tasks wait; None for a genuine event of another kind.

        A notification does not say which tasks, or how many.

        Args:
            body: the body exactly as received, since the signature covers its bytes.
            headers: headers of the request; case does not matter.

        Raises:
            RefusedNotification: the request is not signed, too old, a replay, or cannot be read.
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
        return envelope.payload.project_hash, envelope.payload.stage_uuid

    def _verify(self, body: bytes, signature: str, timestamp: str) -> None:
        if not signature or not timestamp:
            raise RefusedNotification(401, "the request is not signed")
        # Only ASCII digits are allowed, since int() also accepts other scripts, spaces and underscores.
        if not (timestamp.isascii() and timestamp.isdigit()) or len(timestamp) > 12:
            raise RefusedNotification(401, "the timestamp is not in Unix seconds")
        expected = hmac.new(self.secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
        # Compared as bytes, since compare_digest refuses text that is not ASCII, and the sender chooses the header.
        if not hmac.compare_digest(expected.encode(), signature.encode(errors="replace")):
            raise RefusedNotification(401, "the signature does not match")
        if abs(self.now() - int(timestamp)) > TOLERANCE_SECONDS:
            raise RefusedNotification(401, f"the timestamp is more than {TOLERANCE_SECONDS} seconds from now")
        self._refuse_replay(signature)

    def _refuse_replay(self, signature: str) -> None:
        """Refuses a repeated signature. Signatures are stored until their timestamp is too old anyway."""
        now = self.now()
        with self._lock:
            for old in [known for known, until in self._seen.items() if until < now]:
                del self._seen[old]
            if signature in self._seen:
                raise RefusedNotification(409, "the same notification came before")
            self._seen[signature] = now + 2 * TOLERANCE_SECONDS  # twice: its timestamp may be in the future


LOOK_EVERY_SECONDS = 0.2
"""How often a wait checks for a stop request."""
START_SECONDS = 30.0


@dataclass
class WorkSignal:
    """Signals the main thread that a stage has waiting tasks. May be used from several threads.

    Attributes:
        stop: ends all waiting.
        poll_seconds: after this time without a notification, a pass runs anyway, since a notification may be lost.
        idle_exit_seconds: after this time without a notification, waiting ends for good; None: never.
    """

    stop: StopSignal
    poll_seconds: float
    idle_exit_seconds: float | None = None
    _ready: threading.Event = field(default_factory=threading.Event, repr=False)
    _work: threading.Event = field(default_factory=threading.Event, repr=False)
    _idle_since: float | None = None  # the end of the last pass that a notification led to

    @property
    def is_ready(self) -> bool:
        """Whether a notification leads to a pass: the model is loaded, and no stop is requested."""
        return self._ready.is_set() and not self.stop.is_set

    def ready(self) -> None:
        """Marks the model as loaded."""
        self._ready.set()

    def notify(self) -> None:
        """Requests a pass. If a pass is running, another one follows it."""
        self._work.set()

    def wait(self) -> bool:
        """Waits until a pass is due and returns True; returns False after a stop request or a long idle time."""
        began = time.monotonic()
        if self._idle_since is None:
            self._idle_since = began
        while not self.stop.is_set:
            if self._work.wait(LOOK_EVERY_SECONDS):
                self._work.clear()
                self._idle_since = None
                return not self.stop.is_set
            now = time.monotonic()
            if self.idle_exit_seconds is not None and now - self._idle_since >= self.idle_exit_seconds:
                return False
            if now - began >= self.poll_seconds:
                return True
        return False


def make_app(reader: NotificationReader, served: Collection[tuple[UUID, UUID]], signal: WorkSignal) -> Starlette:
    """Returns the web application.

    Args:
        reader: verifies and reads notifications.
        served: project and stage of each served stage; notifications for others are refused.
        signal: notified when a stage has waiting tasks.
    """
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def notification(request: Request) -> PlainTextResponse:
        if "x-encord-editor-agent" in request.headers:
            return PlainTextResponse("this endpoint takes notifications; nothing was run")
        try:
            found = reader.read(await _body(request), request.headers)
            if found is None:
                return PlainTextResponse("not an event of an agent stage; nothing was run")
            if found not in served:
                raise RefusedNotification(404, "the config does not serve this project and stage")
        except RefusedNotification as refusal:
            return PlainTextResponse(str(refusal), status_code=refusal.status)
        signal.notify()
        return PlainTextResponse("accepted")

    async def health(request: Request) -> PlainTextResponse:
        return PlainTextResponse("ok")

    async def ready(request: Request) -> PlainTextResponse:
        if signal.is_ready:
            return PlainTextResponse("ready")
        return PlainTextResponse("not ready", status_code=503)

    routes = [Route("/", notification, methods=["POST"]), Route("/health", health), Route("/ready", ready)]
    return Starlette(routes=routes)


async def _body(request: Request) -> bytes:
    """Returns the body, and stops reading as soon as it is too large, whatever the header states."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise RefusedNotification(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
    return bytes(body)


@contextmanager
def serving(app: Starlette, host: str, port: int) -> Iterator[int]:
    """Answers HTTP on a separate thread and yields the port. For port 0, the system chooses one.

    Raises:
        MachineError: the port cannot be used, or the server does not start.
    """
    import uvicorn

    # The socket is bound here. If uvicorn bound it, it would end the process when the port is in use, and child
    # processes would inherit the socket.
    try:
        listener = socket.create_server((host, port))
    except OSError as error:
        raise MachineError(f"--host {host} --port {port}: cannot be served: {error.strerror}") from error
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, timeout_keep_alive=5))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="http", daemon=True)
    thread.start()
    deadline = time.monotonic() + START_SECONDS
    while not server.started and thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    if not server.started:
        raise MachineError(f"--port {port}: the server did not start")
    try:
        yield int(listener.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(START_SECONDS)
        listener.close()


def served_stage(assembly: Assembly) -> tuple[UUID, UUID]:
    """Returns the project and stage whose notifications lead to a pass.

    Raises:
        ConfigError: the tasks of the config do not come from Encord.
        AccountError: the project or the stage cannot be accessed.
    """
    section = assembly.config.source
    if not isinstance(section, EncordSection):
        raise ConfigError("source.use: prelabel serve waits for Encord's notifications; use prelabel run --watch here")
    return project_uuid(section.project_hash), assembly.encord.agent_stage(section.stage).uuid


def check_installed() -> None:
    """Checks that the packages of the extra `serve` are installed.

    Raises:
        MachineError: a package is missing.
    """
    for package in ("starlette", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            raise MachineError(f"prelabel serve needs {package}: install prelabel[serve]")
