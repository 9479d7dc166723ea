"""Tracks through the whole run: label rows, exports, the report, other ways of linking from the raw store."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from prelabel.cli.show import show_report
from prelabel.errors import ConfigError, PluginError
from prelabel.export.export import export_run
from prelabel.reports.run_page import page_of
from prelabel.run.checks import prepare, run_checks
from prelabel.store.raw_detections import read_raw, write_raw
from tests.kept import assembly_of, run, write_grey_clip
from tests.running import run_whole

TRACKS = {"instances": "tracks"}
ANY_TRACK = {"high_conf": 0.25, "min_peak_conf": 0.25, "min_seconds": 0}
MINE = '''
import numpy as np

class EachFrame:
    """Numbers boxes by their order on the frame."""

    num_built = 0

    def __init__(self, info, first: int = 0):
        self.first = first
        type(self).num_built += 1

    def update(self, detections, frame_index):
        return np.arange(len(detections)) + self.first

class NoTracker:
    def __init__(self, info): pass
'''


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    write_grey_clip(tmp_path / "clips" / "first.mp4", 96, 64, 12)
    (tmp_path / "clips" / "mine.py").write_text(MINE)
    return tmp_path / "clips"


def assembly(clips: Path, tracker=None, **sections):
    tracker = {**ANY_TRACK, **(tracker or {})}
    if "use" in tracker:
        del tracker["high_conf"]  # an option of the built-in trackers
    return assembly_of(clips, clips.parent / "out", labels=TRACKS, tracker=tracker, **sections)


def row_of(clips: Path) -> dict:
    return json.loads((clips.parent / "out" / "first.labels.json").read_text())


def test_a_thing_is_one_instance_on_the_row_and_one_track_everywhere_else(clips, capsys):
    tracked = assembly(clips)
    report = run_whole(tracked)
    # The fainter box of every other frame is a track, whose gaps of a frame are filled in.
    assert len(row_of(clips)["object_answers"]) == 2
    (task,) = report.tasks
    assert (task.instances, task.num_boxes, task.num_interpolated) == ({"thing": 1, "other": 1}, 23, 5)
    written = json.loads((clips.parent / "out" / "report.json").read_text())
    assert (written["instances_are"], written["num_boxes"]) == ("tracks", 23)
    coco = json.loads((clips.parent / "out" / "coco.json").read_text())
    assert {annotation["track_id"] for annotation in coco["annotations"]} == {1, 2}
    assert sum(annotation["score"] == 0 for annotation in coco["annotations"]) == 5
    show_report(report)
    assert "2 tracks of 23 boxes, 5 of them filled in" in "".join(capsys.readouterr())


def test_boxes_are_linked_once_for_the_row_the_exports_and_the_pictures(clips):
    source = {"path": str(clips), "output": str(clips.parent / "out"), "preview": "sheet"}
    tracked = assembly(clips, source=source, tracker={"use": "mine.py:EachFrame"})
    plugin = tracked.detection.tracker_plugin
    run_whole(tracked, page=True)
    assert (clips.parent / "out" / "first.preview.jpg").exists()
    assert plugin.factory.num_built == 2  # one of them before the run, to see that it starts


def test_mot_has_the_tracks(clips, tmp_path):
    run(assembly(clips))
    export_run(assembly(clips), "mot", tmp_path / "mot")
    lines = next((tmp_path / "mot").rglob("det.txt")).read_text().splitlines()
    assert {line.split(",")[1] for line in lines} == {"1", "2"}


def test_a_second_run_does_nothing_and_one_with_boxes_puts_them_in_the_tracks_place(clips):
    run(assembly(clips))
    tracks = row_of(clips)
    assert [task.status for task in run(assembly(clips)).tasks] == ["already done"]
    assert row_of(clips) == tracks
    boxes = run(assembly_of(clips, clips.parent / "out"))
    assert (boxes.tasks[0].status, boxes.instances_are, boxes.instances) == (
        "done",
        "per_frame",
        {"thing": 12, "other": 6},
    )
    assert len(row_of(clips)["object_answers"]) == 18
    run(assembly(clips))
    assert row_of(clips)["object_answers"] == tracks["object_answers"]


def test_another_way_of_linking_is_applied_from_the_raw_store(clips):
    run(assembly(clips))
    (task,) = run(assembly(clips, tracker={"min_length": 7})).tasks
    assert (task.status, task.instances, task.dropped) == ("done", {"thing": 1}, {"short_track": 6})
    assert task.seconds.keys() == {"save"}


def test_the_raw_store_holds_no_tracks_and_its_cuts_end_them(clips):
    tracked = assembly(clips)
    run(tracked)
    path = tracked.output / "first.detections.parquet"
    raw = read_raw(path)
    assert (set(raw.detections.track_id.tolist()), raw.cuts) == ({-1}, ())
    write_raw(path, replace(raw, cuts=(6,)))
    assert read_raw(path).cuts == (6,)
    (task,) = run(assembly(clips, tracker={"min_length": 2})).tasks
    assert task.instances == {"thing": 2, "other": 2}


def test_a_tracker_of_ones_own_is_named_by_its_file(clips):
    run(assembly(clips, tracker={"use": "mine.py:EachFrame", "first": 3}))
    assert len(row_of(clips)["object_answers"]) == 2


@pytest.mark.parametrize(
    ("tracker", "error", "complaint"),
    [
        ({"use": "bytetrak"}, PluginError, "did you mean 'bytetrack'"),
        ({"high_cnf": 0.5}, ConfigError, "did you mean 'high_conf'"),
        ({"high_conf": 2}, ConfigError, r"tracker\.high_conf: got 2, expected 1 or less"),
        ({"use": "mine.py:NoTracker"}, ConfigError, "lacks `update"),
    ],
)
def test_a_tracker_that_cannot_be_is_an_error_before_frame_0(clips, tracker, error, complaint):
    with pytest.raises(error, match=complaint):
        prepare(assembly(clips, tracker=tracker))
    checks = {check.name: check.passed for check in run_checks(assembly(clips, tracker=tracker))}
    assert checks["tracks"] is False


def test_kept_boxes_and_what_they_cost_are_in_the_report_and_filled_ones_marked_on_the_row(clips, capsys):
    labels = {**TRACKS, "keyframes": {}}
    few = assembly_of(clips, clips.parent / "out", labels=labels, reader={"stride": 2}, tracker=ANY_TRACK)
    report = run_whole(few)
    (task,) = report.tasks
    assert (task.num_inferred, task.num_boxes, task.num_interpolated) == (6, 22, 18)
    written = json.loads((clips.parent / "out" / "report.json").read_text())
    assert written["thinning"] == {"num_found": 12, "num_kept": 4, "mean_iou": 1.0, "min_iou": 1.0}
    (unit,) = row_of(clips)["data_units"].values()
    confidences = [label["confidence"] for frame in unit["labels"].values() for label in frame["objects"]]
    assert sorted(confidences) == [0.25] * 2 + [0.75] * 2 + [0.99] * 18
    page = page_of(few, report)
    assert ("boxes kept of tracks", "4 of 12") in [(tile.name, tile.value) for tile in page.figures]
    texts = [box.text for shown in page.tasks[0].thumbnails for box in shown.outlines if box.style == "interpolated"]
    assert "thing #1 interpolated" in texts
    show_report(report)
    assert "4 of 12 boxes kept; mean overlap with the detected boxes 1.000" in "".join(capsys.readouterr())


def test_with_nothing_between_other_keyframes_replace_the_earlier_ones(clips):
    run(assembly(clips))
    labels = {**TRACKS, "keyframes": {"between": "empty"}}
    (task,) = run(assembly_of(clips, clips.parent / "out", labels=labels, tracker=ANY_TRACK)).tasks
    assert (task.status, task.num_boxes, task.instances) == ("done", 4, {"thing": 1, "other": 1})
    (unit,) = row_of(clips)["data_units"].values()
    assert unit["labels"].keys() == {"0", "10", "11"}


def test_keyframes_without_tracks_are_a_mistake_in_the_config(clips):
    with pytest.raises(ConfigError, match="keyframes: belong to tracks: add instances: tracks"):
        assembly_of(clips, clips.parent / "out", labels={"keyframes": {}})
