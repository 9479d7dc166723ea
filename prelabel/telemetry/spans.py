"""OpenTelemetry spans of a run: one a task, and below it one a stage."""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import prelabel
from prelabel.errors import MachineError
from prelabel.progress import Value

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_ENDINGS = ("task_done", "task_failed")


@dataclass(frozen=True, slots=True)
class _Stage:
    """A stage that ended, times in nanoseconds of Unix time."""

    name: str
    began: int
    ended: int
    busy_seconds: float


class Spans:
    """Makes spans of what a run tells, each when its task has ended. A `Progress`."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._lock = threading.Lock()
        self._stages: defaultdict[str, list[_Stage]] = defaultdict(list)

    def begin(self, title: str, num_frames: int, task_id: str = "") -> None:
        """Makes nothing of it."""

    def frames(self, num_frames: int) -> None:
        """Makes nothing of it."""

    def waiting(self, stage: str, num_items: int) -> None:
        """Makes nothing of it."""

    def event(self, name: str, **values: Value) -> None:
        """Keeps stages until their task ends, then makes spans."""
        task_id = str(values.get("task_id", ""))
        now = time.time_ns()
        if name == "stage_done":
            wall, busy = _number(values.get("wall_seconds")), _number(values.get("busy_seconds"))
            stage = _Stage(str(values.get("stage")), now - int(wall * 1e9), now, busy)
            with self._lock:
                self._stages[task_id].append(stage)
        elif name in _ENDINGS:
            with self._lock:
                stages = self._stages.pop(task_id, [])
            self._export(name, values, stages, now)

    def _export(self, name: str, values: dict[str, Value], stages: list[_Stage], now: int) -> None:
        from opentelemetry.trace import StatusCode, set_span_in_context

        began = min((stage.began for stage in stages), default=now)
        told = {
            key: value
            for key in ("task", "task_id", "frames", "pathway")
            if isinstance(value := values.get(key), str | int)
        }
        whole = self._tracer.start_span(
            "task", start_time=began, attributes={f"prelabel.{key}": value for key, value in told.items()}
        )
        if name == "task_failed":
            whole.set_status(StatusCode.ERROR, str(values.get("reason", "")))
        for stage in stages:
            span = self._tracer.start_span(
                stage.name,
                context=set_span_in_context(whole),
                start_time=stage.began,
                attributes={"prelabel.busy_seconds": stage.busy_seconds},
            )
            span.end(stage.ended)
        whole.end(now)


@contextmanager
def export_spans() -> Iterator[Spans]:
    """Yields spans that go to where OpenTelemetry's own variables say (`OTEL_EXPORTER_OTLP_ENDPOINT` and others).

    Raises:
        MachineError: OpenTelemetry is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        named = next(name for name in ENDPOINTS if os.environ.get(name))
        raise MachineError(f"{named} is set, but {error.name} is not installed: uv sync --extra otel") from error
    name = {} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: "prelabel"}
    provider = TracerProvider(resource=Resource.create(name))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    try:
        yield Spans(provider.get_tracer("prelabel", prelabel.__version__))
    finally:
        provider.shutdown()  # sends what still waits


def is_asked_for() -> bool:
    """Tells whether the environment names a collector."""
    return any(os.environ.get(name) for name in ENDPOINTS)


def _number(value: Value) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
