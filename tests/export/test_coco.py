"""COCO: one document for all videos, written without holding it."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest

from prelabel.data.detections import VideoDetections
from prelabel.data.frames import VideoInfo
from prelabel.data.label_map import LabelledVideo, build_label_map
from prelabel.data.ontology import Ontology
from prelabel.export.coco import write_coco
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


def test_every_frame_that_was_looked_at_is_an_image(tmp_path):
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


def test_classes_of_one_object_are_one_category_in_the_ontologys_order(tmp_path):
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


def test_pictures_have_their_own_sizes(tmp_path):
    coco = read_back(tmp_path / "coco.json", [video("group", info=IMAGE_GROUP, inferred_frames=(0, 1, 2))])
    assert [(image["width"], image["height"]) for image in coco["images"]] == [(64, 48), (32, 32), (50, 70)]


def test_tracks_are_named_where_there_are_any(tmp_path):
    coco = read_back(tmp_path / "coco.json", [video("clip.mp4", (0, (1, 2, 4, 8), 0.5, 0), track_id=7)])
    assert coco["annotations"][0]["track_id"] == 7


def test_no_video_is_a_valid_document(tmp_path):
    assert read_back(tmp_path / "coco.json", []) == {"images": [], "annotations": [], "categories": []}


def test_error_midway_leaves_the_earlier_document(tmp_path):
    def videos():
        yield video("clip.mp4", (0, (1, 2, 4, 8), 0.5, 0))
        raise OSError("raw store gone")

    path = tmp_path / "coco.json"
    path.write_text("earlier")
    with pytest.raises(OSError, match="raw store gone"):
        write_coco(path, videos())
    assert path.read_text() == "earlier"
    assert [entry.name for entry in tmp_path.iterdir()] == ["coco.json"]


def test_pycocotools_reads_it(tmp_path):
    from faster_coco_eval import COCO

    write_coco(tmp_path / "coco.json", [video("clip.mp4", (0, (1, 2, 4, 8), 0.5, 1), (0, (2, 2, 4, 8), 0.5, 0))])
    coco = COCO(str(tmp_path / "coco.json"))
    assert coco.getCatIds() == [1, 2]
    assert len(coco.getAnnIds(imgIds=[1])) == 2


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
