"""What a run tells of tasks that are done: all of it wherever the run ends, and without a second look at any."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prelabel import Detections
from prelabel.assembly.assemble import Assembly, assemble
from prelabel.config.load import check_config
from prelabel.run.agents import detection
from prelabel.run.checks import prepare
from prelabel.run.finished import KnownReport
from prelabel.run.outputs import complete
from prelabel.run.runner import run_tasks
from prelabel.runtime.interrupts import StopSignal
from prelabel.runtime.progress import NullProgress, Progress
from prelabel.store.raw_detections import read_raw
from prelabel.store.report import RunReport
from tests.kept import write_grey_clip
from tests.running import run, run_whole

DETECTOR = """
from prelabel import Detections

class Finds:
    class_names = ("thing",)

    def __init__(self, conf: float = 0.5): ...

    def detect(self, batch):
        return [Detections(xyxy=[[2, 2, 20, 20]], confidence=[0.8], class_id=[0]) for _ in batch.frame_indices]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(DETECTOR)
    for name in ("b.mp4", "c.mp4"):
        add_clip(tmp_path, name)
    return tmp_path


def add_clip(folder: Path, name: str) -> None:
    (folder / "clips").mkdir(exist_ok=True)
    write_grey_clip(folder / "clips" / name, 64, 48, 6)


def assembly_of(folder: Path, **labels: object) -> Assembly:
    values = {
        "source": {"path": str(folder / "clips"), "output": str(folder / "out"), "preview": "none"},
        "detector": {"use": "mine.py:Finds", "batch_size": 2},
        "labels": labels,
    }
    return assemble(check_config(values, "test.yaml"), folder)


def labelled_in(folder: Path) -> set[str]:
    return {image["video"] for image in json.loads((folder / "out" / "coco.json").read_text())["images"]}


def statuses(report: RunReport) -> dict[str, str]:
    return {task.title: task.status for task in report.tasks}


@pytest.mark.parametrize("num_asks", [1, 2])
def test_a_run_that_is_stopped_keeps_what_earlier_ones_labelled_in_the_files_about_all(folder, num_asks):
    run_whole(assembly_of(folder))
    add_clip(folder, "a.mp4")
    assembly, stop = assembly_of(folder), StopSignal()
    prepare(assembly)

    class Stops:
        class_names = ("thing",)

        def detect(self, batch):
            for _ in range(0 if stop.is_set else num_asks):
                stop.ask()
            return [Detections.empty() for _ in batch.frame_indices]

    assembly.detection.__dict__["detector"] = Stops()
    report = complete(assembly, run(assembly, stop=stop), NullProgress())
    assert report.stopped
    done = {"a.mp4": "done"} if num_asks == 1 else {}
    assert statuses(report) == {**done, "b.mp4": "already done", "c.mp4": "already done"}
    assert labelled_in(folder) == {*done, "b.mp4", "c.mp4"}


def test_a_run_with_a_limit_keeps_them_too(folder):
    run_whole(assembly_of(folder))
    add_clip(folder, "a.mp4")
    assert statuses(run_whole(assembly_of(folder), limit=1)) == {
        "a.mp4": "done",
        "b.mp4": "already done",
        "c.mp4": "already done",
    }
    assert labelled_in(folder) == {"a.mp4", "b.mp4", "c.mp4"}


def test_what_an_earlier_config_labelled_is_left_out_and_counted(folder):
    run_whole(assembly_of(folder))
    report = run_whole(assembly_of(folder, conf=0.6), limit=1)
    assert labelled_in(folder) == {"b.mp4"}
    assert any(warning.startswith("1 of the files were labelled under another config") for warning in report.warnings)
    assert not run_whole(assembly_of(folder, conf=0.6)).warnings


def look_again(folder: Path, known: dict[str, KnownReport], progress: Progress | None = None) -> dict[str, str]:
    report = run_tasks(assembly_of(folder), progress or NullProgress(), StopSignal(), known=known)
    return statuses(report)


def test_a_second_look_at_finished_tasks_reads_nothing_that_was_found(folder, monkeypatch):
    known: dict[str, KnownReport] = {}
    read: list[str] = []
    monkeypatch.setattr(detection, "read_raw", lambda source: read.append("raw") or read_raw(source))
    assert set(look_again(folder, known).values()) == {"done"}
    assert set(look_again(folder, known).values()) == {"already done"}
    read.clear()
    assert set(look_again(folder, known).values()) == {"already done"}
    assert read == []


@pytest.mark.parametrize("lost", ["b.labels.json", "b.detections.parquet"])
def test_a_finished_task_whose_files_are_gone_is_done_again_at_the_next_look(folder, lost):
    known: dict[str, KnownReport] = {}
    look_again(folder, known)
    look_again(folder, known)
    (folder / "out" / lost).unlink()
    assert look_again(folder, known) == {"b.mp4": "done", "c.mp4": "already done"}
    assert (folder / "out" / lost).exists()


def test_a_finished_file_that_changes_is_done_again_at_the_next_look(folder):
    known: dict[str, KnownReport] = {}
    look_again(folder, known)
    look_again(folder, known)
    write_grey_clip(folder / "clips" / "c.mp4", 64, 48, 8)
    assert look_again(folder, known) == {"b.mp4": "already done", "c.mp4": "done"}
