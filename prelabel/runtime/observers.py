"""What others are told of a run while it works: Prometheus, OpenTelemetry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from prelabel.runtime.progress import Progress
from prelabel.runtime.telemetry import export_spans, is_asked_for


@contextmanager
def observers(metrics_port: int | None) -> Iterator[list[Progress]]:
    """Yields who else is to be told of a run.

    Args:
        metrics_port: where Prometheus metrics are served; None: nowhere.

    Raises:
        MachineError: what was asked for cannot be had.
    """
    with ExitStack() as stack:
        told: list[Progress] = []
        if metrics_port is not None:
            from prelabel.runtime.telemetry import serve_metrics

            told.append(stack.enter_context(serve_metrics(metrics_port)))
        if is_asked_for():
            told.append(stack.enter_context(export_spans()))
        yield told
