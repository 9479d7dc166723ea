"""The whole run on real footage with real weights, scored against its ground truth."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from prelabel.assembly.assemble import assemble
from prelabel.config.load import check_config
from prelabel.run.outputs import complete
from prelabel.run.runner import run_tasks
from prelabel.runtime.interrupts import StopSignal
from prelabel.runtime.progress import NullProgress
from tests.fake_nvdec import FakeNvdec

pytestmark = [pytest.mark.needs_test_data, pytest.mark.slow]

CONF = 0.001  # mAP counts low boxes too


def average_precision(truth: dict, rows: list[dict]) -> float:
    from faster_coco_eval import COCO, COCOeval_faster

    coco = COCO(truth)
    evaluation = COCOeval_faster(coco, coco.loadRes(rows), "bbox")
    evaluation.run()
    return evaluation.stats[0]


def rows_of_run(clip: Path, weights: Path, output: Path, truth: dict, reader: dict | None = None) -> list[dict]:
    """Detections of the run's coco.json, by the truth's own ids."""
    values = {
        "source": {"path": str(clip), "output": str(output)},
        "detector": {"use": "ultralytics", "weights": str(weights), "conf": CONF, "engine": "torch"},
        "labels": {"max_row_mb": 500},
        "reader": reader or {},
    }
    assembly = assemble(check_config(values, "test"), Path())
    report = complete(assembly, run_tasks(assembly, NullProgress(), StopSignal()), NullProgress())
    assert not report.failed
    found = json.loads((output / "coco.json").read_text())
    frames = {image["id"]: image["frame_index"] for image in found["images"]}
    image_ids = {image["frame"]: image["id"] for image in truth["images"]}
    names = {category["id"]: category["name"] for category in found["categories"]}
    category_ids = {category["name"]: category["id"] for category in truth["categories"]}
    return [
        {
            "image_id": image_ids[frames[row["image_id"]]],
            "category_id": category_ids[names[row["category_id"]]],
            "bbox": row["bbox"],
            "score": row["score"],
        }
        for row in found["annotations"]
    ]


def rows_of_pictures(folder: Path, weights: Path, truth: dict) -> list[dict]:
    """Detections of Ultralytics' own `predict` on the pictures, each on the clip's grey canvas and never encoded."""
    from ultralytics import YOLO

    model = YOLO(str(weights))
    category_ids = {category["name"]: category["id"] for category in truth["categories"]}
    rows = []
    for image in truth["images"]:
        canvas = Image.new("RGB", (image["width"], image["height"]), (114, 114, 114))
        canvas.paste(Image.open(folder / image["file_name"]).convert("RGB"), (image["offset_x"], image["offset_y"]))
        boxes = model.predict(canvas, conf=CONF, device="cpu", verbose=False)[0].boxes
        for (x1, y1, x2, y2), score, class_id in zip(boxes.xyxy.tolist(), boxes.conf, boxes.cls, strict=True):
            category_id = category_ids[model.names[int(class_id)]]
            place = [x1, y1, x2 - x1, y2 - y1]
            rows.append({"image_id": image["id"], "category_id": category_id, "bbox": place, "score": float(score)})
    return rows


def test_a_clip_scores_as_the_model_does_on_its_pictures(test_data, tmp_path):
    folder, weights = test_data / "coco_mini", test_data / "weights" / "yolo11n_coco.pt"
    truth = json.loads((folder / "coco_mini.json").read_text())

    of_run = average_precision(truth, rows_of_run(folder / "coco_mini.mp4", weights, tmp_path, truth))
    of_pictures = average_precision(truth, rows_of_pictures(folder / "images", weights, truth))

    print(f"mAP of the run {of_run:.4f}, of predict on the pictures {of_pictures:.4f}")
    assert of_run == pytest.approx(of_pictures, abs=0.005)


def test_surfaces_score_as_ffmpegs_frames_do(test_data, tmp_path, monkeypatch):
    folder, weights = test_data / "coco_mini", test_data / "weights" / "yolo11n_coco.pt"
    truth = json.loads((folder / "coco_mini.json").read_text())
    of_frames = average_precision(truth, rows_of_run(folder / "coco_mini.mp4", weights, tmp_path / "pyav", truth))
    FakeNvdec(monkeypatch)
    nvdec = {"use": "nvdec", "isolate": "never"}

    rows = rows_of_run(folder / "coco_mini.mp4", weights, tmp_path / "nvdec", truth, nvdec)

    of_surfaces = average_precision(truth, rows)
    print(f"mAP of FFmpeg's frames {of_frames:.4f}, of surfaces {of_surfaces:.4f}")
    assert of_surfaces == pytest.approx(of_frames, abs=0.003)
