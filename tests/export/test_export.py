from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from prelabel.assembly.stored import distinct_titles
from prelabel.data.frames import VideoInfo
from prelabel.data.geometry import Keypoints, Mask
from prelabel.data.label_map import LabelledVideo
from prelabel.errors import ConfigError, PluginError, TaskError
from prelabel.export import yolo
from prelabel.export.cvat import export_voc
from prelabel.export.export import export_run
from prelabel.export.labelstudio import export_labelstudio
from prelabel.export.mot import export_mot
from prelabel.export.yolo import export_yolo
from prelabel.plugins.load import installed_names
from prelabel.store.ledger import Entry
from tests.export.building import INFO, export_of, video
from tests.geometries import POSE_OFFER, map_to, with_geometry
from tests.kept import assembly_of, make_media, run, write_grey_clip
from tests.labelling import load_in_sdk


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> tuple[Path, Path]:
    """The folder of the media and the output of a run over them."""
    folder = tmp_path_factory.mktemp("export")
    make_media(folder / "media")
    run(assembly_of(folder / "media", folder / "out"))
    return folder / "media", folder / "out"


def test_coco_has_every_frame_of_every_task(ran, tmp_path):
    (path,) = export_run(assembly_of(*ran), "coco", tmp_path / "all.json")
    assert path == tmp_path / "all.json"
    coco = json.loads(path.read_text())
    names = [image["file_name"] for image in coco["images"]]
    assert len(names) == 13
    assert {name.rpartition("/")[0] for name in names} == {"day 2/second.mp4", "first.mp4", "still.png"}
    assert [category["name"] for category in coco["categories"]] == ["thing", "other"]
    assert coco["annotations"][0]["bbox"] == [10, 20, 40, 40]


def test_tasks_with_the_same_title_get_their_keys_added():
    tasks = [
        Entry("P/1/main", "a.mp4", "done", ""),
        Entry("P/2/main", "a.mp4", "done", ""),
        Entry("c", "c", "done", ""),
    ]
    assert distinct_titles(tasks) == {"P/1/main": "a.mp4 [P/1/main]", "P/2/main": "a.mp4 [P/2/main]", "c": "c"}


def test_coco_goes_into_a_folder_under_its_usual_name(ran, tmp_path):
    assert export_run(assembly_of(*ran), "coco", tmp_path) == [tmp_path / "coco.json"]


def test_a_threshold_below_that_of_the_stored_detections_is_refused(tmp_path):
    write_grey_clip(tmp_path / "media" / "a.mp4", 96, 64, 2)
    unsure = {"use": "tests.kept:UnsureDetector"}
    run(assembly_of(tmp_path / "media", tmp_path / "out", detector=unsure))
    lower = assembly_of(tmp_path / "media", tmp_path / "out", detector={**unsure, "conf": 0.2})
    (path,) = export_run(lower, "coco", tmp_path / "all.json")
    assert {annotation["score"] for annotation in json.loads(path.read_text())["annotations"]} == {0.75, 0.25}
    too_low = assembly_of(tmp_path / "media", tmp_path / "out", detector={**unsure, "conf": 0.1})
    with pytest.raises(ConfigError, match=r"detector\.conf: got 0\.1, detections are stored from 0\.2 on"):
        export_run(too_low, "coco", tmp_path / "all.json")


def test_todays_thresholds_and_classes_apply(ran, tmp_path):
    labels = {"conf": {"object": 0.5}, "classes": {"thing": "object", "other": "object"}}
    (path,) = export_run(assembly_of(*ran, labels=labels), "coco", tmp_path / "all.json")
    coco = json.loads(path.read_text())
    assert [category["name"] for category in coco["categories"]] == ["object"]
    assert {annotation["score"] for annotation in coco["annotations"]} == {0.75}
    assert len(coco["annotations"]) == 13


def test_media_are_not_needed(ran, tmp_path):
    media, output = ran
    media = media.rename(media.with_name("away"))
    try:
        (path,) = export_run(assembly_of(media.with_name("media"), output), "coco", tmp_path / "all.json")
    finally:
        media.rename(media.with_name("media"))
    assert len(json.loads(path.read_text())["images"]) == 13


def test_yolo_writes_a_file_for_each_frame_with_boxes(ran, tmp_path):
    data, labels = export_run(assembly_of(*ran), "yolo", tmp_path / "yolo")
    assert "thing" in data.read_text()
    assert len(list(labels.rglob("*.txt"))) == 13
    assert (labels / "first.mp4_000001.txt").read_text() == "0 0.312500 0.625000 0.416667 0.625000\n"


def test_mot_writes_a_folder_for_each_task(ran, tmp_path):
    paths = export_run(assembly_of(*ran), "mot", tmp_path / "mot")
    assert [path.parent.parent.relative_to(tmp_path / "mot").as_posix() for path in paths] == [
        "day 2/second.mp4",
        "first.mp4",
        "still.png",
    ]
    assert all(path.exists() for path in paths)


def test_encord_label_rows_load_in_the_sdk(ran, tmp_path):
    assembly = assembly_of(*ran)
    paths = export_run(assembly, "encord", tmp_path / "rows")
    assert [path.relative_to(tmp_path / "rows").as_posix() for path in paths] == [
        "day 2/second.labels.json",
        "first.labels.json",
        "still.labels.json",
    ]
    info = VideoInfo(width=96, height=64, num_frames=6, average_fps=25.0, duration_seconds=0.24)
    label_row = load_in_sdk(json.loads(paths[1].read_text()), info, assembly.ontology)
    assert len(label_row.get_object_instances()) == 9
    annotation = label_row.get_frame_view(1).get_object_instances()[0].get_annotation(1)
    assert annotation.confidence == pytest.approx(0.75)
    assert not annotation.manual_annotation


def test_frames_are_those_with_labels_or_every_nth(ran, tmp_path):
    labels = {"conf": {"other": 0.2, "thing": 0.9}}  # leaves a label on even frames alone
    for frames, expected in (("labelled", [0, 2, 4]), ("4", [0, 4]), ("1", [0, 1, 2, 3, 4, 5])):
        paths = export_run(assembly_of(*ran, labels=labels), "coco", tmp_path / frames, frames=frames)
        assert paths == [tmp_path / frames / "coco.json", tmp_path / frames / "images"]
        images = json.loads((tmp_path / frames / "coco.json").read_text())["images"]
        assert [image["frame_index"] for image in images if image["video"] == "first.mp4"] == expected
        written = {path.name for path in (tmp_path / frames / "images" / "first.mp4").iterdir()}
        assert written == {f"{index:06d}.jpg" for index in expected}


def test_a_run_without_labels_has_no_labelled_frames(ran, tmp_path):
    export_run(assembly_of(*ran, labels={"conf": 0.99}), "yolo", tmp_path / "set", frames="labelled")
    assert (tmp_path / "set" / "train.txt").read_text() == ""
    assert not (tmp_path / "set" / "images").exists()


@pytest.mark.parametrize(
    ("format", "name"), [("encord", "encord"), ("label-studio", "label-studio"), ("labelstudio", "label-studio")]
)
def test_a_format_without_images_says_so(ran, tmp_path, format, name):
    with pytest.raises(ConfigError, match=f"--frames: {name} writes no images"):
        export_run(assembly_of(*ran), format, tmp_path / "set", frames="labelled")


def test_a_frame_is_the_videos_own(tmp_path):
    with av.open(tmp_path / "a.mp4", "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in (40, 90, 140, 190):
            container.mux(stream.encode(av.VideoFrame.from_image(Image.new("RGB", (64, 48), (level,) * 3))))
        container.mux(stream.encode(None))
    assembly = assembly_of(tmp_path / "a.mp4", tmp_path / "out")
    run(assembly)
    export_run(assembly, "mot", tmp_path / "mot", frames="1")
    levels = [
        Image.open(tmp_path / "mot" / "a.mp4" / "img1" / f"00000{n}.jpg").getpixel((60, 5))[0] for n in range(1, 5)
    ]
    assert levels == pytest.approx([40, 90, 140, 190], abs=6)


@pytest.mark.parametrize("frames", ["0", "-1", "every", ""])
def test_frames_that_are_no_choice_are_refused(ran, tmp_path, frames):
    with pytest.raises(ConfigError, match=f"--frames: got '{frames}', expected labelled, or a number N"):
        export_run(assembly_of(*ran), "coco", tmp_path / "set", frames=frames)


def test_frames_of_media_that_are_gone_are_refused(tmp_path):
    write_grey_clip(tmp_path / "media" / "a.mp4", 96, 64, 2)
    write_grey_clip(tmp_path / "media" / "b.mp4", 96, 64, 2)
    assembly = assembly_of(tmp_path / "media", tmp_path / "out")
    run(assembly)
    (tmp_path / "media" / "b.mp4").unlink()
    with pytest.raises(TaskError, match=r"b\.mp4: is no longer at the source: export without --frames"):
        export_run(assembly_of(tmp_path / "media", tmp_path / "out"), "yolo", tmp_path / "set", frames="1")


def test_the_documented_format_runs_as_one_function_in_a_file(ran, tmp_path, monkeypatch):
    code = re.search(r"```python\n(.*?)```", Path("docs/export.md").read_text(), re.DOTALL)[1]
    (tmp_path / "mine.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    (path,) = export_run(assembly_of(*ran), "mine.py:write_csv", tmp_path / "boxes.csv")
    rows = list(csv.reader(path.open()))
    assert len(rows) == 9 + 9 + 2
    assert ["first.mp4", "1", "thing", "10.0", "20.0", "50.0", "60.0"] in rows


def test_a_format_that_raises_is_named(ran, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("def broken(export):\n    raise KeyError('oh')\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PluginError, match=r"'mine\.py:broken' raised KeyError: 'oh'"):
        export_run(assembly_of(*ran), "mine.py:broken", tmp_path / "set")


def test_an_unknown_format_is_named_with_the_known_ones(ran, tmp_path):
    with pytest.raises(
        ConfigError, match=r"--format: got 'xml', expected .*coco \|.* mot \|.* yolo \| file\.py:function"
    ):
        export_run(assembly_of(*ran), "xml", tmp_path / "set")


def test_every_installed_format_stands_in_the_docs():
    page = Path("docs/export.md").read_text()
    assert [name for name in installed_names("export") if f"`{name}`" not in page] == []


def test_before_any_run_the_error_names_the_next_step(ran, tmp_path):
    media, _ = ran
    with pytest.raises(ConfigError, match="holds no detections yet: `prelabel run CONFIG` first"):
        export_run(assembly_of(media, tmp_path / "out"), "coco", tmp_path / "all.json")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "all.json").exists()


def test_a_detector_with_other_classes_is_refused(ran, tmp_path):
    assembly = assembly_of(*ran, detector={"use": "tests.kept:OtherDetector"})
    with pytest.raises(ConfigError, match=r"labelled by a detector of 2 classes \(thing, …\), the config's has 1"):
        export_run(assembly, "coco", tmp_path / "all.json")


def test_a_target_of_the_wrong_kind_is_refused(ran, tmp_path):
    (tmp_path / "file").write_text("somebody's")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(ConfigError, match="file: is a file"):
        export_run(assembly_of(*ran), "yolo", tmp_path / "file")
    with pytest.raises(ConfigError, match=r"folder\.json: is a folder"):
        export_run(assembly_of(*ran), "coco", tmp_path / "folder.json")


@pytest.mark.parametrize("write", [export_mot, export_voc, export_labelstudio])
def test_shapes_that_become_boxes_are_counted(write, tmp_path):
    mask = Mask.of(np.ones((2, 2), np.bool_))
    rows = [(0, (0, 0, 2, 2), 0.9, 0, mask), (1, (0, 0, 2, 2), 0.9, 0, mask), (2, (0, 0, 2, 2), 0.9, 0, None)]
    export = export_of(tmp_path, replace(video("a.mp4"), detections=with_geometry(*rows)))
    write(export)
    assert export.reduced == {"mask": 2}


def test_poses_of_several_sizes_become_boxes_in_yolo_and_are_counted(tmp_path, monkeypatch):
    pose = Keypoints(np.ones((3, 2)), np.ones(3))
    found = with_geometry((0, (0, 0, 2, 2), 0.9, 0, pose))
    clip = LabelledVideo("a.mp4", INFO, found, map_to("skeleton", POSE_OFFER))
    export_yolo(one := export_of(tmp_path / "one", clip))
    assert one.reduced == {}
    monkeypatch.setattr(yolo, "keypoints_per_line", lambda label_map: 0)  # as it is for two kinds of skeletons
    export_yolo(several := export_of(tmp_path / "several", clip))
    assert several.reduced == {"keypoints": 1}


def reduce_two(export):
    export.reduced.update({"keypoints": 1, "mask": 2})
    return []


def test_a_format_that_cannot_hold_a_shape_is_told_with_the_number(ran, tmp_path):
    notes = []
    export_run(assembly_of(*ran), "tests.export.test_export:reduce_two", tmp_path, tell=notes.append)
    export_run(assembly_of(*ran), "voc", tmp_path / "voc", tell=notes.append)
    (note,) = notes
    assert note.endswith("reduce_two cannot hold these shapes, and got their boxes: masks 2, poses 1")
