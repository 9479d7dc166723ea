"""Runs whose labels somebody corrects: on the platform, in files, and against a ground truth."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from prelabel.assembly.assemble import Assembly, assemble, assemble_without_detector
from prelabel.config.load import check_config
from prelabel.errors import ConfigError
from prelabel.evaluate.edits import Edits
from prelabel.evaluate.evaluate import EvaluateOptions, evaluate_run
from prelabel.evaluate.result import edit_tables
from prelabel.testing.encord_server import AGENT, ANNOTATE, COMPLETE
from tests.encord_fixtures import NUM_FRAMES, Platform
from tests.kept import BOX, assembly_of, make_media, run, write_grey_clip

pytestmark = [
    pytest.mark.filterwarnings("ignore:save_label_row is deprecated:DeprecationWarning"),
]

DETECTOR = """
from prelabel import Detections

class Alternating:
    class_names = ("Pedestrian", "Vehicle")

    def detect(self, batch):
        return [Detections(xyxy=[[2, 2, 20, 20]], confidence=[0.7], class_id=[i % 2]) for i in batch.frame_indices]
"""


@pytest.fixture
def on_platform(platform: Platform, encord_environment: None, tmp_path: Path) -> Assembly:
    """An assembly whose run has labelled the platform's clip: a box a frame, of two classes in turn."""
    (tmp_path / "mine.py").write_text(DETECTOR)
    values = {
        "source": {
            "use": "encord",
            "project_hash": platform.project.uuid,
            "stage": AGENT,
            "output": str(tmp_path / "out"),
            "domain": platform.server.url,
        },
        "detector": {"use": "mine.py:Alternating"},
        "pathway": "Annotate 1",
    }
    assembly = assemble(check_config(values, "test.yaml"), tmp_path)
    run(assembly)
    return assembly


def correct(platform: Platform) -> None:
    """Moves the box of frame 0, deletes that of frame 1, and draws one on frame 2, as a person would with the SDK."""
    from encord.objects.coordinates import BoundingBoxCoordinates

    row = platform.initialised_row()
    by_frame = {instance.get_annotations()[0].frame: instance for instance in row.get_object_instances()}
    moved = BoundingBoxCoordinates(height=0.1, width=0.1, top_left_x=0.5, top_left_y=0.5)
    by_frame[0].set_for_frames(moved, frames=0, overwrite=True, manual_annotation=True, confidence=1.0)
    row.remove_object(by_frame[1])
    drawn = platform.box([2])
    row.add_object_instance(drawn)
    row.save()


def finish(platform: Platform) -> None:
    (task,) = platform.project.tasks_at(ANNOTATE)
    platform.server.world.move_task(task, platform.project.stage(COMPLETE), user="owner@example.com")


def test_corrections_on_the_platform_are_told_by_class(platform: Platform, on_platform: Assembly):
    correct(platform)
    finish(platform)
    num_saves = len(platform.server.world.saves)
    evaluation = evaluate_run(on_platform, EvaluateOptions())
    (model,) = evaluation.models
    assert model.model.startswith("mine.py:Alternating")
    walkers, vehicles = model.by_class["Pedestrian"], model.by_class["Vehicle"]
    half = NUM_FRAMES // 2
    assert (walkers.untouched, walkers.moved, walkers.added) == (half - 1, 1, 1)
    assert (vehicles.untouched, vehicles.deleted) == (half - 1, 1)
    assert (evaluation.total.actions, evaluation.total.from_scratch) == (3, NUM_FRAMES)
    assert [frame.frame_index for frame in evaluation.worst_frames] == [0]  # the others are within the same second
    assert len(platform.server.world.saves) == num_saves
    without_detector = evaluate_run(
        assemble_without_detector(on_platform.config, on_platform.folder), EvaluateOptions()
    )
    assert (without_detector.models, without_detector.warnings) == (evaluation.models, ())


def test_labels_from_before_the_run_are_left_out_of_the_corrections(platform: Platform, on_platform: Assembly):
    correct(platform)
    row = platform.initialised_row()
    early = platform.box([4])
    early.set_for_frames(
        early.get_annotations()[0].coordinates,
        frames=4,
        overwrite=True,
        created_at=datetime(2020, 1, 1, tzinfo=UTC),
        manual_annotation=True,
        confidence=1.0,
    )
    row.add_object_instance(early)
    row.save()
    finish(platform)
    evaluation = evaluate_run(on_platform, EvaluateOptions())
    assert evaluation.left_out.before_the_run == 1
    assert evaluation.total.actions == 3


def test_a_task_that_is_still_being_worked_on_is_not_compared(platform: Platform, on_platform: Assembly):
    correct(platform)
    with pytest.raises(
        ConfigError, match=r"no task can be compared with project .* at 'Complete'; 1 task: is at stage 'Annotate"
    ):
        evaluate_run(on_platform, EvaluateOptions())
    assert evaluate_run(on_platform, EvaluateOptions(stages=(ANNOTATE,))).total.actions == 3
    with pytest.raises(ConfigError, match=r"--stage Nowhere: project .* has no such stage: it has 'Pre-Labeling"):
        evaluate_run(on_platform, EvaluateOptions(stages=("Nowhere",)))


def test_files_that_share_the_output_of_a_project_are_left_out(
    platform: Platform, on_platform: Assembly, encord_clip: Path
):
    source = {"path": str(encord_clip), "output": str(on_platform.output)}
    run(assemble(check_config({"source": source, "detector": {"use": "mine.py:Alternating"}}, "t"), on_platform.folder))
    finish(platform)
    evaluation = evaluate_run(on_platform, EvaluateOptions())
    assert [video.num_frames for video in evaluation.videos] == [NUM_FRAMES]
    said = f"1 of 2 tasks in {on_platform.output} are left out: they are of another source"
    assert (evaluation.skipped, evaluation.warnings) == ((), (said,))


def test_exported_rows_of_a_project_say_the_same(platform: Platform, on_platform: Assembly, tmp_path: Path):
    correct(platform)
    row = platform.initialised_row()
    (tmp_path / "export.json").write_text(json.dumps([row.to_encord_dict()]))
    finish(platform)
    from_file = evaluate_run(on_platform, EvaluateOptions(against=tmp_path / "export.json"))
    assert from_file.models == evaluate_run(on_platform, EvaluateOptions()).models


# Files


@pytest.fixture
def in_files(tmp_path: Path) -> Assembly:
    """An assembly whose run has labelled two videos and a picture."""
    make_media(tmp_path / "media")
    assembly = assembly_of(tmp_path / "media", tmp_path / "out")
    run(assembly)
    return assembly


def edit_row(path: Path, frame: str, change) -> None:
    row = json.loads(path.read_text())
    (unit,) = row["data_units"].values()
    objects = unit["labels"][frame]["objects"]
    unit["labels"][frame]["objects"] = [label for label in map(change, objects) if label is not None]
    path.write_text(json.dumps(row))


def moved(label: dict) -> dict:
    return {**label, "boundingBox": {**label["boundingBox"], "w": label["boundingBox"]["w"] / 2}}


def test_rows_that_nobody_touched_are_untouched(in_files: Assembly):
    total = evaluate_run(in_files, EvaluateOptions()).total
    assert total.untouched == total.written == total.current > 0
    assert (total.actions, total.precision, total.recall, total.saved) == (0, 1, 1, 1)


def test_a_table_names_its_classes_on_a_narrow_terminal(in_files: Assembly):
    evaluation = evaluate_run(in_files, EvaluateOptions())
    console = Console(width=80, file=io.StringIO())
    for table in edit_tables(evaluation):
        console.print(table)
    said = console.file.getvalue()
    assert all(name in said for name in evaluation.models[0].by_class)
    assert "in editor" in said


def test_a_stage_is_refused_where_there_are_none(in_files: Assembly, tmp_path: Path):
    for against in (None, tmp_path):
        with pytest.raises(ConfigError, match=r"--stage Review: .* has no stages"):
            evaluate_run(in_files, EvaluateOptions(against=against, stages=("Review",)))


def test_rows_edited_in_the_output_are_compared_with_what_was_written(in_files: Assembly):
    edit_row(in_files.output / "first.labels.json", "1", moved)
    edit_row(in_files.output / "day 2" / "second.labels.json", "3", lambda label: None)
    by_title = {video.title: video.total for video in evaluate_run(in_files, EvaluateOptions()).videos}
    assert (by_title["first.mp4"].moved, by_title["first.mp4"].actions) == (1, 1)
    assert (by_title["day 2/second.mp4"].deleted, by_title["day 2/second.mp4"].actions) == (1, 1)
    assert by_title["still.png"].actions == 0


def test_rows_of_a_dry_run_do_not_stand_for_those_in_the_output(in_files: Assembly):
    run(assemble(in_files.config, in_files.folder, dry_run=True))
    assert (in_files.output / "dry-run" / "first.labels.json").exists()
    edit_row(in_files.output / "first.labels.json", "1", moved)
    edit_row(in_files.output / "day 2" / "second.labels.json", "3", moved)
    assert evaluate_run(in_files, EvaluateOptions()).total.moved == 2
    assert evaluate_run(in_files, EvaluateOptions(against=in_files.output / "dry-run")).total.moved == 0


def test_a_row_that_is_gone_or_damaged_is_left_out_with_the_reason(in_files: Assembly):
    (in_files.output / "first.labels.json").unlink()
    (in_files.output / "still.labels.json").write_text("{")
    evaluation = evaluate_run(in_files, EvaluateOptions())
    assert [video.title for video in evaluation.videos] == ["day 2/second.mp4"]
    reasons = {task.title: task.reason for task in evaluation.skipped}
    assert "has no label row in" in reasons["first.mp4"]
    assert "is not JSON" in reasons["still.png"]


def test_rows_under_other_hashes_meet_by_title_and_their_boxes_by_overlap(in_files: Assembly, tmp_path: Path):
    """As after an import elsewhere, which numbers data and objects anew."""
    text = (in_files.output / "first.labels.json").read_text()
    row = json.loads(text)
    for number, key in enumerate(row["object_answers"]):
        text = text.replace(key, f"other{number:03d}")
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "a.json").write_text(text.replace(row["data_hash"], "1b4e28ba-2fa1-11d2-883f-0016d3cca427"))
    evaluation = evaluate_run(in_files, EvaluateOptions(against=tmp_path / "rows"))
    assert [video.title for video in evaluation.videos] == ["first.mp4"]
    assert evaluation.total.untouched == evaluation.total.current == evaluation.total.written
    assert {task.title for task in evaluation.skipped} == {"day 2/second.mp4", "still.png"}


def test_boxes_on_frames_that_a_stride_left_out_are_not_counted(tmp_path: Path):
    make_media(tmp_path / "media")
    assembly = assembly_of(tmp_path / "media" / "first.mp4", tmp_path / "out", reader={"stride": 2})
    run(assembly)
    path = assembly.output / "first.labels.json"
    row = json.loads(path.read_text())
    (unit,) = row["data_units"].values()
    label = unit["labels"]["0"]["objects"][0]
    unit["labels"]["1"] = {"objects": [{**label, "objectHash": "drawn000"}], "classifications": []}
    path.write_text(json.dumps(row))
    evaluation = evaluate_run(assembly, EvaluateOptions())
    assert evaluation.left_out.on_other_frames == 1
    assert evaluation.total.added == 0


def test_what_the_model_does_not_know_is_named_and_not_counted(in_files: Assembly):
    path = in_files.output / "first.labels.json"
    row = json.loads(path.read_text())
    (unit,) = row["data_units"].values()
    objects = unit["labels"]["1"]["objects"]
    far = {"boundingBox": {"x": 0.8, "y": 0.0, "w": 0.1, "h": 0.1}}
    objects.append({**objects[0], **far, "objectHash": "strange0", "name": "cow"})
    path.write_text(json.dumps(row))
    evaluation = evaluate_run(in_files, EvaluateOptions())
    assert evaluation.left_out.of_other_classes == {"cow": 1}
    assert evaluation.total.actions == 0


def test_tracks_are_compared_box_by_box_and_as_a_whole(tmp_path: Path):
    write_grey_clip(tmp_path / "media" / "first.mp4", 96, 64, 12)
    tracker = {"high_conf": 0.25, "min_peak_conf": 0.25}
    labels = {"instances": "tracks", "keyframes": {}}
    assembly = assembly_of(tmp_path / "media", tmp_path / "out", labels=labels, tracker=tracker)
    run(assembly)
    untouched = evaluate_run(assembly, EvaluateOptions()).total
    assert (untouched.instances_untouched, untouched.actions) == (2, 0)
    edit_row(
        assembly.output / "first.labels.json", "5", lambda label: moved(label) if label["name"] == "thing" else label
    )
    evaluation = evaluate_run(assembly, EvaluateOptions())
    total = evaluation.total
    assert (total.moved, total.instances_edited, total.instances_untouched) == (1, 1, 1)
    curve = evaluation.thresholds["thing"]
    assert curve.thresholds[0] >= curve.in_force  # of lower ones nobody knows which tracks they would make
    assert curve.actions_at(curve.in_force) == 1


def test_another_config_than_that_of_the_run_is_said(in_files: Assembly, tmp_path: Path):
    other = assembly_of(tmp_path / "media", tmp_path / "out", labels={"conf": 0.5})
    assert "3 of 3 tasks were labelled with another config" in evaluate_run(other, EvaluateOptions()).warnings[0]
    assert evaluate_run(in_files, EvaluateOptions()).warnings == ()


# Ground truth


def truth_of(path: Path, boxes: list[tuple[int, tuple, str]], num_frames: int) -> Path:
    names = sorted({name for _, _, name in boxes})
    document = {
        "images": [{"id": n + 1, "file_name": f"first.mp4/{n:06d}.jpg"} for n in range(num_frames)],
        "categories": [{"id": n, "name": name} for n, name in enumerate(names, 1)],
        "annotations": [
            {"id": n, "image_id": frame + 1, "category_id": names.index(name) + 1, "bbox": bbox}
            for n, (frame, bbox, name) in enumerate(boxes, 1)
        ],
    }
    path.write_text(json.dumps(document))
    return path


def test_a_ground_truth_has_boxes_that_would_be_left_and_others_that_would_be_moved(tmp_path: Path):
    write_grey_clip(tmp_path / "media" / "first.mp4", 96, 64, 4)
    x, y, width, height = BOX[0], BOX[1], BOX[2] - BOX[0], BOX[3] - BOX[1]
    near, apart = (x + 1, y, width, height), (x + 12, y, width, height)  # IoU 0.95 and 0.54
    wanted = [(0, near, "Thing"), (1, apart, "Thing"), (2, (0, 0, 9, 9), "Thing"), (2, (70, 1, 9, 9), "cow")]
    truth = truth_of(tmp_path / "truth.json", wanted, 3)
    assembly = assembly_of(tmp_path / "media", tmp_path / "out")
    run(assembly)
    evaluation = evaluate_run(assembly, EvaluateOptions(against=truth))
    things = evaluation.models[0].by_class["thing"]
    assert (things.untouched, things.moved, things.deleted, things.added) == (1, 1, 1, 1)
    assert evaluation.models[0].by_class["other"].deleted == 2  # of frames 0 and 2; the truth has no frame 3
    assert evaluation.left_out.of_other_classes == {"cow": 1}
    assert set(evaluation.score.by_class) == {"Thing"}
    evaluation.write(tmp_path / "evaluation.json")
    assert set(json.loads((tmp_path / "evaluation.json").read_text())["score"]) == {"map_50_95", "map_50", "Thing"}
    assert evaluation.thresholds["other"].suggested > 0.25


def test_a_track_is_not_taken_for_the_true_one_of_the_same_number(tmp_path: Path):
    write_grey_clip(tmp_path / "media" / "first.mp4", 96, 64, 12)
    tracker = {"high_conf": 0.25, "min_peak_conf": 0.25}
    assembly = assembly_of(tmp_path / "media", tmp_path / "out", labels={"instances": "tracks"}, tracker=tracker)
    run(assembly)
    there, elsewhere = (BOX[0], BOX[1], BOX[2] - BOX[0], BOX[3] - BOX[1]), (70, 50, 9, 9)
    truth = truth_of(tmp_path / "truth.json", [(n, box, "thing") for n in range(12) for box in (elsewhere, there)], 12)
    document = json.loads(truth.read_text())
    for n, annotation in enumerate(document["annotations"]):
        annotation["track_id"] = n % 2  # the number of the written track is that of the thing elsewhere
    truth.write_text(json.dumps(document))
    things = evaluate_run(assembly, EvaluateOptions(against=truth)).models[0].by_class["thing"]
    assert (things.untouched, things.moved, things.added) == (12, 0, 12)


def test_it_is_written_as_json_with_what_follows_from_the_counts(in_files: Assembly, tmp_path: Path):
    evaluation = evaluate_run(in_files, EvaluateOptions())
    evaluation.write(tmp_path / "evaluation.json")
    told = json.loads((tmp_path / "evaluation.json").read_text())
    assert told["total"]["precision"] == 1
    assert told["models"][0]["by_class"]["thing"]["written"] == 13
    assert len(told["thresholds"]["thing"]["thresholds"]) == len(told["thresholds"]["thing"]["actions"])
    assert evaluation.total == sum((video.total for video in evaluation.videos), Edits())


@pytest.mark.parametrize(
    ("name", "complaint"), [("none", "there is no such file or folder"), ("empty", "got no Encord label row")]
)
def test_what_cannot_be_compared_with_is_named(in_files: Assembly, tmp_path: Path, name: str, complaint: str):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=complaint):
        evaluate_run(in_files, EvaluateOptions(against=tmp_path / name))
