"""YOLO and MOTChallenge: folders of small text files."""

from __future__ import annotations

import configparser

import pytest
import yaml

from prelabel.data.frames import VideoInfo
from prelabel.data.label_map import LabelledVideo, build_label_map
from prelabel.data.ontology import Ontology
from prelabel.export.mot import write_mot
from prelabel.export.yolo import write_yolo
from tests.labelling import detections

INFO = VideoInfo(width=100, height=50, num_frames=20, average_fps=12.5, duration_seconds=1.6)
LABEL_MAP = build_label_map(
    ["person", "car"], Ontology.from_classes(["Vehicle: any", "person"]), {"car": "Vehicle: any"}
)


def video(title, *rows, track_id=-1):
    return LabelledVideo(title, INFO, detections(*rows, inferred_frames=range(20), track_id=track_id), LABEL_MAP)


def files_in(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_yolo_has_a_file_for_each_frame_with_boxes(tmp_path):
    rows = [(3, (10, 10, 30, 20), 0.5, 1), (3, (0, 0, 100, 50), 0.5, 0), (12, (10, 10, 30, 20), 0.5, 0)]
    write_yolo(tmp_path, [video("clip.mp4", *rows), video("day/b.mp4", (0, (0, 0, 1, 1), 0.5, 0)), video("none.mp4")])
    assert files_in(tmp_path) == {
        "data.yaml",
        "labels/clip.mp4_000003.txt",
        "labels/clip.mp4_000012.txt",
        "labels/day/b.mp4_000000.txt",
    }
    text = (tmp_path / "labels" / "clip.mp4_000003.txt").read_text()
    assert text == "0 0.200000 0.300000 0.200000 0.200000\n1 0.500000 0.500000 1.000000 1.000000\n"


def test_yolo_data_yaml_names_the_classes(tmp_path):
    write_yolo(tmp_path, [video("clip.mp4")])
    assert yaml.safe_load((tmp_path / "data.yaml").read_text()) == {
        "path": ".",
        "train": "images",
        "val": "images",
        "names": {0: "Vehicle: any", 1: "person"},
    }


@pytest.mark.timeout(120)
def test_ultralytics_takes_the_yolo_labels(tmp_path):
    from PIL import Image
    from ultralytics.data.utils import verify_image_label

    write_yolo(tmp_path, [video("clip.mp4", (3, (10, 10, 30, 20), 0.5, 1))])
    label = tmp_path / "labels" / "clip.mp4_000003.txt"
    picture = tmp_path / "images" / "clip.mp4_000003.png"
    picture.parent.mkdir()
    Image.new("RGB", (100, 50)).save(picture)
    _, lines, *_, num_corrupt, message = verify_image_label((str(picture), str(label), "", False, 2, 0, 0, False))
    assert (num_corrupt, message) == (0, "")
    assert lines[0].tolist() == pytest.approx([0, 0.2, 0.3, 0.2, 0.2])
    assert len(lines) == 1


def test_mot_lines_count_frames_and_pixels_from_one(tmp_path):
    write_mot(tmp_path, [video("clip.mp4", (0, (10, 10, 30, 20), 0.75, 1), (9, (0, 0, 100, 50), 0.5, 0))])
    assert (tmp_path / "clip.mp4" / "det" / "det.txt").read_text().splitlines() == [
        "1,-1,11.000,11.000,20.000,10.000,0.75000,1,-1,-1",
        "10,-1,1.000,1.000,100.000,50.000,0.50000,2,-1,-1",
    ]
    assert (tmp_path / "clip.mp4" / "det" / "labels.txt").read_text().splitlines() == ["Vehicle: any", "person"]


def test_mot_keeps_tracks(tmp_path):
    write_mot(tmp_path, [video("clip.mp4", (0, (10, 10, 30, 20), 0.75, 1), track_id=4)])
    assert (tmp_path / "clip.mp4" / "det" / "det.txt").read_text().startswith("1,4,")


def test_mot_says_what_the_sequence_is(tmp_path):
    write_mot(tmp_path, [video("day/clip.mp4")])
    parser = configparser.ConfigParser()
    parser.read(tmp_path / "day" / "clip.mp4" / "seqinfo.ini")
    assert dict(parser["Sequence"]) == {
        "name": "day/clip.mp4",
        "framerate": "12.5",
        "seqlength": "20",
        "imwidth": "100",
        "imheight": "50",
    }
