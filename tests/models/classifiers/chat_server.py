"""A chat-completions endpoint on this machine: checks requests against the published form, and answers by a script."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from jsonschema import Draft202012Validator
from PIL import Image

KEY = "sk-test-0123456789"

# Of OpenAI's API reference, "Create chat completion": the parts that an agent of pictures may send.
REQUEST_SCHEMA = {
    "type": "object",
    "required": ["model", "messages"],
    "additionalProperties": False,
    "properties": {
        "model": {"type": "string"},
        "temperature": {"type": "number", "minimum": 0, "maximum": 2},
        "logprobs": {"type": "boolean"},
        "messages": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["role", "content"],
                "additionalProperties": False,
                "properties": {
                    "role": {"enum": ["developer", "system", "user", "assistant"]},
                    "content": {
                        "type": "array",
                        "items": {"oneOf": [{"$ref": "#/$defs/text"}, {"$ref": "#/$defs/image"}]},
                    },
                },
            },
        },
        "response_format": {
            "type": "object",
            "required": ["type", "json_schema"],
            "additionalProperties": False,
            "properties": {
                "type": {"const": "json_schema"},
                "json_schema": {
                    "type": "object",
                    "required": ["name", "schema"],
                    "additionalProperties": False,
                    "properties": {
                        "name": {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}$"},
                        "strict": {"type": "boolean"},
                        # Structured outputs: strict schemas close every object and require every key.
                        "schema": {
                            "type": "object",
                            "required": ["type", "properties", "required", "additionalProperties"],
                            "properties": {"additionalProperties": {"const": False}},
                        },
                    },
                },
            },
        },
    },
    "$defs": {
        "text": {
            "type": "object",
            "required": ["type", "text"],
            "additionalProperties": False,
            "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
        },
        "image": {
            "type": "object",
            "required": ["type", "image_url"],
            "additionalProperties": False,
            "properties": {
                "type": {"const": "image_url"},
                "image_url": {
                    "type": "object",
                    "required": ["url"],
                    "additionalProperties": False,
                    "properties": {
                        "url": {"type": "string", "pattern": "^(https://|data:image/(jpeg|png|gif|webp);base64,)"},
                        "detail": {"enum": ["auto", "low", "high"]},
                    },
                },
            },
        },
    },
}

Answer = tuple[int, dict[str, str], Any]
"""Status, headers, content."""


def completion(answer: str, tokens: list[tuple[str, float]] | None = None, **message: Any) -> dict[str, Any]:
    """Returns a completion whose content is this answer, with log-probabilities by token."""
    logprobs = (
        None if tokens is None else {"content": [{"token": t, "logprob": p, "top_logprobs": []} for t, p in tokens]}
    )
    content = {"role": "assistant", "content": json.dumps({"answer": answer}), "refusal": None, **message}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": content, "finish_reason": "stop", "logprobs": logprobs}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105},
    }


class ChatServer:
    """Answers each picture by its brightest channel, red, green or blue, unless `script` says otherwise.

    Attributes:
        script: what to answer first, in order.
        sizes: of the pictures that were sent.
        wrong: what was wrong with requests.
        most_at_once: requests that were in hand at the same time.
    """

    def __init__(self) -> None:
        self.script: list[Callable[[], Answer]] = []
        self.sizes: list[tuple[int, int]] = []
        self.wrong: list[str] = []
        self.times: list[float] = []
        self.most_at_once = self._in_hand = 0
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self) -> ChatServer:
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def answer(self, path: str, authorization: str | None, body: bytes) -> Answer:
        with self._lock:
            self.times.append(time.monotonic())
            self._in_hand += 1
            self.most_at_once = max(self.most_at_once, self._in_hand)
            scripted = self.script.pop(0) if self.script else None
        try:
            if path != "/v1/chat/completions":
                return 404, {}, {"error": {"message": f"no such path {path}"}}
            if authorization != f"Bearer {KEY}":
                return 401, {}, {"error": {"message": f"Incorrect API key provided: {authorization}"}}
            request = json.loads(body)
            self.wrong += [error.message for error in Draft202012Validator(REQUEST_SCHEMA).iter_errors(request)]
            return scripted() if scripted is not None else (200, {}, self._look_at(request))
        finally:
            with self._lock:
                self._in_hand -= 1

    def _look_at(self, request: dict[str, Any]) -> dict[str, Any]:
        (link,) = [
            part["image_url"]["url"] for part in request["messages"][0]["content"] if part["type"] == "image_url"
        ]
        picture = Image.open(io.BytesIO(base64.b64decode(link.partition(",")[2])))
        assert picture.format == "JPEG"
        self.sizes.append(picture.size)
        brightest = ("red", "green", "blue")[int(np.asarray(picture).mean(axis=(0, 1)).argmax())]
        options = request["response_format"]["json_schema"]["schema"]["properties"]["answer"]["enum"]
        answer = brightest if brightest in options else "none of these"
        return completion(
            answer, [('{"', 0.0), ('answer":"', 0.0), (answer[:2], -0.1), (answer[2:], -0.2), ('"}', 0.0)]
        )


def _handler(server: ChatServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, headers, content = server.answer(self.path, self.headers.get("Authorization"), body)
            sent = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler
