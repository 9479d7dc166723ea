"""`labels.if_begun: skip`: what people have begun is left as it is, row and task."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prelabel import Detections, FrameBatch
from prelabel.assembly.assemble import Assembly, assemble
from prelabel.config.fingerprints import config_fingerprint
from prelabel.config.load import check_config
from prelabel.data.frames import VideoInfo
from prelabel.errors import ConfigError, TakenError
from prelabel.testing.encord_server import AGENT, ANNOTATE
from tests.encord_fixtures import NUM_FRAMES, Platform
from tests.kept import write_grey_clip
from tests.labelling import detections
from tests.running import run

pytestmark = [
    pytest.mark.filterwarnings("ignore:save_label_row is deprecated:DeprecationWarning"),
]


class OneBox:
    class_names = ("Pedestrian",)

    def detect(self, batch: FrameBatch) -> list[Detections]:
        return [Detections([(2, 2, 20, 20)], [0.9], [0]) for _ in batch.frame_indices]


def assembly_of(folder: Path, source: dict, **sections) -> Assembly:
    values = {"source": {**source, "output": str(folder / "out")}, "labels": {"if_begun": "skip"}, **sections}
    return assemble(check_config({"detector": {"use": "tests.run.test_begun_rows:OneBox"}, **values}, "test"), folder)


def on_platform(platform: Platform, folder: Path, **sections) -> Assembly:
    source = {"use": "encord", "project_hash": platform.project.uuid, "stage": AGENT}
    return assembly_of(folder, source, pathway="Annotate 1", **sections)


def begin(platform: Platform) -> None:
    row = platform.initialised_row()
    row.add_classification_instance(platform.wet_weather())
    row.save()


@pytest.mark.usefixtures("encord_environment")
def test_a_begun_row_and_its_task_are_left_while_others_go_on(platform: Platform, tmp_path: Path):
    platform.add_clips(1)
    begin(platform)
    report = run(on_platform(platform, tmp_path))
    assert {task.title: task.status for task in report.tasks} == {"clip.mp4": "skipped", "0.mp4": "done"}
    reasons = {task.title: task.reason for task in report.tasks}  # whichever was fetched first
    assert "its label row has 1 label that prelabel did not write" in reasons["clip.mp4"]
    assert platform.initialised_row().get_object_instances() == []
    assert platform.project.titles_at(AGENT) == ["clip.mp4"]
    assert platform.project.titles_at(ANNOTATE) == ["0.mp4"]
    assert len(platform.server.world.links) == 1

    assert [task.status for task in run(on_platform(platform, tmp_path, labels={})).tasks] == ["done"]
    assert len(platform.initialised_row().get_object_instances()) == NUM_FRAMES


@pytest.mark.usefixtures("encord_environment")
def test_a_row_that_is_begun_while_its_video_is_looked_at_is_not_written(platform: Platform, tmp_path: Path):
    assembly = on_platform(platform, tmp_path)
    (task,) = assembly.source.tasks()
    begin(platform)
    info = VideoInfo(width=96, height=64, num_frames=NUM_FRAMES, average_fps=30.0)
    with pytest.raises(TakenError, match=r"clip\.mp4: its label row has 1 label .*labels\.if_begun"):
        assembly.sink.write(task, info, detections((0, (2, 2, 20, 20), 0.9, 0)))
    assert platform.initialised_row().get_object_instances() == []


@pytest.mark.usefixtures("encord_environment")
def test_prelabel_s_own_labels_begin_no_row(platform: Platform, tmp_path: Path):
    assembly = on_platform(platform, tmp_path)
    (task,) = assembly.source.tasks()
    info = VideoInfo(width=96, height=64, num_frames=NUM_FRAMES, average_fps=30.0)
    assembly.sink.write(task, info, detections((0, (2, 2, 20, 20), 0.9, 0)))
    assert [task.status for task in run(assembly).tasks] == ["done"]
    assert len(platform.initialised_row().get_object_instances()) == NUM_FRAMES


def test_a_folder_s_row_that_somebody_has_changed_is_left(tmp_path: Path):
    write_grey_clip(tmp_path / "clips" / "a.mp4", 96, 64, 2)
    assert [task.status for task in run(assembly_of(tmp_path, {"path": str(tmp_path / "clips")})).tasks] == ["done"]
    path = tmp_path / "out" / "a.labels.json"
    row = json.loads(path.read_text())
    (unit,) = row["data_units"].values()
    unit["labels"]["0"]["objects"][0]["manualAnnotation"] = True
    path.write_text(json.dumps(row))
    labels = {"if_begun": "skip", "instances": "tracks"}
    (task,) = run(assembly_of(tmp_path, {"path": str(tmp_path / "clips")}, labels=labels)).tasks
    assert (task.status, json.loads(path.read_text())) == ("skipped", row)


def test_skip_or_merge_makes_no_labels_anew(tmp_path: Path):
    def sums(**labels) -> tuple[str, str]:
        assembly = assembly_of(tmp_path, {"path": str(tmp_path)}, labels=labels)
        return assembly.detection.label_fingerprint, config_fingerprint(assembly.config)

    assert sums(if_begun="skip") == sums(if_begun="merge")
    assert sums(if_begun="skip") != sums(conf=0.5)


def test_a_function_decides_itself(tmp_path: Path):
    values = {
        "source": {"path": str(tmp_path), "ontology": "o.json"},
        "agent": {"use": "a.py:b"},
        "labels": {"if_begun": "skip"},
    }
    with pytest.raises(ConfigError, match=r"labels\.if_begun: a function of your own"):
        check_config(values, "test")
