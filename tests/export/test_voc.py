"""Pascal VOC, as torchvision and supervision load it."""

from __future__ import annotations

from pathlib import Path

import pytest

from prelabel.export.cvat import export_voc
from prelabel.export.export import export_run
from tests.export.building import DATUMARO, export_of, files_in, run_apart, video
from tests.kept import assembly_of, make_media, run


def test_every_inferred_frame_has_an_annotation_and_its_name_in_the_list(tmp_path):
    export_voc(export_of(tmp_path, video("day/a.mp4", (3, (10, 10, 30, 20), 0.5, 1), inferred_frames=(3, 6))))
    assert files_in(tmp_path) == {
        "Annotations/day_a.mp4_000003.xml",
        "Annotations/day_a.mp4_000006.xml",
        "ImageSets/Main/trainval.txt",
        "labelmap.txt",
    }
    assert (tmp_path / "ImageSets" / "Main" / "trainval.txt").read_text().split() == [
        "day_a.mp4_000003",
        "day_a.mp4_000006",
    ]


def test_a_folder_and_a_name_that_look_alike_keep_their_own_annotations(tmp_path):
    export_voc(export_of(tmp_path, *(video(title, inferred_frames=(3,)) for title in ("day/a.mp4", "day_a.mp4"))))
    names = (tmp_path / "ImageSets" / "Main" / "trainval.txt").read_text().split()
    assert len(set(names)) == 2
    databases = [(tmp_path / "Annotations" / f"{name}.xml").read_text().split("database>")[1] for name in names]
    assert databases == ["day/a.mp4</", "day_a.mp4</"]


def test_a_class_that_the_label_map_cannot_hold_is_named(tmp_path):
    export = export_of(tmp_path, video("a.mp4"))
    export_voc(export)
    assert [line.split(":")[0] for line in (tmp_path / "labelmap.txt").read_text().splitlines()[1:]] == [
        "background",
        "person",
    ]
    (note,) = export.notes
    assert "left out 'Vehicle: any': map them" in note


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export with the labelled frames of two videos and a still."""
    folder = tmp_path_factory.mktemp("voc")
    make_media(folder / "media")
    assembly = assembly_of(folder / "media", folder / "out")
    run(assembly)
    export_run(assembly, "voc", folder / "set", frames="labelled")
    return folder / "set"


def test_supervision_loads_images_and_boxes(dataset):
    import supervision as sv

    loaded = sv.DetectionDataset.from_pascal_voc(str(dataset / "JPEGImages"), str(dataset / "Annotations"))
    assert sorted(loaded.classes) == ["other", "thing"]
    boxes = {Path(path).name: found.xyxy.tolist() for path, _, found in loaded}
    assert len(boxes) == 13
    assert boxes["first.mp4_000001.jpg"] == [[10, 20, 50, 60]]


def test_torchvision_loads_images_and_boxes(dataset, tmp_path):
    from torchvision.datasets import VOCDetection

    (tmp_path / "VOCdevkit").mkdir()
    (tmp_path / "VOCdevkit" / "VOC2012").symlink_to(dataset)
    loaded = VOCDetection(str(tmp_path), year="2012", image_set="trainval")
    assert len(loaded) == 13
    image, target = next(pair for pair in loaded if pair[1]["annotation"]["filename"] == "first.mp4_000001.jpg")
    assert image.size == (96, 64)
    (found,) = target["annotation"]["object"]
    assert (found["name"], found["bndbox"]) == ("thing", {"xmin": "11", "ymin": "21", "xmax": "50", "ymax": "60"})


@pytest.mark.slow
def test_datumaro_imports_images_boxes_and_classes(dataset):
    script = """
import json, sys
from datumaro.components.dataset import Dataset
loaded = Dataset.import_from(sys.argv[1], "voc")
names = [label.name for label in loaded.categories()[next(iter(loaded.categories()))].items]
print(json.dumps([len(loaded), names, sum(len(item.annotations) for item in loaded)]))
"""
    num_images, names, num_boxes = run_apart(DATUMARO, script, dataset)
    assert (num_images, num_boxes) == (13, 20)
    assert names[:3] == ["background", "thing", "other"]
