"""Prometheus metrics and OpenTelemetry spans of a run."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from prelabel.errors import MachineError
from prelabel.runtime.gpus import imported_torch
from prelabel.runtime.progress import Progress, Value

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer


@contextmanager
def observers(metrics_port: int | None) -> Iterator[list[Progress]]:
    """Yields the observers that the command line and the environment ask for.

    Args:
        metrics_port: port of the Prometheus metrics; None: no metrics.

    Raises:
        MachineError: the port is taken, or OpenTelemetry is not installed.
    """
    with ExitStack() as stack:
        told: list[Progress] = []
        if metrics_port is not None:
            told.append(stack.enter_context(serve_metrics(metrics_port)))
        if is_asked_for():
            told.append(stack.enter_context(export_spans()))
        yield told


_ENDINGS = {"task_done": "done", "task_failed": "failed", "task_skipped": "skipped"}
_STAGES = ("fetch", "decode", "detect", "save")


class Metrics:
    """A `Progress` that counts events as Prometheus metrics. Its numbers grow over all passes of `--watch`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        info = Gauge("prelabel_info", "1; the version is a label", ["version"], registry=registry)
        info.labels(version("prelabel")).set(1)
        self._tasks = Counter("prelabel_tasks", "Tasks that ended, by how", ["status"], registry=registry)
        self._frames = Counter("prelabel_frames", "Frames that were looked at", registry=registry)
        self._worker_frames = Counter(
            "prelabel_worker_frames", "Frames that were looked at, by worker", ["worker"], registry=registry
        )
        self._task_frames = Gauge("prelabel_task_frames", "Frames of the current task", registry=registry)
        self._busy = Counter(
            "prelabel_stage_busy_seconds",
            "Seconds that a stage worked, of tasks that ended",
            ["stage"],
            registry=registry,
        )
        self._waiting = Gauge("prelabel_queue_items", "Items that wait after a stage", ["stage"], registry=registry)
        self._retries = Counter("prelabel_retries", "Calls and downloads tried again", ["of"], registry=registry)
        self._last_sign = Gauge(
            "prelabel_last_activity_timestamp_seconds", "When a run last told anything, Unix time", registry=registry
        )
        for status in _ENDINGS.values():
            self._tasks.labels(status)
        for stage in _STAGES:
            self._busy.labels(stage)
        registry.register(_GpuMemory())

    def begin(self, title: str, num_frames: int, task_id: str = "", worker: str = "") -> None:
        """Sets the number of frames of the current task."""
        self._task_frames.set(num_frames)
        self._last_sign.set_to_current_time()

    def frames(self, num_frames: int, worker: str = "") -> None:
        """Counts frames."""
        self._frames.inc(num_frames)
        if worker:
            self._worker_frames.labels(worker).inc(num_frames)
        self._last_sign.set_to_current_time()

    def waiting(self, stage: str, num_items: int) -> None:
        """Sets a queue's length."""
        self._waiting.labels(stage).set(num_items)

    def event(self, name: str, **values: Value) -> None:
        """Counts tasks that ended, and their busy seconds."""
        self._last_sign.set_to_current_time()
        if name in _ENDINGS:
            self._tasks.labels(_ENDINGS[name]).inc()
        seconds = values.get("seconds")
        if name == "task_done" and isinstance(seconds, dict):
            for stage, value in seconds.items():
                self._busy.labels(stage).inc(value)

    def retried(self, of: str) -> None:
        """Counts a retry."""
        self._retries.labels(of).inc()


@contextmanager
def serve_metrics(port: int) -> Iterator[Metrics]:
    """Serves metrics at `/metrics` on all addresses of this machine until the context ends.

    Raises:
        MachineError: the port cannot be used.
    """
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    try:
        server, thread = start_http_server(port, registry=registry)
    except OSError as error:
        raise MachineError(f"--metrics-port {port}: cannot be served: {error.strerror}: name another port") from error
    counting = _RetriesInLog(metrics)
    log = logging.getLogger("prelabel")
    level = log.level
    log.addHandler(counting)
    log.setLevel(logging.INFO)  # retries are logged at this level
    try:
        yield metrics
    finally:
        log.removeHandler(counting)
        log.setLevel(level)
        server.shutdown()
        server.server_close()
        thread.join()


class _RetriesInLog(logging.Handler):
    """Counts log records that have the attribute `retry`, which names what is retried."""

    def __init__(self, metrics: Metrics) -> None:
        super().__init__(logging.INFO)
        self._metrics = metrics

    def emit(self, record: logging.LogRecord) -> None:
        of = getattr(record, "retry", None)
        if of is not None:
            self._metrics.retried(str(of))


class _GpuMemory(Collector):
    """Reports the memory of every GPU at each scrape; nothing until torch uses a GPU."""

    def collect(self) -> Iterable[GaugeMetricFamily]:
        torch = imported_torch()
        family = GaugeMetricFamily(
            "prelabel_gpu_memory_bytes",
            "used: by all processes; reserved and allocated: by torch in this one",
            labels=["device", "kind"],
        )
        if torch is not None and torch.cuda.is_initialized():
            for number in range(torch.cuda.device_count()):
                free, total = torch.cuda.mem_get_info(number)
                family.add_metric([str(number), "used"], total - free)
                family.add_metric([str(number), "reserved"], torch.cuda.memory_reserved(number))
                family.add_metric([str(number), "allocated"], torch.cuda.memory_allocated(number))
        yield family


ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_TASK_ENDS = ("task_done", "task_failed")


@dataclass(frozen=True, slots=True)
class _Stage:
    """A step that ended; times are nanoseconds of Unix time."""

    name: str
    began: int
    ended: int
    busy_seconds: float


class Spans:
    """A `Progress` that exports spans when a task ends: one per task, and one per step below it."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._lock = threading.Lock()  # events arrive from several threads
        self._stages: defaultdict[str, list[_Stage]] = defaultdict(list)

    def begin(self, title: str, num_frames: int, task_id: str = "", worker: str = "") -> None:
        """Ignored."""

    def frames(self, num_frames: int, worker: str = "") -> None:
        """Ignored."""

    def waiting(self, stage: str, num_items: int) -> None:
        """Ignored."""

    def event(self, name: str, **values: Value) -> None:
        """Stores steps until their task ends, then exports spans."""
        task_id = str(values.get("task_id", ""))
        now = time.time_ns()
        if name == "stage_done":
            wall, busy = _number(values.get("wall_seconds")), _number(values.get("busy_seconds"))
            stage = _Stage(str(values.get("stage")), now - int(wall * 1e9), now, busy)
            with self._lock:
                self._stages[task_id].append(stage)
        elif name in _TASK_ENDS:
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
    """Yields spans that are sent to the collector in `OTEL_EXPORTER_OTLP_ENDPOINT` and related variables.

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
        yield Spans(provider.get_tracer("prelabel", version("prelabel")))
    finally:
        provider.shutdown()  # sends the remaining spans


def is_asked_for() -> bool:
    """Returns whether the environment names a collector."""
    return any(os.environ.get(name) for name in ENDPOINTS)


def _number(value: Value) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
