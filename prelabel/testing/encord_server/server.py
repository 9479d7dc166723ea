"""The server: reads requests, checks who sent them, carries them out, and sends the answers, faults included."""

from __future__ import annotations

import socket
import struct
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, urlsplit

from . import legacy, rest
from .context import Context, Settings
from .faults import Call, Faults
from .media import Links, download
from .records import Json, Project
from .signing import KeyPair, NotAuthenticatedError, Users
from .state import World
from .wire import Answer, ApiError, ConnectionCutError, EnvelopeError, Request

if TYPE_CHECKING:
    from encord import EncordUserClient

_LEGACY_PATHS = ("/public", "/public/user")
_SUMMARY_CHARS = 300


def connect(server: EncordServer, private_key: str) -> EncordUserClient:
    """Returns the unmodified SDK's client, connected to a server.

    Args:
        server: a running one.
        private_key: as `EncordServer.add_user` returns it.
    """
    from encord import EncordUserClient

    return EncordUserClient.create_with_ssh_private_key(private_key, domain=server.url)


class EncordServer:
    """The Encord API on a port of this machine.

    `world` is what it knows; `calls`, `refused` and `errors` say what happened; `faults` are injected.
    """

    def __init__(self, world: World | None = None, settings: Settings | None = None, *, port: int = 0) -> None:
        self.world = world or World()
        self.settings = settings or Settings()
        self.users = Users()
        self.faults = Faults()
        self.calls: list[Call] = []
        self.refused: list[str] = []  # why requests were not authenticated
        self.errors: list[str] = []  # tracebacks of bugs of this server
        self.stopping = threading.Event()
        self._http = _Http(("127.0.0.1", port), self)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self.links = Links(self.world, self.url)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), name="encord-server")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._http.shutdown()
        self._thread.join()
        self._http.close_connections()
        self._http.server_close()

    def add_user(self, email: str = "agent@example.com") -> str:
        """Register a new key for this user and return its private text, as `ENCORD_SSH_KEY` takes it."""
        pair = KeyPair.make()
        self.users.by_key[pair.public_hex] = email
        return pair.private_text

    def calls_of(self, operation: str) -> list[Call]:
        return [call for call in self.calls if call.operation == operation]

    def summary(self) -> Json:
        """Counts of what happened so far, also for clients in another process (`GET /state`)."""
        with self.world.lock:
            return {
                "projects": {project.uuid: _summary_of(project) for project in self.world.projects.values()},
                "saves": len(self.world.saves),
                "moves": len(self.world.moves),
                "downloads": len(self.world.downloads),
                "downloaded_bytes": sum(download.num_bytes for download in self.world.downloads),
                "calls": dict(Counter(call.operation for call in self.calls)),
            }

    def answer(self, request: Request) -> Answer:
        """The answer to one request, with the fault that is waiting for it.

        Raises:
            ConnectionCutError: The connection is to be reset.
        """
        operation, handle = self._find(request)
        summary = request.body[:_SUMMARY_CHARS].decode(errors="replace")
        call = Call(operation, request.method, request.path, dict(request.query), summary)
        self.calls.append(call)
        carry_out = partial(handle, call)
        fault = self.faults.take(call)
        answer = fault(carry_out, self.stopping) if fault else carry_out()
        call.status, call.error = answer.status, answer.error
        return answer

    def _find(self, request: Request) -> tuple[str, Callable[[Call], Answer]]:
        """The name of the operation that a request asks for, and the function that carries it out."""
        if request.path.startswith("/media/"):
            return "download", lambda _: download(self.world, self.links, request)
        if request.path.startswith(rest.PREFIX):
            endpoint, names = rest.find(request)
            of_rest = partial(rest.answer_call, endpoint, names, request)
            return endpoint.__name__, lambda call: self._carry_out(call, request, of_rest)
        if request.path in _LEGACY_PATHS and request.method == "POST":
            try:
                envelope = request.json()
                query = legacy.find(envelope)
            except (ValueError, AttributeError) as error:
                refusal = EnvelopeError("INVALID_ARGUMENTS_ERROR", f"the body cannot be read: {error}")
                return "unreadable", lambda _: refusal.as_answer()
            of_legacy = partial(legacy.answer_query, query, request, envelope)
            return query.__name__, lambda call: self._carry_out(call, request, of_legacy, is_legacy=True)
        if request.path == "/state":
            return "state", lambda _: Answer.of_json(self.summary())
        return "unknown", lambda _: Answer.of_json({"message": "no such path"}, 404)

    def _carry_out(
        self, call: Call, request: Request, handle: Callable[[Context], Answer], *, is_legacy: bool = False
    ) -> Answer:
        """The answer of `handle`, or the refusal in the form of the endpoint's kind."""
        try:
            call.user = self.users.authenticate(request, legacy=is_legacy)
            with self.world.lock:
                return handle(Context(self.world, self.links, self.settings, call.user))
        except NotAuthenticatedError as error:
            self.refused.append(f"{request.method} {request.path}: {error}")
            refusal = EnvelopeError("AUTHENTICATION_ERROR", status=401)
            return refusal.as_answer() if is_legacy else Answer.of_json({"message": str(error)}, 401)
        except ApiError as error:
            return Answer.of_json({"message": error.message}, error.status)
        except EnvelopeError as error:
            return error.as_answer()
        except Exception:
            # A bug of this server must not look like a fault of the platform: a test can check that `errors` is empty.
            self.errors.append(traceback.format_exc())
            return Answer.of_json({"message": "the test server failed; see server.errors"}, 500)


def _summary_of(project: Project) -> Json:
    return {
        "tasks": {stage.title: len(project.tasks_at(stage.uuid)) for stage in project.stages},
        "label_rows": {
            row.label_hash: {
                "title": row.data.title,
                "objects": len(row.object_answers),
                "object_frames": len(row.objects()),
                "is_valid": row.is_valid,
            }
            for row in project.rows.values()
        },
    }


class _Http(ThreadingHTTPServer):
    """Serves each connection on a thread, and can close all of them, since `requests` sessions leave theirs open."""

    daemon_threads = False
    block_on_close = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], owner: EncordServer) -> None:
        self.owner = owner
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        with self._lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:  # the client has gone already
                    continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        if isinstance(sys.exception(), ConnectionError):  # a client that went away is no bug of the server
            return
        self.owner.errors.append(traceback.format_exc())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "encord-test-server"
    disable_nagle_algorithm = True
    server: _Http

    def log_message(self, format: str, *args: object) -> None:
        """Writes no log, since `EncordServer.calls` lists the requests."""

    def _serve(self) -> None:
        try:
            answer = self._answer()
            self._send(answer)
        except ConnectionCutError:
            self._reset()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 - named by the library

    def _answer(self) -> Answer:
        length = int(self.headers.get("Content-Length") or 0)
        if length > self.server.owner.settings.max_body_bytes:
            return self._refuse_body(length)
        parts = urlsplit(self.path)
        request = Request(
            self.command, self.path, parts.path, parse_qs(parts.query), self.headers, self.rfile.read(length)
        )
        return self.server.owner.answer(request)

    def _refuse_body(self, length: int) -> Answer:
        left = length
        while left and (chunk := self.rfile.read(min(left, 1 << 20))):
            left -= len(chunk)
        limit = self.server.owner.settings.max_body_bytes
        self.server.owner.calls.append(Call("too_large", self.command, self.path, {}, f"{length} bytes", status=413))
        return Answer.of_json({"message": f"payload of {length} bytes exceeds the limit of {limit}"}, 413)

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(answer.length))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        num_bytes = 0
        for chunk in answer.body if self.command != "HEAD" else ():
            # It counts before it sends, so that a client that has the bytes finds them counted.
            if answer.count is not None:
                answer.count(len(chunk))
            self.wfile.write(chunk)
            num_bytes += len(chunk)
        self.close_connection |= num_bytes < answer.length

    def _reset(self) -> None:
        """Sends a TCP reset: closes with linger 0, after the file that would keep the socket open."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.connection.close()
