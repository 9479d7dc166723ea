"""`prelabel serve` as a process: notifications over HTTP lead to passes over the stage."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from prelabel.cli.app import main
from prelabel.run.serve import WorkSignal
from prelabel.runtime.interrupts import StopSignal
from prelabel.testing.encord_server import AGENT, ANNOTATE
from tests.encord_fixtures import Platform
from tests.processes import Command, command
from tests.signed import SECRET, notification, signed

pytestmark = [pytest.mark.usefixtures("encord_environment")]
CODE = """
from prelabel import Detections

class Boxes:
    class_names = ("Pedestrian",)

    def detect(self, batch):
        return [Detections([[2, 2, 20, 20]], [0.7], [0]) for _ in batch.frame_indices]
"""


@dataclass
class Served:
    """A command that serves, and its address."""

    command: Command
    url: str
    platform: Platform

    def post(self, body: bytes, headers: dict[str, str]) -> int:
        return requests.post(self.url, data=body, headers=headers, timeout=20).status_code

    def is_ready(self) -> bool:
        return requests.get(f"{self.url}ready", timeout=20).status_code == 200

    def notify(self) -> int:
        stage = self.platform.project.stage(AGENT)
        body = notification(self.platform.project.uuid, stage.uuid)
        return self.post(body, signed(body))

    def num_moved(self) -> int:
        return len(self.platform.project.titles_at(ANNOTATE))


def wait_until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 240
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@contextmanager
def serving(platform: Platform, folder: Path, *options: str) -> Iterator[Served]:
    (folder / "mine.py").write_text(CODE)
    config = folder / "prelabel.yaml"
    config.write_text(
        f"source: {{use: encord, project_hash: {platform.project.uuid}, stage: {AGENT}, output: out}}\n"
        "detector: {use: mine.py:Boxes}\npathway: Annotate 1\n"
    )
    words = ["serve", str(config), "--host", "127.0.0.1", "--port", "0", *options]
    with command(words, folder, ENCORD_WEBHOOK_SECRET=SECRET) as served:
        addresses = (re.search(r"http://127\.0\.0\.1:\d+/", line) for line in served.lines())
        yield Served(served, next(address.group() for address in addresses if address), platform)


@pytest.mark.slow
def test_what_waits_at_the_start_is_labelled_and_each_notification_leads_to_a_pass(platform: Platform, tmp_path: Path):
    with serving(platform, tmp_path) as served:
        wait_until(lambda: served.num_moved() == 1, "the waiting task was not labelled")
        wait_until(served.is_ready, "never ready")
        platform.add_clips(3)
        assert [served.notify() for _ in range(3)] == [200, 200, 200]
        wait_until(lambda: served.num_moved() == 4, "the new tasks were not labelled")
        assert requests.get(f"{served.url}health", timeout=20).text == "ok"
        served.command.process.terminate()
        assert served.command.end() == 0
    assert len(platform.server.world.moves) == len(platform.server.world.saves) == 4  # nothing is done twice


@pytest.mark.slow
def test_only_signed_notifications_of_the_configs_stage_lead_to_a_pass(platform: Platform, tmp_path: Path):
    stage = platform.project.stage(AGENT)
    body, foreign = (
        notification(platform.project.uuid, stage.uuid),
        notification(platform.project.uuid, platform.project.uuid),
    )
    with serving(platform, tmp_path) as served:
        wait_until(lambda: served.num_moved() == 1, "the waiting task was not labelled")
        platform.add_clips(1)
        assert served.post(body, {}) == 401
        assert served.post(body, signed(body, secret="another")) == 401
        assert served.post(body, signed(body, at=time.time() - 400)) == 401
        assert served.post(foreign, signed(foreign)) == 404
        assert served.post(b"", signed(b"")) == 400
        assert served.post(b"x" * 100_000, signed(b"x" * 100_000)) == 413
        assert served.post(body, {"X-Encord-Editor-Agent": "1"}) == 200
        assert requests.get(served.url, timeout=20).status_code == 405
        assert served.num_moved() == 1
        headers = signed(body)
        assert [served.post(body, headers) for _ in range(2)] == [200, 409]
        wait_until(lambda: served.num_moved() == 2, "the new task was not labelled")


@pytest.mark.slow
def test_a_lost_notification_is_made_up_for_by_the_poll(platform: Platform, tmp_path: Path):
    with serving(platform, tmp_path, "--poll", "1") as served:
        wait_until(lambda: served.num_moved() == 1, "the waiting task was not labelled")
        platform.add_clips(1)
        wait_until(lambda: served.num_moved() == 2, "the poll did not see the new task")


@pytest.mark.slow
def test_workers_label_what_waits_and_what_comes(platform: Platform, tmp_path: Path):
    with serving(platform, tmp_path, "--set", "workers={num: 1, gpus: 0, cpus: 1}") as served:
        wait_until(lambda: served.num_moved() == 1, "the waiting task was not labelled")
        platform.add_clips(1)
        assert served.notify() == 200
        wait_until(lambda: served.num_moved() == 2, "the new task was not labelled")
        served.command.process.terminate()
        assert served.command.end() == 0


@pytest.mark.slow
def test_it_ends_by_itself_when_nothing_comes(platform: Platform, tmp_path: Path):
    with serving(platform, tmp_path, "--idle-exit", "1") as served:
        assert served.command.end() == 0
    assert len(platform.project.titles_at(ANNOTATE)) == 1


@pytest.mark.slow
def test_a_restart_goes_on_where_a_killed_process_was(platform: Platform, tmp_path: Path):
    with serving(platform, tmp_path) as served:
        wait_until(lambda: served.num_moved() == 1, "the waiting task was not labelled")
    platform.add_clips(2)
    with serving(platform, tmp_path) as served:
        wait_until(lambda: served.num_moved() == 3, "what waited was not labelled after the restart")
    assert len(platform.server.world.moves) == 3


def test_without_a_secret_nothing_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    config = tmp_path / "prelabel.yaml"
    config.write_text("source: {use: encord, project_hash: x, stage: y}\ndetector: {weights: demo}\npathway: z\n")
    monkeypatch.delenv("ENCORD_WEBHOOK_SECRET", raising=False)
    monkeypatch.setattr(sys, "argv", ["prelabel", "serve", str(config)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "ENCORD_WEBHOOK_SECRET is not set" in capsys.readouterr().err


def test_work_that_comes_during_a_pass_is_one_more_pass():
    waiting = WorkSignal(StopSignal(), poll_seconds=60, idle_exit_seconds=0.3)
    waiting.notify()
    waiting.notify()
    assert waiting.wait()
    assert not waiting.wait()


def test_polls_do_not_keep_an_idle_process_alive():
    waiting = WorkSignal(StopSignal(), poll_seconds=0.1, idle_exit_seconds=0.5)
    assert waiting.wait()
    while waiting.wait():
        pass


def test_a_stop_ends_the_wait():
    stop = StopSignal()
    stop.ask()
    assert not WorkSignal(stop, poll_seconds=60).wait()
