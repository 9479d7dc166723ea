from __future__ import annotations

import builtins
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span, Status

from prelabel.errors import MachineError
from prelabel.runtime.telemetry import ENDPOINTS, export_spans, observers


class Collector:
    """A collector of OTLP over HTTP, as far as it takes what is posted."""

    def __init__(self) -> None:
        self.received: list[ResourceSpans] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = ExportTraceServiceRequest()
                request.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
                collector.received.extend(request.resource_spans)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)

    @property
    def spans(self) -> dict[str, Span]:
        return {span.name: span for resource in self.received for scope in resource.scope_spans for span in scope.spans}


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    collector = Collector()
    thread = threading.Thread(target=collector.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server.server_port}")
    yield collector
    collector.server.shutdown()
    collector.server.server_close()
    thread.join()


def test_a_task_is_a_span_and_its_stages_are_spans_below_it(collector: Collector):
    with observers(None) as (spans,):
        spans.event("stage_done", task="a.mp4", task_id="1", stage="fetch", busy_seconds=0.5, wall_seconds=0.5)
        spans.event("stage_done", task="b.mp4", task_id="2", stage="fetch", busy_seconds=9.0, wall_seconds=9.0)
        spans.event("stage_done", task="a.mp4", task_id="1", stage="detect", busy_seconds=1.0, wall_seconds=2.0)
        spans.event("task_done", task="a.mp4", task_id="1", frames=20, pathway=None)
    sent = collector.spans
    assert sent.keys() == {"task", "fetch", "detect"}
    whole, detect = sent["task"], sent["detect"]
    assert detect.parent_span_id == whole.span_id
    assert detect.trace_id == whole.trace_id
    assert detect.end_time_unix_nano - detect.start_time_unix_nano == 2_000_000_000
    assert whole.start_time_unix_nano == detect.start_time_unix_nano
    assert attributes(whole) == {"prelabel.task": "a.mp4", "prelabel.task_id": "1", "prelabel.frames": 20}
    (resource,) = collector.received
    named = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
    assert named["service.name"] == "prelabel"


def test_a_failed_task_says_why(collector: Collector):
    with observers(None) as (spans,):
        spans.event("task_failed", task="a.mp4", task_id="1", reason="no such file")
    status = collector.spans["task"].status
    assert (status.code, status.message) == (Status.STATUS_CODE_ERROR, "no such file")


def test_nobody_is_told_where_nothing_asks_for_it(monkeypatch: pytest.MonkeyPatch):
    for name in ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    with observers(None) as told:
        assert told == []


def test_an_endpoint_without_opentelemetry_is_told_with_the_next_step(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    real_import = builtins.__import__

    def refuse(name: str, *args: object, **options: object) -> object:
        if name.startswith("opentelemetry"):
            raise ImportError(f"No module named {name!r}", name=name)
        return real_import(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MachineError, match=r"OTEL_EXPORTER_OTLP_ENDPOINT is set.*uv sync --extra otel"), export_spans():
        pass


def attributes(span: Span) -> dict[str, object]:
    return {pair.key: pair.value.string_value or pair.value.int_value for pair in span.attributes}
