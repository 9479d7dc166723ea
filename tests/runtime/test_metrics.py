from __future__ import annotations

import logging
import socket
from pathlib import Path
from socketserver import BaseServer
from urllib.request import urlopen

import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families

from prelabel.cli.commands import run_config
from prelabel.errors import MachineError
from prelabel.runtime.progress import MultiProgress
from prelabel.runtime.telemetry import serve_metrics
from tests.make_media import NUM_FRAMES, RECIPES, write_clip


@pytest.fixture(autouse=True)
def servers_stop_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server looks every twentieth of a second whether it is to stop, not every half."""
    monkeypatch.setattr(BaseServer.serve_forever, "__defaults__", (0.05,))


def scrape(port: int) -> dict[tuple[str, tuple[str, ...]], float]:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=50) as answer:
        text = answer.read().decode()
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_what_is_told_is_served(port: int):
    with serve_metrics(port) as metrics:
        metrics.begin("a.mp4", 20, "a")
        metrics.frames(8)
        metrics.waiting("decode", 2)
        metrics.event("task_done", task="a.mp4", seconds={"decode": 1.5, "detect": 2.0})
        metrics.event("task_failed", task="b.mp4", reason="no")
        seen = scrape(port)
    assert seen["prelabel_frames_total", ()] == 8
    assert seen["prelabel_task_frames", ()] == 20
    assert seen["prelabel_queue_items", ("decode",)] == 2
    assert seen["prelabel_stage_busy_seconds_total", ("detect",)] == 2
    assert {status: seen["prelabel_tasks_total", (status,)] for status in ("done", "failed", "skipped")} == {
        "done": 1,
        "failed": 1,
        "skipped": 0,
    }


@pytest.mark.parametrize("logger", ["prelabel.encord.calls", "prelabel.runtime.download"])
def test_retries_are_counted_where_they_are_logged(logger: str, port: int):
    with serve_metrics(port):
        logging.getLogger(logger).info("%s; trying again", "no answer", extra={"retry": "call"})
        logging.getLogger(logger).info("something else")
        assert scrape(port)["prelabel_retries_total", ("call",)] == 1


def test_the_port_is_free_again_afterwards_and_the_log_as_it_was(port: int):
    log = logging.getLogger("prelabel")
    before = log.level, list(log.handlers)
    for _ in range(2):
        with serve_metrics(port):
            scrape(port)
    assert (log.level, log.handlers) == before


def test_a_port_in_use_is_named():
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(MachineError, match=rf"--metrics-port {port}: .*name another port"), serve_metrics(port):
            pass


def test_a_run_counts_its_tasks_frames_and_seconds(port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("a", "b"):
        write_clip(tmp_path / f"{name}.mp4", RECIPES["h264"])
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    (tmp_path / "config.yaml").write_text(
        f"source: {{path: '{tmp_path}/*.mp4', output: '{tmp_path}/out'}}\ndetector: {{use: 'blind.py:Blind'}}\n"
        "retries: {wait_seconds: 0}\n"
    )
    (tmp_path / "blind.py").write_text(BLIND)
    seen = {}

    def scrape_at_the_end(*_: object) -> None:
        seen.update(scrape(port))

    monkeypatch.setattr("prelabel.cli.commands.show_report", scrape_at_the_end)
    code = run_config(tmp_path / "config.yaml", metrics_port=port)
    assert code == 1
    assert seen["prelabel_tasks_total", ("done",)] == 2
    assert seen["prelabel_tasks_total", ("failed",)] == 1
    assert seen["prelabel_frames_total", ()] == 2 * NUM_FRAMES
    assert seen["prelabel_stage_busy_seconds_total", ("decode",)] > 0
    assert seen["prelabel_queue_items", ("decode",)] == 0


@pytest.mark.needs_cuda
def test_gpu_memory_is_told_once_torch_uses_a_gpu(port: int):
    with serve_metrics(port):
        held = torch.zeros(1 << 20, dtype=torch.uint8, device="cuda")
        seen = scrape(port)
    assert seen["prelabel_gpu_memory_bytes", ("0", "allocated")] >= held.nbytes
    assert seen["prelabel_gpu_memory_bytes", ("0", "used")] > seen["prelabel_gpu_memory_bytes", ("0", "allocated")]


def test_several_are_told_in_order():
    told: list[str] = []

    class Noting:
        def __init__(self, name: str) -> None:
            self.name = name

        def __getattr__(self, member: str):
            return lambda *_, **__: told.append(f"{self.name}.{member}")

    several = MultiProgress(Noting("a"), Noting("b"))
    several.begin("clip", 1, "id")
    several.frames(1)
    several.waiting("decode", 1)
    several.event("done")
    assert told == [f"{name}.{member}" for member in ("begin", "frames", "waiting", "event") for name in "ab"]


BLIND = """
from prelabel import Detections


class Blind:
    class_names = ("nothing",)

    def detect(self, batch):
        return [Detections.empty() for _ in batch.frame_indices]
"""
