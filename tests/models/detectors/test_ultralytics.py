from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from prelabel import Detections, FrameBatch, ModelRecord
from prelabel.data.boxes import iou_matrix
from prelabel.data.surfaces import Orientation
from prelabel.errors import ConfigError, MachineError, WeightsError
from prelabel.models.detectors.ultralytics import UltralyticsDetector
from prelabel.testing import check_detector
from tests.builders import noise_surfaces
from tests.models.detectors.checkpoints import as_batch, blocky_frames

PREDICTS_MAP = 0.504  # of Ultralytics' predict on the pictures of coco_mini
LOW = {"conf": 0.02, "raw_conf": 0.02, "imgsz": 160, "device": "cpu", "engine": "torch"}


def predict(weights: Path, frames: np.ndarray, **options: object) -> list[Detections]:
    """Returns what Ultralytics' own `predict` finds."""
    from ultralytics import RTDETR, YOLO

    model = (RTDETR if "rtdetr" in weights.name else YOLO)(weights)
    bgr = [np.ascontiguousarray(frame[..., ::-1]) for frame in frames]
    results = model.predict(bgr, device="cpu", verbose=False, **options)
    return [with_area(result.boxes.data.numpy()) for result in results]


def with_area(rows: np.ndarray) -> Detections:
    """Untrained heads without DFL give boxes turned inside out, too, which are nobody's to keep."""
    rows = rows[(rows[:, 2] > rows[:, 0]) & (rows[:, 3] > rows[:, 1])]
    return Detections(rows[:, :4], rows[:, 4], rows[:, 5])


def above(found: Detections, conf: float) -> Detections:
    keep = found.confidence > conf
    return Detections(found.xyxy[keep], found.confidence[keep], found.class_id[keep])


def assert_same(found: list[Detections], expected: list[Detections]) -> None:
    assert sum(map(len, expected)) > 0
    for ours, theirs in zip(found, expected, strict=True):
        assert len(ours) == len(theirs)
        np.testing.assert_array_equal(ours.class_id, theirs.class_id)
        np.testing.assert_allclose(ours.confidence, theirs.confidence, atol=1e-4)
        np.testing.assert_allclose(ours.xyxy, theirs.xyxy, atol=0.2)


@pytest.mark.parametrize("architecture", ["yolo11n", "yolo26n", "yolo11n-pose", "yolov8n-rtdetr"])
def test_boxes_of_any_architecture_equal_predict(checkpoint, architecture):
    weights, frames = checkpoint(architecture), blocky_frames(2)

    found = UltralyticsDetector(weights=str(weights), **LOW).detect(as_batch(frames))

    assert_same(found, predict(weights, frames, conf=0.02, imgsz=160))


@pytest.mark.parametrize("architecture", ["yolo11n", "yolo11n-pose"])
def test_boxes_of_the_way_of_gpus_equal_those_of_the_way_of_cpus(checkpoint, architecture):
    weights, frames = checkpoint(architecture), as_batch(blocky_frames(3))
    expected = UltralyticsDetector(weights=str(weights), **LOW).detect(frames)

    detector = UltralyticsDetector(weights=str(weights), **LOW)
    detector._is_batched = True

    assert_same(detector.detect(frames), expected)


def test_boxes_that_are_not_sure_are_looked_at_one_by_one(checkpoint, monkeypatch):
    weights, frames = checkpoint("yolo11n"), as_batch(blocky_frames(2))
    expected = UltralyticsDetector(weights=str(weights), **LOW).detect(frames)

    def unsure(prediction, num_classes, rule):
        return torch.zeros(len(prediction), rule.max_det, 6), torch.tensor(False)

    monkeypatch.setattr("prelabel.models.detectors.ultralytics_torch.nms_batched", unsure)
    detector = UltralyticsDetector(weights=str(weights), **LOW)
    detector._is_batched = True

    assert_same(detector.detect(frames), expected)


def test_segmentation_weights_give_the_boxes_of_predict_and_those_without_a_mask(checkpoint):
    weights, frames = checkpoint("yolo11n-seg"), blocky_frames(1)

    (found,) = UltralyticsDetector(weights=str(weights), **LOW).detect(as_batch(frames))

    (expected,) = predict(weights, frames, conf=0.02, imgsz=160)
    assert len(expected) > 0
    assert iou_matrix(expected.xyxy, found.xyxy).max(axis=1).min() > 0.98


@pytest.mark.parametrize("architecture", ["yolo26n", "yolov10n"])
def test_boxes_of_an_end_to_end_head_equal_predict(checkpoint, architecture):
    weights, frames = checkpoint(architecture), blocky_frames(2)

    found = UltralyticsDetector(weights=str(weights), nms=False, **LOW).detect(as_batch(frames))

    assert_same(found, predict(weights, frames, conf=0.02, imgsz=160, nms=False))


@pytest.mark.slow
def test_boxes_of_an_export_of_a_fixed_shape_equal_predict(checkpoint, tmp_path):
    from ultralytics import YOLO

    (tmp_path / "net.pt").write_bytes((checkpoint("yolo11n")).read_bytes())
    weights = Path(YOLO(tmp_path / "net.pt").export(format="torchscript", imgsz=(96, 160), verbose=False))
    frames = blocky_frames(3)

    detector = UltralyticsDetector(weights=str(weights), **LOW)

    assert_same(detector.detect(as_batch(frames)), predict(weights, frames, conf=0.02))


def test_filtering_later_equals_asking_for_a_higher_threshold(checkpoint):
    weights, frames = checkpoint("yolo11n"), blocky_frames(2)
    options = {"weights": str(weights), "imgsz": 160, "device": "cpu", "engine": "torch", "max_det": 20}
    strict = UltralyticsDetector(conf=0.1, raw_conf=0.1, **options).detect(as_batch(frames))

    detector = UltralyticsDetector(conf=0.1, raw_conf=0.01, **options)
    found = detector.detect(as_batch(frames))

    assert detector.traits.conf == 0.1
    assert sum(map(len, found)) >= sum(map(len, strict))
    assert_same([above(detections, 0.1) for detections in found], strict)


def test_classes_by_name_and_by_id_keep_others_out(checkpoint):
    weights, frames = str(checkpoint("yolo11n")), as_batch(blocky_frames(1))
    (everything,) = UltralyticsDetector(weights=weights, **LOW).detect(frames)
    wanted = int(everything.class_id[0])
    detector = UltralyticsDetector(weights=weights, classes=(wanted,), **LOW)
    named = UltralyticsDetector(weights=weights, classes=(detector.class_names[wanted],), **LOW)

    assert set(detector.detect(frames)[0].class_id.tolist()) == {wanted}
    assert_same(named.detect(frames), detector.detect(frames))


def test_a_name_of_several_classes_stands_for_all_of_them(checkpoint, tmp_path):
    from ultralytics import YOLO

    model = YOLO(checkpoint("yolo11n"))
    model.model.names = {index: f"class {index % 40}" for index in range(80)}
    model.save(tmp_path / "shared.pt")
    options = {"weights": str(tmp_path / "shared.pt"), **LOW}
    frames = as_batch(blocky_frames(1))

    (by_name,) = UltralyticsDetector(classes=("class 3",), **options).detect(frames)

    assert_same([by_name], UltralyticsDetector(classes=(3, 43), **options).detect(frames))


def test_weights_of_one_channel_get_grey_frames(tmp_path):
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    network = DetectionModel("yolo11n.yaml", ch=1, nc=2, verbose=False)
    for branch in network.model[-1].cv3:
        torch.nn.init.normal_(branch[-1].weight, std=0.3)
        torch.nn.init.constant_(branch[-1].bias, -1.0)
    network.names, network.args, network.task = {0: "a", 1: "b"}, {}, "detect"
    torch.save({"model": network, "train_args": {}}, tmp_path / "grey.pt")
    colour = blocky_frames(1)
    grey = np.asarray(Image.fromarray(colour[0]).convert("L"))[None, ..., None].repeat(3, axis=-1)
    detector = UltralyticsDetector(weights=str(tmp_path / "grey.pt"), **LOW)

    assert_same(detector.detect(as_batch(colour)), detector.detect(as_batch(grey)))


@pytest.mark.parametrize("architecture", ["yolo11n", pytest.param("yolov8n-rtdetr", marks=pytest.mark.slow)])
def test_detector_keeps_its_contract(checkpoint, architecture):
    check_detector(UltralyticsDetector(weights=str(checkpoint(architecture)), **LOW), blocky_frames(3))


def test_model_says_what_made_the_labels(checkpoint):
    detector = UltralyticsDetector(weights=str(checkpoint("yolo11n")), **LOW)

    assert isinstance(detector.traits.model, ModelRecord)
    assert detector.traits.model.name == "yolo11n"
    assert len(detector.traits.model.weights_sha256) == 64
    assert detector.traits.model.licence.startswith("AGPL-3.0")
    assert len(detector.class_names) == 80


def test_weights_of_another_task_are_refused(checkpoint):
    with pytest.raises(WeightsError, match="expected one that gives boxes"):
        UltralyticsDetector(weights=str(checkpoint("yolo11n-cls")), **LOW)


@pytest.mark.parametrize(
    "content",
    [b"", b"no checkpoint", b"PK\x03\x04 cut short", b"version https://git-lfs.github.com/spec/v1\n", b"\x80\x02."],
)
def test_damaged_weights_are_named_in_one_line(tmp_path, content, caplog):
    path = tmp_path / "best.pt"
    path.write_bytes(content)

    with pytest.raises(WeightsError, match=f"{path}: is no Ultralytics checkpoint") as refused:
        UltralyticsDetector(weights=str(path), **LOW)
    assert "\n" not in str(refused.value)
    assert "runs code" not in caplog.text


def test_damaged_onnx_file_is_named(tmp_path):
    pytest.importorskip("onnxruntime")
    path = tmp_path / "net.onnx"
    path.write_bytes(b"graph")

    with pytest.raises(WeightsError, match=f"{path}: Ultralytics cannot load it on cpu: "):
        UltralyticsDetector(weights=str(path), **LOW)


@pytest.mark.parametrize(("name", "package"), [("net.onnx", "onnxruntime"), ("net.engine", "tensorrt")])
def test_missing_runtime_of_a_format_is_named_and_not_installed(tmp_path, name, package):
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    (tmp_path / name).write_bytes(b"graph")

    with pytest.raises(MachineError, match=package):
        UltralyticsDetector(weights=str(tmp_path / name), **LOW)


def test_unknown_format_names_the_known_ones(tmp_path):
    (tmp_path / "net.tflite").write_bytes(b"graph")

    with pytest.raises(WeightsError, match=r"got \.tflite, expected \.pt"):
        UltralyticsDetector(weights=str(tmp_path / "net.tflite"), **LOW)


def test_unknown_class_names_the_nearest(checkpoint):
    with pytest.raises(ConfigError, match="did you mean 'class 7'"):
        UltralyticsDetector(weights=str(checkpoint("yolo11n")), classes=("clas 7",), **LOW)


def test_half_is_refused_in_torch_on_a_cpu(checkpoint):
    with pytest.raises(MachineError, match="half"):
        UltralyticsDetector(weights=str(checkpoint("yolo11n")), half=True, engine="torch", device="cpu")


@pytest.mark.slow
def test_loading_leaves_environment_threads_pillow_and_home_alone(checkpoint, tmp_path):
    program = (
        "import os, torch\n"
        "from PIL import Image\n"
        "before, threads, open_image = dict(os.environ), torch.get_num_threads(), Image.open\n"
        "from prelabel.models.detectors.ultralytics import UltralyticsDetector\n"
        f"UltralyticsDetector(weights={str(checkpoint('yolo11n'))!r}, device='cpu')\n"
        "from ultralytics.utils import ONLINE, SETTINGS\n"
        "from ultralytics.utils.checks import AUTOINSTALL\n"
        "changed = {name for name, _ in set(os.environ.items()) ^ set(before.items())}\n"
        "assert changed <= {'LD_LIBRARY_PATH'}, changed  # cv2's own doing\n"
        "assert torch.get_num_threads() == threads\n"
        "assert Image.open is open_image\n"
        "assert not (ONLINE or AUTOINSTALL or SETTINGS['sync'])\n"
    )
    hidden = ("YOLO_OFFLINE", "YOLO_CONFIG_DIR", "OMP_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    home = {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "cache")}

    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=environment | home,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
    assert not list((tmp_path / "home").rglob("*ltralytics*"))


def test_checkpoint_with_classes_of_its_own_loads_with_a_warning(checkpoint, tmp_path, caplog):
    content = torch.load(checkpoint("yolo11n"), weights_only=False)
    torch.save({**content, "notes": Fraction(1, 2)}, tmp_path / "own.pt")

    detector = UltralyticsDetector(weights=str(tmp_path / "own.pt"), **LOW)

    assert len(detector.class_names) == 80
    assert "runs code from the file" in caplog.text


@pytest.mark.slow
@pytest.mark.needs_test_data
def test_real_boxes_equal_predict_at_every_frame_size(test_data):
    weights = test_data / "weights" / "yolo11n_coco.pt"
    detector = UltralyticsDetector(weights=str(weights), device="cpu", engine="torch")
    for height, width in [(1080, 1920), (720, 1280), (480, 853)]:
        frames = street_frames(test_data, (width, height))

        found = [above(detections, detector.traits.conf) for detections in detector.detect(as_batch(frames))]

        assert_same(found, predict(weights, frames))


@pytest.mark.slow
@pytest.mark.needs_test_data
def test_map_equals_that_of_predict(test_data):
    weights = test_data / "weights" / "yolo11n_coco.pt"
    detector = UltralyticsDetector(weights=str(weights), device="cpu", conf=0.001, raw_conf=0.001)
    truth = json.loads((test_data / "coco_mini" / "coco_mini.json").read_text())
    found = []
    for image in truth["images"]:
        picture = Image.open(test_data / "coco_mini" / "images" / image["file_name"]).convert("RGB")
        found += detector.detect(as_batch(np.array(picture)[None]))

    assert average_precision(truth, found, detector.class_names) == pytest.approx(PREDICTS_MAP, abs=0.005)


def street_frames(test_data: Path, size: tuple[int, int]) -> np.ndarray:
    import av

    with av.open(test_data / "clips" / "street_1080p30.mp4") as container:
        frames = [
            frame.to_ndarray(format="rgb24") for frame, _ in zip(container.decode(video=0), range(61), strict=False)
        ]
    return np.stack([np.asarray(Image.fromarray(frame).resize(size)) for frame in frames[::20]])


def average_precision(truth: dict, found: list[Detections], class_names: Sequence[str]) -> float:
    from faster_coco_eval import COCO, COCOeval_faster

    category_ids = {category["name"]: category["id"] for category in truth["categories"]}
    rows = [
        {
            "image_id": image["id"],
            "category_id": category_ids[class_names[class_id]],
            "bbox": [x1 + image["offset_x"], y1 + image["offset_y"], x2 - x1, y2 - y1],
            "score": float(confidence),
        }
        for image, detections in zip(truth["images"], found, strict=True)
        for (x1, y1, x2, y2), confidence, class_id in zip(
            detections.xyxy.tolist(), detections.confidence, detections.class_id, strict=True
        )
    ]
    coco = COCO(truth)
    evaluation = COCOeval_faster(coco, coco.loadRes(rows), "bbox")
    evaluation.run()
    return evaluation.stats[0]


@pytest.mark.needs_cuda
@pytest.mark.parametrize("half", [False, True])
def test_a_gpu_finds_what_the_cpu_finds(checkpoint, half):
    frames = as_batch(blocky_frames(3))
    options = {"weights": str(checkpoint("yolo11n")), **LOW}
    expected = UltralyticsDetector(**options).detect(frames)

    found = UltralyticsDetector(**(options | {"device": "cuda", "half": half})).detect(frames)

    for ours, theirs in zip(found, expected, strict=True):
        sure = theirs.xyxy[theirs.confidence > 0.1]
        assert np.median(iou_matrix(sure, ours.xyxy).max(axis=1)) > 0.9


@pytest.mark.parametrize("architecture", ["yolo11n", "yolov8n-rtdetr"])
def test_surfaces_give_the_boxes_of_their_rgb(checkpoint, architecture):
    detector = UltralyticsDetector(weights=str(checkpoint(architecture)), **LOW)
    surfaces = noise_surfaces(2, 90, 160, orientation=Orientation(transpose=True))

    found = detector.detect(FrameBatch(surfaces, [0, 1], [0, 0.1]))

    assert_same(found, detector.detect(FrameBatch(surfaces.rgb(), [0, 1], [0, 0.1])))


class NoWaiting(TorchDispatchMode):
    """Refuses what makes the host wait for values of a GPU: a number, a condition, a shape that depends on values."""

    waiting = ("_local_scalar_dense", "nonzero", "masked_select", "unique")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert not name.startswith(self.waiting), f"{name} waits for the device"
        if name == "index":
            assert not any(index is not None and index.dtype == torch.bool for index in args[1]), "a mask waits"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("architecture", ["yolo11n", "yolo26n", "yolov8n-rtdetr"])
def test_a_batch_is_started_without_waiting_for_values(checkpoint, architecture):
    detector = UltralyticsDetector(weights=str(checkpoint(architecture)), **LOW)
    detector._is_batched = True  # as on a GPU
    batch = FrameBatch(noise_surfaces(2, 90, 160), [0, 1], [0, 0.1])
    expected = detector.detect(batch)  # the first batch makes tables that stay on the device

    with NoWaiting():
        finish = detector.start(batch)

    assert_same(finish(), expected)


@pytest.mark.needs_cuda
def test_a_batch_is_started_on_a_gpu_without_waiting_for_it(checkpoint):
    detector = UltralyticsDetector(weights=str(checkpoint("yolo11n")), **(LOW | {"device": "cuda"}))
    surfaces = noise_surfaces(2, 90, 160)
    batch = FrameBatch(replace(surfaces, planes=surfaces.planes.cuda()), [0, 1], [0, 0.1])
    expected = detector.detect(batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        finish = detector.start(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert_same(finish(), expected)


@pytest.mark.needs_cuda
def test_frames_on_a_gpu_are_taken_where_they_are(checkpoint):
    batch = as_batch(blocky_frames(3))
    detector = UltralyticsDetector(weights=str(checkpoint("yolo11n")), **(LOW | {"device": "cuda"}))

    found = detector.detect(FrameBatch(batch.data.cuda(), batch.frame_indices, batch.pts_seconds))

    assert_same(found, detector.detect(batch))
