"""Runs passes over agent stages when Encord says that tasks are waiting.

The main thread works: it waits for a notification, then passes over the stages. One other thread answers HTTP. A
notification that comes during a pass is remembered, and one more pass follows, however many came.
"""

from __future__ import annotations

import importlib.util
import socket
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from prelabel.assembly.assemble import Assembly
from prelabel.encord.connection import project_uuid
from prelabel.encord.source import EncordSection
from prelabel.errors import ConfigError, MachineError
from prelabel.run.notifications import MAX_BODY_BYTES, NotificationReader, RefusedNotification
from prelabel.runtime.interrupts import StopSignal

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request

LOOK_EVERY_SECONDS = 0.2
"""How soon a wait sees that somebody asked to stop."""
START_SECONDS = 30.0


@dataclass
class WorkSignal:
    """Tells the main thread that a stage has work. May be used from several threads.

    Attributes:
        stop: ends all waiting.
        poll_seconds: a pass follows after this time without a notification, since one may be lost.
        idle_exit_seconds: waiting ends for good after this time without a notification; None: never.
    """

    stop: StopSignal
    poll_seconds: float
    idle_exit_seconds: float | None = None
    _ready: threading.Event = field(default_factory=threading.Event, repr=False)
    _work: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def is_ready(self) -> bool:
        """Whether a notification leads to a pass: the model is loaded, and nobody has asked to stop."""
        return self._ready.is_set() and not self.stop.is_set

    def ready(self) -> None:
        """Says that the model is loaded."""
        self._ready.set()

    def notify(self) -> None:
        """Asks for a pass: the next one, if one is running."""
        self._work.set()

    def wait(self) -> bool:
        """Returns whether another pass is due; False once somebody asked to stop or nothing came for long."""
        began = time.monotonic()
        while not self.stop.is_set:
            if self._work.wait(LOOK_EVERY_SECONDS):
                self._work.clear()
                return not self.stop.is_set
            waited = time.monotonic() - began
            if self.idle_exit_seconds is not None and waited >= self.idle_exit_seconds:
                return False
            if waited >= self.poll_seconds:
                return True
        return False


def make_app(reader: NotificationReader, served: Collection[tuple[UUID, UUID]], signal: WorkSignal) -> Starlette:
    """Returns the web application.

    Args:
        reader: verifies and reads notifications.
        served: project and stage of each config section; notifications of others are refused.
        signal: told of work.
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
            if (found.project_hash, found.stage_uuid) not in served:
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
    """Returns the body; stops reading as soon as it is too large, whatever its header promised."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise RefusedNotification(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
    return bytes(body)


@contextmanager
def serving(app: Starlette, host: str, port: int) -> Iterator[int]:
    """Answers HTTP on a thread of its own; yields the port, which the system chooses for 0.

    Raises:
        MachineError: the port cannot be had, or the extra `serve` is not installed.
    """
    import uvicorn

    # Bound here and not by uvicorn, which ends the process where the port is in use, and hands the socket to children.
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
    """Returns project and stage of a config whose notifications lead to a pass.

    Raises:
        ConfigError: its tasks do not come from Encord.
        AccountError: the project or the stage cannot be had.
    """
    section = assembly.config.source
    if not isinstance(section, EncordSection):
        raise ConfigError("source.use: prelabel serve waits for Encord's notifications; use prelabel run --watch here")
    return project_uuid(section.project_hash), assembly.encord.agent_stage(section.stage).uuid


def check_installed() -> None:
    """Checks that the packages of the extra `serve` are there.

    Raises:
        MachineError: one is missing.
    """
    for package in ("starlette", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            raise MachineError(f"prelabel serve needs {package}: install prelabel[serve]")
