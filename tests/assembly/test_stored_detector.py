"""Labels anew from what runs have kept: no detector, no video, no move; people's work stays."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from prelabel import Detections, FrameBatch, ModelTraits
from prelabel.assembly.assemble import assemble_stored
from prelabel.cli.commands import draw_previews, evaluate_labels, export_labels, relabel_kept, run_config
from prelabel.config.load import check_config
from prelabel.errors import ConfigError
from prelabel.store.ledger import LEDGER, Ledger
from prelabel.store.report import RunReport
from prelabel.testing.encord_server import AGENT, ANNOTATE, REVIEW
from tests.encord_fixtures import NUM_FRAMES, Platform
from tests.kept import write_grey_clip
from tests.running import run

pytestmark = [
    pytest.mark.filterwarnings("ignore:save_label_row is deprecated:DeprecationWarning"),
]


class Unsure:
    """Gives boxes down to a low confidence; those from `conf` on become labels. Counts how often it is built."""

    class_names = ("Pedestrian", "Vehicle")
    num_built = 0

    def __init__(self, conf: float = 0.5):
        self.traits = ModelTraits(conf=conf, raw_conf=0.1)
        Unsure.num_built += 1

    def detect(self, batch: FrameBatch) -> list[Detections]:
        boxes = [(2, 2, 20, 20), (30, 2, 50, 22)]
        return [Detections(boxes, [0.9, 0.3], [0, 1]) for _ in batch.frame_indices]


class Other(Unsure):
    class_names = ("another",)

    def detect(self, batch: FrameBatch) -> list[Detections]:
        return [Detections([(2, 2, 20, 20)], [0.9], [0]) for _ in batch.frame_indices]


class Sure:
    """Gives no box but those that become labels."""

    class_names = ("Pedestrian",)

    def __init__(self, conf: float = 0.5): ...

    def detect(self, batch: FrameBatch) -> list[Detections]:
        return [Detections([(2, 2, 20, 20)], [0.9], [0]) for _ in batch.frame_indices]


def config_file(folder: Path, **sections) -> Path:
    values = {
        "source": {"path": str(folder / "clips"), "output": str(folder / "out")},
        "detector": {"use": "tests.assembly.test_stored_detector:Unsure"},
        **sections,
    }
    path = folder / "config.yaml"
    path.write_text(json.dumps(values))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_grey_clip(tmp_path / "clips" / "a.mp4", 96, 64, 6)
    assert run_config(config_file(tmp_path)) == 0
    return tmp_path


def report_of(folder: Path) -> dict:
    return json.loads((folder / "out" / "report.json").read_text())


def num_instances(folder: Path) -> int:
    return len(json.loads((folder / "out" / "a.labels.json").read_text())["object_answers"])


def test_a_lower_threshold_needs_neither_the_video_nor_the_detector(folder):
    assert num_instances(folder) == 6
    (folder / "clips" / "a.mp4").unlink()
    num_built = Unsure.num_built
    assert relabel_kept(config_file(folder), ["detector.conf=0.2"]) == 0
    assert (num_instances(folder), Unsure.num_built) == (12, num_built)
    (task,) = report_of(folder)["tasks"]
    assert (task["status"], task["instances"]) == ("done", {"Pedestrian": 6, "Vehicle": 6})
    assert len(json.loads((folder / "out" / "coco.json").read_text())["annotations"]) == 12


def test_relabelling_and_running_know_what_the_other_has_done(folder):
    config = config_file(folder, labels={"instances": "tracks", "keyframes": {}})
    for _ in range(2):
        assert relabel_kept(config, ()) == 0
    assert [task["status"] for task in report_of(folder)["tasks"]] == ["already done"]
    assert run_config(config) == 0
    assert [task["status"] for task in report_of(folder)["tasks"]] == ["already done"]
    assert num_instances(folder) == 1


def test_a_threshold_under_what_is_kept_is_an_error_before_the_run_starts(folder, capfd):
    capfd.readouterr()
    with pytest.raises(
        ConfigError, match=r"detector\.conf: got 0\.05, detections are stored from 0\.1 on: `prelabel run"
    ):
        relabel_kept(config_file(folder), ["detector.conf=0.05"])
    assert capfd.readouterr().out == ""


def test_settings_for_looking_anew_are_said_to_be_without_effect(folder, capfd):
    settings = ["reader.stride=2", "detector.conf=0.2", "reader.decode_workers=3", "detector.batch_size=4"]
    said = "note reader.stride: changed since these detections were made, without effect here"
    assert relabel_kept(config_file(folder), settings) == 0
    assert num_instances(folder) == 12
    assert said in capfd.readouterr().err
    assert export_labels(config_file(folder), settings, "coco", folder / "all.json") == 0
    assert said in capfd.readouterr().err
    assert relabel_kept(config_file(folder), settings[1:]) == 0
    assert "without effect" not in capfd.readouterr().err


def test_so_are_those_that_a_changed_config_has(folder, capfd):
    changed = {
        "detector": {"use": "tests.assembly.test_stored_detector:Unsure", "conf": 0.2, "imgsz": 960},
        "frames": "warn",
    }
    with pytest.raises(ConfigError, match=r"detector\.imgsz"):
        relabel_kept(config_file(folder, **changed), ())
    changed["detector"] = {"use": "tests.assembly.test_stored_detector:Other"}
    assert relabel_kept(config_file(folder, **changed), ()) == 0
    assert num_instances(folder) == 6
    assert "note detector.use, frames: changed since" in capfd.readouterr().err


def test_a_threshold_below_which_nothing_is_kept_is_without_effect(tmp_path, capfd):
    write_grey_clip(tmp_path / "clips" / "a.mp4", 96, 64, 6)
    detector = {"use": "tests.assembly.test_stored_detector:Sure"}
    assert run_config(config_file(tmp_path, detector={**detector, "conf": 0.5})) == 0
    assert relabel_kept(config_file(tmp_path, detector={**detector, "conf": 0.95}), ()) == 0
    assert num_instances(tmp_path) == 6
    assert "note detector.conf: changed since" in capfd.readouterr().err


def test_a_threshold_that_the_config_leaves_to_the_detector_is_the_detectors(folder):
    relabel_kept(config_file(folder), ["detector.conf=0.2"])
    relabel_kept(config_file(folder), ())
    assert num_instances(folder) == 6


def test_a_class_that_was_left_out_can_be_mapped_later_and_a_mistake_costs_nothing(folder):
    relabel_kept(config_file(folder, labels={"classes": {"Pedestrian": None}}), ["detector.conf=0.2"])
    assert report_of(folder)["tasks"][0]["instances"] == {"Vehicle": 6}
    with pytest.raises(ConfigError, match="labels"):
        relabel_kept(config_file(folder, labels={"clases": {}}), ())
    assert report_of(folder)["tasks"][0]["instances"] == {"Vehicle": 6}


def test_boxes_of_an_earlier_detector_are_skipped(folder):
    write_grey_clip(folder / "clips" / "b.mp4", 96, 64, 4)
    other = {"use": "tests.assembly.test_stored_detector:Other"}
    (folder / "clips" / "a.mp4").rename(folder / "a.mp4")
    run_config(config_file(folder, detector=other))
    relabel_kept(config_file(folder, detector=other), ["labels.nms_iou=0.9"])
    report = report_of(folder)
    assert [task["title"] for task in report["tasks"]] == ["b.mp4"]
    (left,) = report["skipped"]
    assert (left["title"], left["reason"].split(":")[0]) == (
        "a.mp4",
        "its detections are of another detector or reader",
    )


def test_a_dry_run_of_it_leaves_labels_and_ledger_as_they_are(folder):
    with closing(Ledger(folder / "out" / LEDGER)) as ledger:
        before = ledger.entries()
    assert relabel_kept(config_file(folder), ["detector.conf=0.2"], dry_run=True) == 0
    assert num_instances(folder) == 6
    with closing(Ledger(folder / "out" / LEDGER)) as ledger:
        assert ledger.entries() == before
    dry = json.loads((folder / "out" / "dry-run" / "a.labels.json").read_text())
    assert len(dry["object_answers"]) == 12
    report = json.loads((folder / "out" / "dry-run" / "report.json").read_text())
    assert (report["dry_run"], report["tasks"][0]["instances"]) == (True, {"Pedestrian": 6, "Vehicle": 6})


def test_what_a_dry_run_found_is_labelled_anew_exported_and_drawn_without_its_detector(tmp_path):
    write_grey_clip(tmp_path / "clips" / "a.mp4", 96, 64, 6)
    config = config_file(tmp_path)
    assert run_config(config, dry_run=True) == 0
    num_built = Unsure.num_built
    with pytest.raises(ConfigError, match="holds no detections yet"):
        export_labels(config, (), "coco", tmp_path / "all.json")
    assert export_labels(config, ["detector.conf=0.2"], "coco", tmp_path / "all.json", dry_run=True) == 0
    assert len(json.loads((tmp_path / "all.json").read_text())["annotations"]) == 12
    assert draw_previews(config, (), (), "all", dry_run=True) == 0
    drawn = {path.name for path in (tmp_path / "out" / "dry-run").iterdir()}
    assert drawn >= {"a.preview.mp4", "a.preview.jpg", "report.html"}
    assert relabel_kept(config, ["detector.conf=0.2"], dry_run=True) == 0
    row = json.loads((tmp_path / "out" / "dry-run" / "a.labels.json").read_text())
    assert len(row["object_answers"]) == 12
    assert Unsure.num_built == num_built


def test_a_classifier_s_config_is_told_where_its_answers_are(tmp_path):
    values = {"source": {"path": str(tmp_path)}, "classifier": {"use": "tests.answering:ColourClassifier"}}
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match="this is for boxes: prelabel run applies another threshold"):
        relabel_kept(path, ())
    with pytest.raises(ConfigError, match="this is for boxes: --kind report shows"):
        draw_previews(path, (), (), "all")
    with pytest.raises(ConfigError, match="this is for boxes: the page of a run shows"):
        evaluate_labels(path, (), against=None, stages=(), min_iou=0.5, accept_iou=0.8)
    with pytest.raises(ConfigError, match=r"this is for boxes: answers are in classifications\.csv"):
        export_labels(path, (), "coco", tmp_path / "all.json")


def test_a_config_without_a_detector_is_not_told_to_run_first(tmp_path):
    values = {"source": {"path": str(tmp_path)}, "agent": {"use": "mine.py:handle"}}
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(values))
    for command in (
        lambda: relabel_kept(path, ()),
        lambda: draw_previews(path, (), (), "all"),
        lambda: export_labels(path, (), "coco", tmp_path / "all.json"),
        lambda: evaluate_labels(path, (), against=None, stages=(), min_iou=0.5, accept_iou=0.8),
    ):
        with pytest.raises(ConfigError, match=r"^detector: is missing: this command needs the boxes of a detector"):
            command()


def test_nothing_kept_is_said(tmp_path):
    with pytest.raises(ConfigError, match="holds no detections yet: `prelabel run CONFIG` first"):
        relabel_kept(config_file(tmp_path), ())


# On Encord


def encord_values(platform: Platform, folder: Path, **sections) -> dict:
    source = {"use": "encord", "project_hash": platform.project.uuid, "stage": AGENT, "output": str(folder / "out")}
    detector = {"use": "tests.assembly.test_stored_detector:Unsure"}
    return {"source": source, "detector": detector, "pathway": "Annotate 1", **sections}


@pytest.fixture
def labelled(platform: Platform, tmp_path: Path, encord_environment) -> Platform:
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(encord_values(platform, tmp_path)))
    assert run_config(path) == 0
    return platform


def relabel(platform: Platform, folder: Path) -> RunReport:
    values = encord_values(
        platform, folder, detector={"use": "tests.assembly.test_stored_detector:Unsure", "conf": 0.2}
    )
    return run(assemble_stored(check_config(values, "test"), folder))


def num_objects(platform: Platform) -> int:
    return len(platform.initialised_row().get_object_instances())


def test_a_row_that_nobody_has_begun_is_rewritten_where_it_stands_and_its_task_stays(labelled, tmp_path):
    num_moves, num_built = len(labelled.server.world.moves), Unsure.num_built
    assert num_objects(labelled) == NUM_FRAMES
    assert [task.status for task in relabel(labelled, tmp_path).tasks] == ["done"]
    assert num_objects(labelled) == 2 * NUM_FRAMES
    assert (len(labelled.server.world.moves), Unsure.num_built) == (num_moves, num_built)
    assert labelled.project.titles_at(ANNOTATE) == ["clip.mp4"]


def test_a_dry_run_of_it_saves_nothing_on_the_platform(labelled, tmp_path):
    values = encord_values(
        labelled, tmp_path, detector={"use": "tests.assembly.test_stored_detector:Unsure", "conf": 0.2}
    )
    num_saves = len(labelled.server.world.saves)
    report = run(assemble_stored(check_config(values, "test"), tmp_path, dry_run=True))
    assert [task.status for task in report.tasks] == ["done"]
    assert (len(labelled.server.world.saves), num_objects(labelled)) == (num_saves, NUM_FRAMES)
    row = json.loads((tmp_path / "out" / "dry-run" / "clip.labels.json").read_text())
    assert len(row["object_answers"]) == 2 * NUM_FRAMES


def test_a_row_on_which_somebody_has_deleted_or_moved_a_box_is_left_as_it_is(labelled, tmp_path):
    row = labelled.initialised_row()
    row.remove_object(row.get_object_instances()[0])
    row.save()
    for _ in range(2):
        (task,) = relabel(labelled, tmp_path).tasks
        assert f"{NUM_FRAMES - 1} of the {NUM_FRAMES} instances that prelabel wrote are unchanged" in task.reason
    assert num_objects(labelled) == NUM_FRAMES - 1


def test_a_row_that_somebody_is_assigned_to_or_that_has_gone_on_is_skipped(labelled, tmp_path):
    (task,) = labelled.project.tasks_at(ANNOTATE)
    task.assignee = "ann@example.com"
    report = relabel(labelled, tmp_path)
    assert [(task.title, task.reason) for task in report.skipped] == [("clip.mp4", "somebody is assigned to it")]
    task.assignee, task.stage = None, labelled.project.stage(REVIEW)
    report = relabel(labelled, tmp_path)
    assert [task.reason for task in report.skipped] == ["has gone on to 'Review 1'"]
    assert (report.tasks, num_objects(labelled)) == ((), NUM_FRAMES)


# In an output that several sources share


def test_relabelling_files_leaves_out_a_project_s_tasks_and_the_other_way_round(labelled, tmp_path, capfd):
    write_grey_clip(tmp_path / "clips" / "a.mp4", 96, 64, 6)
    config = config_file(tmp_path, detector={"use": "tests.assembly.test_stored_detector:Other"})
    said = f"1 of 2 tasks in {tmp_path / 'out'} are left out: they are of another source"
    assert run_config(config) == 0
    assert relabel_kept(config, ["labels.nms_iou=0.9"]) == 0
    report = report_of(tmp_path)
    assert [task["title"] for task in report["tasks"]] == ["a.mp4"]
    assert (report["skipped"], report["warnings"]) == ([], [said])
    assert said in capfd.readouterr().err
    of_project = relabel(labelled, tmp_path)  # though what was found last is of the files' detector
    assert [(task.title, task.status) for task in of_project.tasks] == [("clip.mp4", "done")]
    assert (of_project.skipped, of_project.warnings) == ((), (said,))
    assert num_objects(labelled) == 2 * NUM_FRAMES


def test_exported_files_are_without_a_project_s_tasks(labelled, tmp_path):
    write_grey_clip(tmp_path / "clips" / "a.mp4", 96, 64, 6)
    config = config_file(tmp_path)
    with pytest.raises(ConfigError, match="holds no detections yet, only those of another source: `prelabel run"):
        export_labels(config, (), "coco", tmp_path / "all.json")
    assert run_config(config) == 0
    assert export_labels(config, (), "coco", tmp_path / "all.json") == 0
    images = json.loads((tmp_path / "all.json").read_text())["images"]
    assert {image["video"] for image in images} == {"a.mp4"}
