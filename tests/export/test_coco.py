"""COCO: one document for all videos, written without holding it, and what its readers make of it."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prelabel.data.detections import VideoDetections
from prelabel.data.frames import VideoInfo
from prelabel.data.label_map import LabelledVideo, build_label_map
from prelabel.data.ontology import Ontology
from prelabel.export.coco import frame_file_name, write_coco
from prelabel.export.export import export_run
from prelabel.export.mot import export_mot
from tests.export import building
from tests.export.building import DATUMARO, export_of, run_apart
from tests.kept import assembly_of, make_media, run
from tests.labelling import IMAGE_GROUP, VIDEO, detections

CLASSES = ["person", "car", "truck"]
LABEL_MAP = build_label_map(
    CLASSES, Ontology.from_classes(["Vehicle", "person"]), {"car": "Vehicle", "truck": "Vehicle"}
)


def video(title, *rows, info=VIDEO, inferred_frames=(), track_id=-1):
    found = detections(*rows, inferred_frames=inferred_frames, track_id=track_id)
    return LabelledVideo(title, info, found, LABEL_MAP)


def read_back(path, videos):
    write_coco(path, videos)
    return json.loads(path.read_text())


def test_every_inferred_frame_is_an_image(tmp_path):
    coco = read_back(
        tmp_path / "coco.json", [video("clip.mp4", (12, (1, 2, 4, 8), 0.5, 0), inferred_frames=(0, 6, 12))]
    )
    assert coco["images"][2] == {
        "id": 3,
        "file_name": "clip.mp4/000012.jpg",
        "video": "clip.mp4",
        "frame_index": 12,
        "width": 64,
        "height": 48,
    }
    assert [image["frame_index"] for image in coco["images"]] == [0, 6, 12]


def test_annotation_has_its_box_in_pixels_and_its_score(tmp_path):
    coco = read_back(tmp_path / "coco.json", [video("clip.mp4", (12, (1, 2, 4, 8), 0.87, 0), inferred_frames=(0, 12))])
    assert coco["annotations"] == [
        {"id": 1, "image_id": 2, "category_id": 2, "bbox": [1, 2, 3, 6], "area": 18, "iscrowd": 0, "score": 0.87}
    ]


def test_classes_of_one_object_share_a_category_in_the_ontologys_order(tmp_path):
    rows = [(0, (1, 2, 4, 8), 0.5, class_id) for class_id in (0, 1, 2)]
    coco = read_back(tmp_path / "coco.json", [video("clip.mp4", *rows)])
    assert [(category["id"], category["name"]) for category in coco["categories"]] == [(1, "Vehicle"), (2, "person")]
    assert [annotation["category_id"] for annotation in coco["annotations"]] == [2, 1, 1]


def test_ids_run_through_all_videos(tmp_path):
    videos = [video(f"{n}.mp4", (n, (1, 2, 4, 8), 0.5, 0), inferred_frames=(0, n)) for n in (1, 2, 3)]
    coco = read_back(tmp_path / "coco.json", iter(videos))
    assert [image["id"] for image in coco["images"]] == [1, 2, 3, 4, 5, 6]
    assert [(annotation["id"], annotation["image_id"]) for annotation in coco["annotations"]] == [
        (1, 2),
        (2, 4),
        (3, 6),
    ]


def test_images_of_a_group_have_their_own_sizes(tmp_path):
    coco = read_back(tmp_path / "coco.json", [video("group", info=IMAGE_GROUP, inferred_frames=(0, 1, 2))])
    assert [(image["width"], image["height"]) for image in coco["images"]] == [(64, 48), (32, 32), (50, 70)]


def test_annotations_have_a_track_id_where_there_are_tracks(tmp_path):
    coco = read_back(tmp_path / "coco.json", [video("clip.mp4", (0, (1, 2, 4, 8), 0.5, 0), track_id=7)])
    assert coco["annotations"][0]["track_id"] == 7


def test_no_videos_make_a_valid_document(tmp_path):
    assert read_back(tmp_path / "coco.json", []) == {"images": [], "annotations": [], "categories": []}


def test_an_error_leaves_the_earlier_document(tmp_path):
    def videos():
        yield video("clip.mp4", (0, (1, 2, 4, 8), 0.5, 0))
        raise OSError("raw store gone")

    path = tmp_path / "coco.json"
    path.write_text("earlier")
    with pytest.raises(OSError, match="raw store gone"):
        write_coco(path, videos())
    assert path.read_text() == "earlier"
    assert [entry.name for entry in tmp_path.iterdir()] == ["coco.json"]


def test_file_names_are_paths_that_any_file_system_takes():
    assert frame_file_name("day 2/clip.mp4", 3) == "day 2/clip.mp4/000003.jpg"
    assert ".." not in frame_file_name("../clip.mp4", 3)


def test_faster_coco_eval_reads_it(tmp_path):
    from faster_coco_eval import COCO

    write_coco(tmp_path / "coco.json", [video("clip.mp4", (0, (1, 2, 4, 8), 0.5, 1), (0, (2, 2, 4, 8), 0.5, 0))])
    coco = COCO(str(tmp_path / "coco.json"))
    assert coco.getCatIds() == [1, 2]
    assert len(coco.getAnnIds(imgIds=[1])) == 2


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_videos(tmp_path):
    def some(num_videos):
        info = VideoInfo(width=64, height=48, num_frames=500)
        frames = np.arange(500)
        box = np.tile(np.array([[1, 2, 4, 8]], np.float32), (500, 1))
        ones = np.ones(500, np.float32)
        for n in range(num_videos):
            found = VideoDetections(frames, box, ones, frames * 0, frames * 0 - 1, frames)
            yield LabelledVideo(f"{n}.mp4", info, found, LABEL_MAP)

    def peak(num_videos):
        tracemalloc.start()
        write_coco(tmp_path / "coco.json", some(num_videos))
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak_bytes

    peak(1)
    assert peak(12) < 1.5 * peak(2)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """An export with the images of two videos of six frames and of a still, as a run's output holds them."""
    folder = tmp_path_factory.mktemp("coco")
    make_media(folder / "media")
    assembly = assembly_of(folder / "media", folder / "out")
    run(assembly)
    export_run(assembly, "coco", folder / "set", frames="1")
    return folder / "set"


def test_every_image_is_a_file_of_its_size(dataset):
    for image in json.loads((dataset / "coco.json").read_text())["images"]:
        with Image.open(dataset / "images" / image["file_name"]) as opened:
            assert opened.size == (image["width"], image["height"])


def test_supervision_loads_images_and_boxes(dataset):
    import supervision as sv

    loaded = sv.DetectionDataset.from_coco(str(dataset / "images"), str(dataset / "coco.json"))
    assert loaded.classes == ["thing", "other"]
    assert len(loaded) == 13
    boxes = {Path(path).relative_to(dataset / "images").as_posix(): found.xyxy.tolist() for path, _, found in loaded}
    assert boxes["first.mp4/000001.jpg"] == [[10, 20, 50, 60]]


def test_ultralytics_converts_it_to_a_label_file_for_each_frame(dataset, tmp_path):
    from ultralytics.data.converter import convert_coco

    convert_coco(str(dataset), str(tmp_path / "converted"), cls91to80=False)
    labels = sorted((tmp_path / "converted" / "labels").rglob("*.txt"))
    assert len(labels) == 13
    (label,) = (path for path in labels if path.parts[-2:] == ("first.mp4", "000001.txt"))
    assert [float(value) for value in label.read_text().split()] == pytest.approx(
        [0, 30 / 96, 40 / 64, 40 / 96, 40 / 64]
    )


@pytest.mark.slow
def test_datumaro_imports_coco_and_mot(dataset, tmp_path):
    export_mot(export_of(tmp_path / "mot", building.video("clip.mp4", (3, (10, 10, 30, 20), 0.5, 1), track_id=1)))
    (tmp_path / "coco" / "annotations").mkdir(parents=True)
    (tmp_path / "coco" / "images").symlink_to(dataset / "images")
    shutil.copy(dataset / "coco.json", tmp_path / "coco" / "annotations" / "instances_train.json")
    script = """
import json, sys
from datumaro.components.dataset import Dataset
coco = Dataset.import_from(sys.argv[1], "coco_instances")
mot = Dataset.import_from(sys.argv[2], "mot_seq")
boxes = [(item.id, annotation.label, annotation.get_bbox()) for item in coco for annotation in item.annotations]
print(json.dumps([len(coco), boxes, [[a.get_bbox() for a in item.annotations] for item in mot if item.annotations]]))
"""
    num_images, boxes, tracked = run_apart(DATUMARO, script, tmp_path / "coco", tmp_path / "mot" / "clip.mp4")
    assert num_images == 13
    assert ["first.mp4/000001", 0, [10, 20, 40, 40]] in boxes
    assert tracked == [[[11, 11, 20, 10]]]  # as the file has it, counted from 1
