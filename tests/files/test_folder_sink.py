"""The folder sink: rows as the SDK gives them, and nobody's work in them lost."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from prelabel.data.frames import VideoInfo
from prelabel.data.label_map import build_label_map
from prelabel.data.ontology import Ontology
from prelabel.errors import LabelError, OntologyError, RowTooLargeError
from prelabel.files.folder_sink import FolderSink
from prelabel.labels.row.offline import detached_row, encord_ontology, new_label_row
from prelabel.store.run_folder import RunFolder
from prelabel.store.source import RowOptions
from tests.labelling import (
    IMAGE,
    IMAGE_GROUP,
    MEDIA,
    SHAPES,
    VIDEO,
    detections,
    load_in_sdk,
    map_of_shapes,
    object_json,
    objects_in,
    ontology_of_shapes,
)

BOXES = detections(*[(0, (1, 2, 30, 31), 0.5, class_id) for class_id in range(len(SHAPES))])


@dataclass(frozen=True)
class FileTask:
    title: str
    key: str = ""
    num_frames: int | None = None

    def open(self) -> Any:
        raise AssertionError("a sink has no need of the media")


def task(title="clip.mp4"):
    return FileTask(title, title)


def sink(output, max_row_bytes=50_000_000):
    return FolderSink(RunFolder(output), ontology_of_shapes(), map_of_shapes(), RowOptions(max_row_bytes))


def read(path):
    return json.loads(path.read_text())


@pytest.mark.parametrize("kind", MEDIA)
def test_row_is_as_a_real_label_row_gives_it(tmp_path, kind):
    sink(tmp_path).write(task(), MEDIA[kind], BOXES)
    row = read(tmp_path / "clip.labels.json")
    assert row["data_type"] == kind
    assert load_in_sdk(row, MEDIA[kind]).to_encord_dict() == row
    assert len(objects_in(row)) == len(SHAPES)


def test_row_tells_what_the_video_is(tmp_path):
    info = VideoInfo(width=64, height=48, num_frames=90, average_fps=29.97, duration_seconds=3.003)
    sink(tmp_path).write(task("day/clip.webm"), info, detections())
    row = read(tmp_path / "day" / "clip.labels.json")
    (unit,) = row["data_units"].values()
    assert (row["data_title"], unit["data_title"], unit["data_type"]) == (
        "day/clip.webm",
        "day/clip.webm",
        "video/webm",
    )
    assert (unit["width"], unit["height"], unit["data_fps"], unit["data_duration"]) == (64, 48, 29.97, 3.003)


def test_pictures_of_one_task_are_units_of_their_sizes(tmp_path):
    sink(tmp_path).write(task("group"), IMAGE_GROUP, detections((1, (1, 2, 30, 31), 0.5, 0)))
    units = read(tmp_path / "group.labels.json")["data_units"].values()
    assert [(unit["width"], unit["height"], len(unit["labels"]["objects"])) for unit in units] == [
        (64, 48, 0),
        (32, 32, 1),
        (50, 70, 0),
    ]


def test_identity_is_the_same_in_every_run(tmp_path):
    for folder in ("one", "two"):
        sink(tmp_path / folder).write(task(), VIDEO, BOXES)
    one, two = (read(tmp_path / folder / "clip.labels.json") for folder in ("one", "two"))
    for part in ("label_hash", "data_hash"):
        assert one[part] == two[part]
    assert list(one["object_answers"]) == list(two["object_answers"])


def test_repeated_write_changes_no_byte(tmp_path):
    sink(tmp_path).write(task(), VIDEO, BOXES)
    before = (tmp_path / "clip.labels.json").read_bytes()
    sink(tmp_path).write(task(), VIDEO, BOXES)
    assert (tmp_path / "clip.labels.json").read_bytes() == before


def test_people_s_labels_in_the_file_stay_and_prelabel_s_are_replaced(tmp_path):
    path = tmp_path / "clip.labels.json"
    sink(tmp_path).write(task(), VIDEO, BOXES)
    row = read(path)
    edited = objects_in(row)[0][2]
    edited["boundingBox"]["x"] = 0.3
    path.write_text(json.dumps(row))
    sink(tmp_path).write(task(), VIDEO, detections((5, (1, 2, 30, 31), 0.5, 1)))
    left = [(frame, label) for _, frame, label in objects_in(read(path))]
    assert left[0] == (0, edited)
    assert [(frame, label["name"]) for frame, label in left[1:]] == [(5, "rotatable_bounding_box")]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"data_units": {}, "object_answers": []}', "\udcff"])
def test_file_that_is_no_label_row_is_left_as_it_is(tmp_path, text):
    path = tmp_path / "clip.labels.json"
    content = text.encode(errors="surrogateescape")
    path.write_bytes(content)
    with pytest.raises(LabelError, match=r"clip\.labels\.json: not a label row"):
        sink(tmp_path).write(task(), VIDEO, BOXES)
    assert path.read_bytes() == content


def test_row_of_other_data_is_left_as_it_is(tmp_path):
    sink(tmp_path / "a").write(FileTask("clip.mp4", "another key"), VIDEO, BOXES)
    path = tmp_path / "b" / "clip.labels.json"
    path.parent.mkdir()
    content = (tmp_path / "a" / "clip.labels.json").read_bytes()
    path.write_bytes(content)
    with pytest.raises(LabelError, match="the label row of other data"):
        sink(tmp_path / "b").write(task(), VIDEO, BOXES)
    assert path.read_bytes() == content


def test_two_clips_of_one_stem_have_rows_of_their_own(tmp_path):
    for _ in range(2):
        for title in ("a.mp4", "a.mov"):
            sink(tmp_path).write(task(title), VIDEO, BOXES)
    assert read(tmp_path / "a.labels.json")["data_title"] == "a.mp4"
    assert read(tmp_path / "a.mov.labels.json")["data_title"] == "a.mov"


def test_row_past_the_limit_is_not_written(tmp_path):
    with pytest.raises(RowTooLargeError, match="MB too many"):
        sink(tmp_path, max_row_bytes=1000).write(task(), VIDEO, BOXES)
    assert not sink(tmp_path).path_of(task()).exists()


def test_ontology_that_the_sdk_does_not_load_is_refused_before_any_label(tmp_path):
    objects = [object_json("car", 1), object_json("orb", 2, "sphere")]
    ontology = Ontology.from_structure({"objects": objects}, "Roads")
    with pytest.raises(OntologyError, match=r"ontology 'Roads': the Encord SDK does not load it: .*sphere"):
        FolderSink(RunFolder(tmp_path), ontology, build_label_map(["car"], ontology, {}), RowOptions(1000))


def test_video_without_frames_has_no_row(tmp_path):
    with pytest.raises(LabelError, match=r"clip\.mp4: got no frames"):
        sink(tmp_path).write(task(), VideoInfo(width=64, height=48, num_frames=0), detections())


def test_sink_knows_whether_it_holds_a_row(tmp_path):
    assert not sink(tmp_path).path_of(task()).exists()
    sink(tmp_path).write(task(), IMAGE, BOXES)
    assert sink(tmp_path).path_of(task()).exists()


@pytest.mark.parametrize("num_frames", [1, 3])
@pytest.mark.parametrize("fps", [0.0, 30.0])
def test_new_rows_stay_as_the_sdk_loads_and_writes_them(num_frames: int, fps: float) -> None:
    info = VideoInfo(
        width=8, height=6, num_frames=num_frames, average_fps=fps, duration_seconds=fps and num_frames / fps
    )
    ontology = encord_ontology(Ontology.from_classes(["Car"]))
    for key, title in (("1", "a.jpg"), ("2", "b.jpg")):  # the second is made of what the first has left
        row = new_label_row(key, title, info, ontology, now=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
        loaded = detached_row(title, info, ontology)
        loaded.from_labels_dict(row)
        assert loaded.to_encord_dict() == row
        assert (row["data_title"], row["created_at"]) == (title, "Fri, 02 Jan 2026 03:04:05 UTC")
        next(iter(row["data_units"].values()))["labels"]["objects"] = [1]
