"""The Hugging Face hub's refusals, over HTTP."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from prelabel.errors import WeightsError
from prelabel.models.hub import resolve_hub_weights

constants = pytest.importorskip("huggingface_hub.constants")


class Refusing(BaseHTTPRequestHandler):
    """Refuses every request as the hub does, with a code in a header."""

    code = ""

    def do_GET(self) -> None:
        self.send_response(403 if self.code == "GatedRepo" else 404)
        self.send_header("X-Error-Code", self.code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("RevisionNotFound", "has no revision 'v9': set revision to one of its commits, tags or branches"),
        ("RepoNotFound", "the hub has no such model, or it is private: set HF_TOKEN"),
        ("GatedRepo", "accept their terms on the hub and set HF_TOKEN"),
    ],
)
def test_a_refusal_of_the_hub_says_what_to_do(
    code: str, reason: str, hub: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Refusing, "code", code)
    with pytest.raises(WeightsError, match=f"'nobody/nothing'.*{reason}"):
        resolve_hub_weights("nobody/nothing", "v9")


def test_a_cache_that_cannot_be_written_is_not_called_a_missing_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def on_a_full_disk(*args: object, **options: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device", "blobs/0")

    monkeypatch.setattr("huggingface_hub.snapshot_download", on_a_full_disk)
    with pytest.raises(WeightsError, match=r"'some/model': cannot be stored in the hub's cache: .*No space left"):
        resolve_hub_weights("some/model", None)
