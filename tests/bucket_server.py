"""A real S3 server on this machine: moto's, with faults and a log of requests in front of it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

import boto3
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from prelabel.runtime.buckets import _storage

Environ = dict[str, Any]
Answer = tuple[str, bytes]
Fault = Callable[[Environ], Answer | None]
"""Returns a status and a body to answer a request with; None lets the request through."""

BUCKET = "videos"
KEYS = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "secret-of-the-tester"}


class BucketServer:
    """The server, with one bucket named `videos`.

    Attributes:
        faults: asked for each request, in order.
        requests: method and path with query of each request, in order.
    """

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, name="s3")
        self.endpoint = f"127.0.0.1:{self._server.server_port}"
        self.client: Any = None

    def __enter__(self) -> Self:
        self._thread.start()
        self.client = boto3.client(
            "s3",
            endpoint_url=f"http://{self.endpoint}",
            region_name="us-east-1",
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def clear(self) -> None:
        """Leaves an empty bucket, no faults and no log."""
        self.faults.clear()
        try:
            for key in self.list_keys():
                self.client.delete_object(Bucket=BUCKET, Key=key)
        except self.client.exceptions.NoSuchBucket:
            self.client.create_bucket(Bucket=BUCKET)
        self.requests.clear()

    def put(self, key: str, body: bytes = b"content") -> None:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=body)

    def get(self, key: str) -> bytes:
        return self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def list_keys(self) -> list[str]:
        return [each["Key"] for each in self.client.list_objects_v2(Bucket=BUCKET).get("Contents", ())]

    def _answer(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        query = environ["QUERY_STRING"]
        self.requests.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}{'?' if query else ''}{query}")
        for fault in self.faults:
            answer = fault(environ)
            if answer is not None:
                status, body = answer
                start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
                return [body]
        return self._moto(environ, start_response)


def error(code: str, message: str = "no") -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


def fail(times: int, method: str, part: str = "", status: str = "503 Slow Down", code: str = "SlowDown") -> Fault:
    """Returns a fault for the first requests of a method whose path or query holds a text."""
    left = [times]

    def answer(environ: Environ) -> Answer | None:
        if environ["REQUEST_METHOD"] != method or part not in f"{environ['PATH_INFO']}?{environ['QUERY_STRING']}":
            return None
        left[0] -= 1
        return None if left[0] < 0 else (status, error(code))

    return answer


def refuse_unsigned(environ: Environ) -> Answer | None:
    """S3's answer to a request without credentials, of which moto's server makes an internal error."""
    return None if "HTTP_AUTHORIZATION" in environ else ("403 Forbidden", error("AccessDenied", "Access Denied"))


@pytest.fixture(scope="session")
def _server() -> Iterator[BucketServer]:
    with BucketServer() as server:
        yield server


@pytest.fixture
def s3(_server: BucketServer, monkeypatch: pytest.MonkeyPatch) -> BucketServer:
    """The server with an empty bucket; this process has its credentials and its endpoint."""
    _server.clear()
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{_server.endpoint}")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    _storage.cache_clear()  # it holds the credentials of the environment
    return _server
