"""Monitoring of a run: Prometheus metrics and OpenTelemetry spans."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from prelabel.runtime.progress import Progress
from prelabel.runtime.telemetry import export_spans, is_asked_for


@contextmanager
def observers(metrics_port: int | None) -> Iterator[list[Progress]]:
    """Yields the observers of a run that are asked for.

    Args:
        metrics_port: port of the Prometheus metrics; None: no metrics.

    Raises:
        MachineError: the port is taken, or OpenTelemetry is not installed.
    """
    with ExitStack() as stack:
        told: list[Progress] = []
        if metrics_port is not None:
            from prelabel.runtime.telemetry import serve_metrics

            told.append(stack.enter_context(serve_metrics(metrics_port)))
        if is_asked_for():
            told.append(stack.enter_context(export_spans()))
        yield told
