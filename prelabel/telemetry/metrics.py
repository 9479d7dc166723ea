"""Prometheus metrics of a run, served for as long as it lasts."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

import prelabel
from prelabel.errors import MachineError
from prelabel.progress import Value

_ENDINGS = {"task_done": "done", "task_failed": "failed", "task_skipped": "skipped"}
_STAGES = ("fetch", "decode", "detect", "save")


class Metrics:
    """Counts what a run tells. A `Progress`; its numbers grow over all passes of `--watch`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        info = Gauge("prelabel_info", "1; the version is a label", ["version"], registry=registry)
        info.labels(prelabel.__version__).set(1)
        self._tasks = Counter("prelabel_tasks", "Tasks that ended, by how", ["status"], registry=registry)
        self._frames = Counter("prelabel_frames", "Frames that were looked at", registry=registry)
        self._task_frames = Gauge("prelabel_task_frames", "Frames of the task in hand", registry=registry)
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

    def begin(self, title: str, num_frames: int, task_id: str = "") -> None:
        """Notes how long the task in hand is."""
        self._task_frames.set(num_frames)
        self._last_sign.set_to_current_time()

    def frames(self, num_frames: int) -> None:
        """Counts frames."""
        self._frames.inc(num_frames)
        self._last_sign.set_to_current_time()

    def waiting(self, stage: str, num_items: int) -> None:
        """Notes a queue's length."""
        self._waiting.labels(stage).set(num_items)

    def event(self, name: str, **values: Value) -> None:
        """Counts tasks that ended, and the seconds that went into them."""
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
    """Yields metrics that are served on all addresses of this machine, at `/metrics`, until the context ends.

    Raises:
        MachineError: the port cannot be had.
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
    log.setLevel(logging.INFO)  # retries are told at this level
    try:
        yield metrics
    finally:
        log.removeHandler(counting)
        log.setLevel(level)
        server.shutdown()
        server.server_close()
        thread.join()


class _RetriesInLog(logging.Handler):
    """Counts log records that say with `retry` what is tried again."""

    def __init__(self, metrics: Metrics) -> None:
        super().__init__(logging.INFO)
        self._metrics = metrics

    def emit(self, record: logging.LogRecord) -> None:
        of = getattr(record, "retry", None)
        if of is not None:
            self._metrics.retried(str(of))


class _GpuMemory(Collector):
    """Memory of every GPU, asked for when somebody scrapes; nothing before torch uses one."""

    def collect(self) -> Iterable[GaugeMetricFamily]:
        torch = sys.modules.get("torch")
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
