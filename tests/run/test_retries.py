"""A failed task: retried within the run, by `prelabel retry`, and by `--watch` after a rest."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from prelabel.assembly.assemble import Assembly, assemble
from prelabel.cli.commands import retry_failed, run_config, show_status
from prelabel.config.load import check_config
from prelabel.errors import ConfigError, LabelError
from prelabel.run.finished import RetryBackoff
from prelabel.runtime.interrupts import StopSignal
from prelabel.runtime.progress import NullProgress
from prelabel.store.ledger import LEDGER, Entry, Ledger
from tests.kept import write_grey_clip
from tests.running import run

DETECTOR = """
from pathlib import Path
from prelabel import Detections

class Unlucky:
    '''Raises at frame 3 for as long as the file `luck` has characters left; each takes one.'''

    class_names = ("thing",)

    def __init__(self, luck: str, log: str):
        self.luck, self.log = Path(luck), Path(log)

    def detect(self, batch):
        with self.log.open("a") as log:
            log.write(f"{batch.frame_indices[0]}\\n")
        left = self.luck.read_text()
        if 3 in batch.frame_indices and left:
            self.luck.write_text(left[1:])
            raise RuntimeError("out of luck")
        return [Detections(xyxy=[[1, 2, 30, 40]], confidence=[0.5], class_id=[0]) for _ in batch.frame_indices]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_grey_clip(tmp_path / "clips" / "a.mp4", 64, 48, 6)
    (tmp_path / "mine.py").write_text(DETECTOR)
    (tmp_path / "luck").write_text("")
    (tmp_path / "config.yaml").write_text(
        f"source: {{path: {tmp_path}/clips, output: {tmp_path}/out}}\n"
        f"detector: {{use: 'mine.py:Unlucky', luck: {tmp_path}/luck, log: {tmp_path}/log, batch_size: 2}}\n"
        "retries: {wait_seconds: 0}\n"
    )
    return tmp_path


def assembly_of(folder: Path, attempts: int = 2) -> Assembly:
    values = {
        "source": {"path": str(folder / "clips"), "output": str(folder / "out")},
        "detector": {
            "use": "mine.py:Unlucky",
            "luck": str(folder / "luck"),
            "log": str(folder / "log"),
            "batch_size": 2,
        },
        "retries": {"attempts": attempts, "wait_seconds": 0},
    }
    return assemble(check_config(values, "test"), folder)


def entry(folder: Path) -> Entry | None:
    with closing(Ledger(folder / "out" / LEDGER)) as ledger:
        return ledger.entry("a.mp4")


def first_frames(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "log").read_text().splitlines()]


def test_a_failure_that_passes_costs_nothing_but_time(folder):
    (folder / "luck").write_text("x")
    (task,) = run(assembly_of(folder)).tasks
    assert (task.status, task.instances) == ("done", {"thing": 6})
    assert first_frames(folder) == [0, 2, 0, 2, 4]


def test_a_failure_that_lasts_is_set_aside_after_the_tries_the_config_gives(folder):
    (folder / "luck").write_text("xxxxxxxx")
    (task,) = run(assembly_of(folder, attempts=3)).tasks
    assert task.status == "failed"
    assert first_frames(folder) == [0, 2] * 3
    found = entry(folder)
    assert (found.step, found.num_failures, "out of luck" in found.reason) == ("failed", 1, True)


def test_what_fails_the_same_each_time_is_not_tried_again(folder):
    assembly = assembly_of(folder, attempts=5)
    writes = []

    class Refuses:
        def write(self, task, info, detections):
            writes.append(task.key)
            raise LabelError("the row is too small")

    assembly.__dict__["sink"] = Refuses()
    (task,) = run(assembly).tasks
    assert (task.reason, len(writes)) == ("the row is too small", 1)


def test_others_are_through_before_a_failed_task_is_tried_again(folder):
    write_grey_clip(folder / "clips" / "b.mp4", 64, 48, 6)
    (folder / "luck").write_text("x")
    assert [task.title for task in run(assembly_of(folder)).tasks] == ["b.mp4", "a.mp4"]


def test_a_plain_run_takes_up_what_was_set_aside_and_a_watching_one_lets_it_rest(folder):
    (folder / "luck").write_text("x")
    run(assembly_of(folder, attempts=1))
    assert run(assembly_of(folder), choose=RetryBackoff(timedelta(minutes=10))).tasks == ()
    assert entry(folder).step == "failed"
    assert [task.status for task in run(assembly_of(folder)).tasks] == ["done"]
    assert entry(folder).num_failures == 0


def test_retry_takes_up_what_was_set_aside_and_nothing_else(folder, capsys):
    (folder / "luck").write_text("xx")
    config = folder / "config.yaml"
    assert run_config(config) == 1
    assert show_status(config) == 1
    assert "out of luck" in capsys.readouterr().out
    write_grey_clip(folder / "clips" / "b.mp4", 64, 48, 6)
    with pytest.raises(ConfigError, match=r"b\.mp4: is not a failed task: did you mean 'a\.mp4'"):
        retry_failed(config, (), ["b.mp4"])
    assert retry_failed(config, (), ["a.mp4"]) == 0
    with closing(Ledger(folder / "out" / LEDGER)) as ledger:
        assert [(found.title, found.step) for found in ledger.entries()] == [("a.mp4", "done")]
    assert retry_failed(config, (), ()) == 0
    assert "no task has failed" in capsys.readouterr().err


def test_what_a_retry_writes_of_the_whole_run_holds_what_was_done_before(folder):
    write_grey_clip(folder / "clips" / "b.mp4", 64, 48, 6)
    (folder / "luck").write_text("x")
    config, once = folder / "config.yaml", ["retries.attempts=1"]
    assert run_config(config, once) == 1
    assert retry_failed(config, once, ()) == 0
    coco = json.loads((folder / "out" / "coco.json").read_text())
    assert {image["video"] for image in coco["images"]} == {"a.mp4", "b.mp4"}


def test_asking_to_stop_reports_what_waits_for_its_next_try_as_failed(folder):
    (folder / "luck").write_text("x")
    assembly, stop = assembly_of(folder), StopSignal()

    class Stops(NullProgress):
        def event(self, name, **values):
            if name == "task_to_retry":
                stop.ask()

    report = run(assembly, progress=Stops(), stop=stop)
    assert [task.status for task in report.tasks] == ["failed"]
    assert entry(folder).step == "failed"
