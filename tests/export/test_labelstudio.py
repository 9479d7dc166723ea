"""Label Studio's predictions on videos, and what its own SDK makes of them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from prelabel.errors import ConfigError
from prelabel.export.labelstudio import export_labelstudio
from tests.export.building import export_of, run_apart, video

ROWS = [(0, (10, 10, 30, 20), 0.5, 0), (1, (20, 10, 40, 20), 0.7, 0), (5, (50, 25, 100, 50), 0.9, 0)]


def regions(folder, *videos):
    path, _ = export_labelstudio(export_of(folder, *videos))
    return [task["predictions"][0]["result"] for task in json.loads(path.read_text())]


def test_a_track_is_a_region_whose_keyframes_end_where_its_object_leaves(tmp_path):
    (((region),),) = regions(tmp_path, video("a.mp4", *ROWS, track_id=3))
    assert (region["type"], region["score"]) == ("videorectangle", pytest.approx(0.7))
    value = region["value"]
    assert (value["labels"], value["framesCount"], value["duration"]) == (["person"], 20, 1.6)
    assert [(key["frame"], key["enabled"]) for key in value["sequence"]] == [(1, True), (2, False), (6, False)]
    last = value["sequence"][-1]
    assert [last[key] for key in ("x", "y", "width", "height", "time")] == [50, 50, 50, 50, 0.4]


def test_labels_without_a_track_are_a_region_each(tmp_path):
    (of_video,) = regions(tmp_path, video("a.mp4", *ROWS))
    assert [len(region["value"]["sequence"]) for region in of_video] == [1, 1, 1]


def test_each_video_is_a_task_and_none_is_a_valid_file(tmp_path):
    assert regions(tmp_path / "two", video("a.mp4"), video("b.mp4")) == [[], []]
    assert regions(tmp_path / "none") == []


def test_images_are_refused_with_another_format(tmp_path):
    still = video("a.png")
    with pytest.raises(ConfigError, match=r"a\.png: holds images, .*use -f coco"):
        export_labelstudio(export_of(tmp_path, replace(still, info=replace(still.info, average_fps=0.0))))


def test_images_next_to_videos_are_left_out_and_counted(tmp_path):
    still = video("a.png")
    export = export_of(tmp_path, replace(still, info=replace(still.info, average_fps=0.0)), video("b.mp4"))
    export_labelstudio(export)
    assert [task["data"]["video"] for task in json.loads((tmp_path / "tasks.json").read_text())] == ["b.mp4"]
    assert export.notes == ["label-studio is for videos, and left out 1 tasks with images: use -f coco"]


@pytest.mark.slow
def test_label_studios_sdk_takes_the_predictions_and_fills_the_same_frames(tmp_path):
    paths = export_labelstudio(export_of(tmp_path, video("a.mp4", *ROWS, track_id=3)))
    script = """
import json, sys
from pathlib import Path
from label_studio_sdk.label_interface import LabelInterface
from label_studio_sdk._extensions.label_studio_tools.postprocessing.video import extract_key_frames
tasks = json.loads(Path(sys.argv[1]).read_text())
prediction = tasks[0]["predictions"][0]
errors = LabelInterface(Path(sys.argv[2]).read_text()).validate_prediction(prediction, return_errors=True)
frames = [[key["frame"] for key in region["value"]["sequence"]] for region in extract_key_frames(prediction["result"])]
print(json.dumps([errors, frames]))
"""
    errors, frames = run_apart("label-studio-sdk==2.1.2", script, *paths)
    assert errors == []
    assert frames == [[1, 2, 6]]
