"""YOLO labels as Ultralytics itself reads them, and a model that trains on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from prelabel.data.geometry import BOXES_ONLY, Mask, OutputSpec
from prelabel.data.label_map import LabelledVideo
from prelabel.export.export import Export, export_run
from prelabel.export.yolo import export_yolo
from tests.export.building import INFO, ONTOLOGY, export_of, files_in, video
from tests.geometries import POSE, POSE_OFFER, SQUARES, TURNED, map_to, with_geometry
from tests.kept import assembly_of, run, write_grey_clip

BOX = (10, 10, 30, 20)


def lines(folder, shape, offer, *geometry):
    """Returns the lines of a frame on which each label has one of the geometries."""
    found = with_geometry(*((3, BOX, 0.5, 0, each) for each in geometry))
    export_yolo(Export(folder, iter([LabelledVideo("clip.mp4", INFO, found, map_to(shape, offer))]), ONTOLOGY))
    return (folder / "labels" / "clip.mp4_000003.txt").read_text().splitlines()


def read_by_ultralytics(folder, *, num_classes=1, num_points=0):
    """Returns the boxes, segments and keypoints that Ultralytics' loader reads."""
    from ultralytics.data.utils import verify_image_label

    image = folder / "images" / "clip.mp4_000003.png"
    image.parent.mkdir(exist_ok=True)
    Image.new("RGB", (INFO.width, INFO.height)).save(image)
    label = folder / "labels" / "clip.mp4_000003.txt"
    arguments = (str(image), str(label), "", num_points > 0, num_classes, num_points, 3, False)
    _, boxes, _, segments, keypoints, *_, num_corrupt, message = verify_image_label(arguments)
    assert (num_corrupt, message) == (0, "")
    return boxes, segments, keypoints


def test_each_frame_with_boxes_has_a_file(tmp_path):
    rows = [(3, (10, 10, 30, 20), 0.5, 1), (3, (0, 0, 100, 50), 0.5, 0), (12, (10, 10, 30, 20), 0.5, 0)]
    export_yolo(
        export_of(tmp_path, video("clip.mp4", *rows), video("day/b.mp4", (0, (0, 0, 1, 1), 0.5, 0)), video("none.mp4"))
    )
    assert files_in(tmp_path) == {
        "data.yaml",
        "labels/clip.mp4_000003.txt",
        "labels/clip.mp4_000012.txt",
        "labels/day/b.mp4_000000.txt",
    }
    text = (tmp_path / "labels" / "clip.mp4_000003.txt").read_text()
    assert text == "0 0.200000 0.300000 0.200000 0.200000\n1 0.500000 0.500000 1.000000 1.000000\n"


def test_data_yaml_names_the_classes_and_no_path(tmp_path):
    export_yolo(export_of(tmp_path, video("clip.mp4")))
    assert yaml.safe_load((tmp_path / "data.yaml").read_text()) == {
        "train": "images",
        "val": "images",
        "names": {0: "Vehicle: any", 1: "person"},
    }


def test_ultralytics_reads_the_boxes(tmp_path):
    export_yolo(export_of(tmp_path, video("clip.mp4", (3, BOX, 0.5, 1))))
    boxes, _, _ = read_by_ultralytics(tmp_path, num_classes=2)
    assert boxes.tolist() == [pytest.approx([0, 0.2, 0.3, 0.2, 0.2])]


def test_masks_are_polygons_and_a_box_among_them_is_its_corners(tmp_path):
    square = Mask.of(np.ones((20, 40), bool), 10, 10)

    first, second = lines(tmp_path, "bitmask", OutputSpec("mask"), square, None)

    assert sorted(map(float, first.split()[1:])) == [0.1, 0.1, 0.2, 0.2, 0.5, 0.5, 0.6, 0.6]
    assert second == "0 0.100000 0.200000 0.300000 0.200000 0.300000 0.400000 0.100000 0.400000"
    boxes, segments, _ = read_by_ultralytics(tmp_path)
    assert boxes[0].tolist() == pytest.approx([0, 0.3, 0.4, 0.4, 0.4])
    assert [len(segment) for segment in segments] == [4, 4]


def test_parts_are_joined_into_one_ring(tmp_path):
    (line,) = lines(tmp_path, "polygon", OutputSpec("polygons"), SQUARES)

    points = np.array(line.split()[1:], float).reshape(-1, 2) * (INFO.width, INFO.height)
    assert len(points) == 4 + 1 + 3 + 1
    assert points[4].tolist() == points[0].tolist()
    assert points[8].tolist() == points[5].tolist()


def test_rotated_boxes_are_four_corners(tmp_path):
    (line,) = lines(tmp_path, "rotatable_bounding_box", OutputSpec("rotated_box"), TURNED)

    corners = np.array(line.split()[1:], float).reshape(-1, 2) * (INFO.width, INFO.height)
    assert np.allclose(corners, TURNED.corners, atol=1e-3)
    _, segments, _ = read_by_ultralytics(tmp_path)
    assert len(segments[0]) == 4


def test_poses_are_a_box_and_points_in_the_skeletons_order(tmp_path):
    first, second = lines(tmp_path, "skeleton", POSE_OFFER, POSE, None)

    points = [0.02, 0.06, 2, 0.08, 0.06, 1, 0.05, 0.12, 2]
    assert list(map(float, first.split()[5:])) == points
    assert second.split()[5:] == ["0.000000"] * 9
    assert yaml.safe_load((tmp_path / "data.yaml").read_text())["kpt_shape"] == [3, 3]
    _, _, keypoints = read_by_ultralytics(tmp_path, num_points=3)
    assert keypoints.shape == (2, 3, 3)


def test_detections_without_geometry_stay_boxes_whatever_the_shape(tmp_path):
    assert lines(tmp_path, "polygon", BOXES_ONLY, None) == ["0 0.200000 0.300000 0.200000 0.200000"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export with images of every second frame of seven videos, one below a folder called images."""
    folder = tmp_path_factory.mktemp("yolo")
    for name in ("a", "b", "c", "d", "e", "f", "images/g"):
        write_grey_clip(folder / "media" / f"{name}.mp4", 96, 64, 4)
    assembly = assembly_of(folder / "media", folder / "out", detector={"use": "tests.kept:UnsureDetector"})
    run(assembly)
    export_run(assembly, "yolo", folder / "set", frames="2")
    return folder / "set"


def test_images_are_split_by_video_and_each_has_a_label_file(dataset):
    images = {name: (dataset / f"{name}.txt").read_text().split() for name in ("train", "val")}
    assert images["val"] == [f"./images/{name}.mp4_{frame:06d}.jpg" for name in ("b", "images_/g") for frame in (0, 2)]
    assert len(images["train"]) == 5 * 2
    assert files_in(dataset / "labels") == {
        name.removeprefix("./images/").replace(".jpg", ".txt") for names in images.values() for name in names
    }
    with Image.open(dataset / "images" / "a.mp4_000002.jpg") as image:
        assert image.size == (96, 64)


def test_a_single_video_is_its_own_validation(tmp_path):
    write_grey_clip(tmp_path / "media" / "a.mp4", 96, 64, 2)
    assembly = assembly_of(tmp_path / "media", tmp_path / "out")
    run(assembly)
    export_run(assembly, "yolo", tmp_path / "set", frames="labelled")
    described = yaml.safe_load((tmp_path / "set" / "data.yaml").read_text())
    assert (described["train"], described["val"]) == ("train.txt", "train.txt")


def test_ultralytics_finds_the_images_from_any_folder(dataset, tmp_path, monkeypatch):
    from ultralytics.data.utils import check_det_dataset, img2label_paths

    for folder in (dataset, dataset.parent, tmp_path):
        monkeypatch.chdir(folder)
        found = check_det_dataset(str(dataset / "data.yaml"), autodownload=False)
        assert (found["train"], found["val"]) == (str(dataset / "train.txt"), str(dataset / "val.txt"))
    image = str(dataset / "images" / "images_" / "g.mp4_000002.jpg")
    assert img2label_paths([image]) == [str(dataset / "labels" / "images_" / "g.mp4_000002.txt")]


@pytest.mark.slow
def test_a_model_trains_on_the_export(dataset, tmp_path, monkeypatch):
    from ultralytics import YOLO

    monkeypatch.chdir(tmp_path)
    model = YOLO("yolo11n.yaml")
    quick = {"epochs": 1, "imgsz": 32, "batch": 4, "workers": 0, "device": "cpu", "amp": False, "plots": False}
    model.train(data=str(dataset / "data.yaml"), project=str(tmp_path / "runs"), verbose=False, **quick)
    loaded = [loader.dataset.labels for loader in (model.trainer.train_loader, model.trainer.test_loader)]
    assert [len(labels) for labels in loaded] == [10, 4]
    assert [len(entry["cls"]) for labels in loaded for entry in labels] == [1] * 14
    assert len(list((tmp_path / "runs").rglob("last.pt"))) == 1
