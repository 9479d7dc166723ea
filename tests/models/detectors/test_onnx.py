"""Detectors that other tools exported to ONNX."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from prelabel import Detections
from prelabel.data.boxes import iou_matrix
from prelabel.errors import ConfigError, WeightsError
from prelabel.models.detectors.onnx import OnnxDetector
from prelabel.testing import check_detector
from tests.models.detectors.checkpoints import as_batch, blocky_frames, heavy_imports
from tests.models.detectors.onnx_graphs import (
    CONFIDENCE,
    NUM_CELLS,
    RECTANGLE,
    SIDE,
    Detr,
    Finder,
    Noise,
    RtDetr,
    TensorFlow,
    Torchvision,
    UltralyticsRtDetr,
    Yolo,
    export,
    red_frames,
)

NAMES = ["car", "bus", "tram"]
SIZES = {"images": torch.rand(1, 3, SIDE, SIDE), "orig_target_sizes": torch.tensor([[SIDE, SIDE]])}
PIXELS = {"pixel_values": torch.rand(1, 3, SIDE, SIDE)}
TENSORFLOW = ("detection_boxes:0", "detection_classes:0", "detection_scores:0", "num_detections:0")

# Each graph: how it is exported, the format that is recognised, and whether it can be told without being set.
GRAPHS: dict[str, tuple[Callable[[Path], Path], str, bool]] = {
    "YOLOv5": (lambda path: export(Yolo("yolov5"), path), "yolov5", True),
    "YOLOv8": (lambda path: export(Yolo("yolov8"), path), "yolov8", True),
    "YOLOv10": (lambda path: export(Yolo("yolov10"), path), "yolov10", True),
    "YOLOX": (lambda path: export(Yolo("yolox-raw"), path, outputs=["output"]), "yolox", True),
    "YOLOX, decoded": (lambda path: export(Yolo("yolox"), path), "yolox", False),
    "RT-DETR": (lambda path: export(RtDetr(), path, SIZES, ["labels", "boxes", "scores"]), "rtdetr", True),
    "RT-DETR of transformers": (
        lambda path: export(Detr(softmax=False, imagenet=False), path, PIXELS, ["logits", "pred_boxes"]),
        "rtdetr",
        True,
    ),
    "RT-DETR of Ultralytics": (lambda path: export(UltralyticsRtDetr(), path), "rtdetr", False),
    "RT-DETR of Ultralytics, with metadata": (
        lambda path: export(UltralyticsRtDetr(), path, metadata={"head": "RTDETRDecoder", "task": "detect"}),
        "rtdetr",
        True,
    ),
    "RF-DETR": (
        lambda path: export(Detr(softmax=False, imagenet=True), path, outputs=["labels", "dets"]),
        "rfdetr",
        True,
    ),
    "DETR": (
        lambda path: export(Detr(softmax=True, imagenet=True), path, PIXELS, ["logits", "pred_boxes"]),
        "detr",
        True,
    ),
    "torchvision": (
        lambda path: export(Torchvision(), path, {"image": torch.rand(3, SIDE, SIDE)}, ["boxes", "labels", "scores"]),
        "ssd",
        True,
    ),
    "TensorFlow": (
        lambda path: export(
            TensorFlow(), path, {"image_tensor:0": torch.zeros(1, SIDE, SIDE, 3, dtype=torch.uint8)}, TENSORFLOW
        ),
        "ssd",
        True,
    ),
}


@pytest.fixture(scope="module")
def graph(tmp_path_factory) -> Callable[[str], str]:
    """Exports a graph, once."""
    folder = tmp_path_factory.mktemp("graphs")
    return cache(lambda name: str(GRAPHS[name][0](folder / f"{name}.onnx")))


def detect(frames: np.ndarray, **options: object) -> list[Detections]:
    return OnnxDetector(device="cpu", **{"classes": NAMES, **options}).detect(as_batch(frames))


@pytest.mark.parametrize("engine", ["openvino", "onnx"])
@pytest.mark.parametrize("name", GRAPHS)
def test_a_box_comes_out_at_its_place_once(graph, name, engine):
    found = detect(red_frames(3), weights=graph(name), format=GRAPHS[name][1], engine=engine, conf=0.3)
    for number, detections in enumerate(found):
        np.testing.assert_allclose(detections.xyxy, [np.add(RECTANGLE, [0, 8 * number, 0, 8 * number])], atol=0.6)
        np.testing.assert_allclose(detections.confidence, [CONFIDENCE], atol=0.01)
        assert detections.class_id.tolist() == [1]


@pytest.mark.parametrize("name", [name for name, (_, _, is_safe) in GRAPHS.items() if is_safe])
def test_a_format_is_told_from_the_graph_and_said(graph, name):
    detector = OnnxDetector(weights=graph(name), classes=NAMES, device="cpu")

    (warning,) = detector.warnings
    assert warning.startswith(f"detector.format: assumed {GRAPHS[name][1]}, because of ")
    assert len(detector.detect(as_batch(red_frames(1)))[0]) == 1


@pytest.mark.parametrize(
    ("name", "choices"),
    [("YOLOX, decoded", ("yolox:", "yolov5:")), ("RT-DETR of Ultralytics", ("rtdetr:", "yolov10:"))],
)
def test_a_format_that_cannot_be_told_has_to_be_set(graph, name, choices):
    with pytest.raises(ConfigError, match=r"detector\.format: cannot be told from the outputs output0 \(") as caught:
        detect(red_frames(1), weights=graph(name))
    assert all(choice in str(caught.value) for choice in choices)


@pytest.mark.parametrize("name", ["RT-DETR", "RT-DETR of transformers", "RF-DETR", "DETR", "RT-DETR of Ultralytics"])
def test_detr_names_the_whole_family(graph, name):
    (found,) = detect(red_frames(1), weights=graph(name), format="detr")

    np.testing.assert_allclose(found.xyxy, [RECTANGLE], atol=0.6)
    np.testing.assert_allclose(found.confidence, [CONFIDENCE], atol=0.01)


@pytest.mark.parametrize("name", GRAPHS)
def test_the_detector_keeps_its_contract(graph, name):
    detector = OnnxDetector(weights=graph(name), format=GRAPHS[name][1], classes=NAMES, device="cpu")

    check_detector(detector, red_frames(3))


# Against a plain reference


def letterbox(frame: np.ndarray, *, centred: bool) -> tuple[np.ndarray, float, float, float]:
    """Returns the padded frame, its scale, and the padding on the left and above."""
    height, width = frame.shape[:2]
    scale = min(SIDE / height, SIDE / width)
    scaled = cv2.resize(frame, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_LINEAR)
    top, left = ((SIDE - side) // 2 if centred else 0 for side in scaled.shape[:2])
    padded = np.full((SIDE, SIDE, 3), 114, np.uint8)
    padded[top : top + scaled.shape[0], left : left + scaled.shape[1]] = scaled
    return padded, scale, left, top


def plain_nms(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, iou: float) -> list[int]:
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        same = [other for other in kept if classes[other] == classes[index]]
        if not same or iou_matrix(boxes[[index]], boxes[same]).max() <= iou:
            kept.append(int(index))
    return kept


UPPER = [SIDE, SIDE, 30, 30]


@pytest.mark.parametrize("form", ["yolov5", "yolov8", "yolox", "yolox, decoded"])
def test_boxes_equal_a_plain_reference(tmp_path, form):
    name = form.split(",")[0]
    shape = {"yolov5": (3 * NUM_CELLS, 8), "yolov8": (7, NUM_CELLS)}.get(name, (NUM_CELLS, 8))
    upper = [*(UPPER if form != "yolox" else [1.5, 1.5, 1.5, 1.5]), *([] if name == "yolov8" else [1.0]), 1, 1, 1]
    network = Noise(shape[::-1] if name == "yolov8" else shape, upper)
    if name == "yolov8":
        network = torch.nn.Sequential(network, Transposed())
    path = export(network, tmp_path / "noise.onnx", dynamic=[0])
    session = onnxruntime.InferenceSession(path)
    frames = blocky_frames(2, 96, 192)

    found = detect(frames, weights=str(path), format=name, conf=0.3, raw_conf=0.3, iou=0.5)

    for frame, detections in zip(frames, found, strict=True):
        padded, scale, left, top = letterbox(frame, centred=name != "yolox")
        values = padded[..., ::-1].astype(np.float32) if name == "yolox" else padded.astype(np.float32) / 255
        (output,) = session.run(None, {"images": values.transpose(2, 0, 1)[None]})[0]
        table = output.T if name == "yolov8" else output
        scores = table[:, 4:] if name == "yolov8" else table[:, 4:5] * table[:, 5:]
        boxes = table[:, :4].astype(np.float64)
        if form == "yolox":
            cells = [(x, y, s) for s in (8, 16, 32) for y in range(SIDE // s) for x in range(SIDE // s)]
            for box, (x, y, stride) in zip(boxes, cells, strict=True):
                box[:] = [(box[0] + x) * stride, (box[1] + y) * stride, *(np.exp(box[2:]) * stride)]
        corners = np.hstack([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2])
        best, classes = scores.max(axis=1), scores.argmax(axis=1)
        sure = best > 0.3
        corners, best, classes = corners[sure], best[sure], classes[sure]
        kept = plain_nms(corners, best, classes, 0.5)
        placed = (corners[kept] - [left, top, left, top]) / scale
        placed = placed.clip(0, [192, 96, 192, 96])
        has_area = (placed[:, 2] > placed[:, 0]) & (placed[:, 3] > placed[:, 1])
        assert len(detections) == has_area.sum() > 5
        np.testing.assert_allclose(detections.xyxy, placed[has_area], atol=0.01)
        np.testing.assert_allclose(detections.confidence, best[kept][has_area], atol=1e-5)
        assert detections.class_id.tolist() == classes[kept][has_area].tolist()


class Transposed(torch.nn.Module):
    def forward(self, table: torch.Tensor) -> torch.Tensor:
        return table.transpose(1, 2)


@pytest.mark.slow  # the import of transformers alone takes ten seconds
def test_an_rt_detr_of_transformers_gives_the_boxes_of_its_own_post_processing(tmp_path):
    transformers = pytest.importorskip("transformers")
    from tests.models.detectors.test_transformers import rt_detr

    torch.manual_seed(1)
    network, processor = rt_detr()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    network.eval()

    class Exported(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            outputs = self.network(pixel_values)
            return outputs.logits, outputs.pred_boxes

    path = export(Exported(), tmp_path / "rtdetr.onnx", PIXELS, ["logits", "pred_boxes"])
    frames = blocky_frames(2, 90, 160)

    found = detect(frames, weights=str(path), conf=0.0, raw_conf=0.0)

    assert transformers
    for frame, detections in zip(frames, found, strict=True):
        with torch.inference_mode():
            outputs = network(**processor(images=frame, return_tensors="pt"))
        (own,) = processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=[(90, 160)])
        order = own["scores"].argsort(descending=True)
        boxes = own["boxes"][order].numpy().clip(0, [160, 90, 160, 90])
        assert len(detections) == len(order) > 5
        np.testing.assert_allclose(detections.confidence, own["scores"][order].numpy(), atol=1e-3)
        np.testing.assert_allclose(detections.xyxy, boxes, atol=0.1)


# Inputs


def test_a_graph_of_any_size_takes_the_size_that_is_set(tmp_path):
    path = str(export(Yolo("yolov10"), tmp_path / "any.onnx", dynamic=[0, 2, 3]))

    with pytest.raises(ConfigError, match=r"detector\.input\.size: is missing.*size: \[640, 640\]"):
        detect(red_frames(1), weights=path)
    (found,) = detect(red_frames(1), weights=path, format="yolov10", input={"size": [32, 128]})
    np.testing.assert_allclose(found.xyxy, [RECTANGLE], atol=4)


def test_the_size_in_the_metadata_is_used(tmp_path):
    path = export(Yolo("yolov10"), tmp_path / "any.onnx", dynamic=[0, 2, 3], metadata={"imgsz": "[64, 64]"})

    assert len(detect(red_frames(1), weights=str(path))[0]) == 1


def test_another_size_than_the_graphs_own_is_refused(graph):
    with pytest.raises(ConfigError, match=r"input\.size: got \[32, 64\], the graph takes 64 x 64 only"):
        detect(red_frames(1), weights=graph("YOLOv8"), input={"size": [32, 64]})


@pytest.mark.parametrize("batch", [1, 3])
def test_a_fixed_batch_is_filled_and_split(tmp_path, batch):
    path = export(Yolo("yolov8"), tmp_path / "fixed.onnx", {"images": torch.rand(batch, 3, SIDE, SIDE)})

    found = detect(red_frames(4), weights=str(path))

    tops = [detections.xyxy[:, 1].round().tolist() for detections in found]
    assert tops == [[32], [40], [48], [56]]


def test_a_graph_that_only_claims_to_take_a_batch_runs_frame_by_frame(tmp_path):
    class Reshaped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = Yolo("yolov10")

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.network(images.reshape(1, 3, SIDE, SIDE))

    path = export(Reshaped(), tmp_path / "claims.onnx", dynamic=[0])

    found = detect(red_frames(3), weights=str(path))

    assert [len(detections) for detections in found] == [1, 1, 1]


def test_the_config_overrides_how_the_tool_prepares_frames(tmp_path):
    """The graph wants BGR, 0 to 1, normalised, (N, H, W, 3), and the frame stretched."""

    class Odd(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = Yolo("yolov10")

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.network((image * torch.tensor([0.5, 0.25, 0.2]) + 0.5).flip(-1).permute(0, 3, 1, 2))

    path = export(Odd(), tmp_path / "odd.onnx", {"image": torch.rand(1, SIDE, SIDE, 3)})
    wanted = {"channels": "bgr", "mean": 0.5, "std": [0.5, 0.25, 0.2], "resize": "stretch", "antialias": True}

    (found,) = detect(red_frames(1), weights=str(path), format="yolov10", input=wanted)

    np.testing.assert_allclose(found.xyxy, [RECTANGLE], atol=0.6)
    np.testing.assert_allclose(found.confidence, [CONFIDENCE], atol=0.01)


def test_a_grey_graph_takes_grey_frames(tmp_path):
    class Grey(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.finder = Finder()

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            corners, confidence = self.finder(torch.cat([image * 3, image * 0, image * 0], dim=1))
            return torch.cat([corners, confidence[:, None], confidence[:, None] * 0], dim=1)[:, None]

    path = export(Grey(), tmp_path / "grey.onnx", {"image": torch.rand(1, 1, SIDE, SIDE)})

    (found,) = detect(red_frames(1), weights=str(path), format="yolov10", input={"resize": "stretch"})

    np.testing.assert_allclose(found.xyxy, [RECTANGLE], atol=0.6)


def test_float16_graphs_give_float32_boxes(tmp_path):
    class Half(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = Yolo("yolov10")

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.network(images.float()).half()

    path = export(Half(), tmp_path / "half.onnx", {"images": torch.rand(1, 3, SIDE, SIDE).half()})

    (found,) = detect(red_frames(1), weights=str(path))

    np.testing.assert_allclose(found.xyxy, [RECTANGLE], atol=0.6)


def test_a_pixel_mask_is_all_ones(tmp_path):
    class Masked(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = Detr(softmax=True, imagenet=True)

        def forward(self, pixel_values: torch.Tensor, pixel_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.network(pixel_values * pixel_mask[:, None])

    inputs = {**PIXELS, "pixel_mask": torch.ones(1, SIDE, SIDE, dtype=torch.int64)}
    path = export(Masked(), tmp_path / "masked.onnx", inputs, ["logits", "pred_boxes"])

    assert len(detect(red_frames(1), weights=str(path))[0]) == 1


# Class names


def test_names_come_from_the_metadata(tmp_path):
    names = {"names": "{0: 'car', 1: \"driver's bus\", 2: 'tram'}", "license": "MIT"}
    path = export(Yolo("yolov8"), tmp_path / "named.onnx", metadata=names)

    detector = OnnxDetector(weights=str(path), device="cpu")

    assert detector.class_names == ("car", "driver's bus", "tram")
    assert detector.traits.model is not None
    assert detector.traits.model.licence == "MIT"
    assert str(detector.traits.model.engine).startswith("openvino ")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("names.txt", "car\nbus\n\ntram\n"),
        ("data.yaml", "path: here\nnames: [car, bus, tram]\n"),
        ("data.yml", "names: {0: car, 1: bus, 2: tram}\n"),
    ],
)
def test_names_come_from_a_file(graph, tmp_path, file, text):
    (tmp_path / file).write_text(text)

    detector = OnnxDetector(weights=graph("YOLOv8"), classes=str(tmp_path / file), device="cpu")

    assert detector.class_names == ("car", "bus", "tram")


def test_a_name_for_the_background_is_left_out(graph):
    names = ["__background__", "car", "bus"]

    detector = OnnxDetector(weights=graph("torchvision"), classes=names, device="cpu")

    assert detector.class_names == ("car", "bus")
    assert detector.detect(as_batch(red_frames(1)))[0].class_id.tolist() == [1]


def test_labels_may_count_from_0(graph):
    names = ["car", "bus", "tram"]

    (found,) = detect(red_frames(1), weights=graph("torchvision"), classes=names, first_label=0)

    assert found.class_id.tolist() == [2]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("YOLOv8", {"classes": None}, r"detector\.classes: is missing.*give 3 names"),
        ("RT-DETR", {"classes": None}, r"detector\.classes: is missing.*give the names"),
        ("DETR", {"classes": None}, r"detector\.classes: is missing.*give 4 names.*or 3 \(format detr"),
        ("YOLOv5", {"classes": ["car"]}, r"detector\.classes: the list has 1 names, the graph has 3 classes"),
        ("DETR", {"classes": ["car"]}, r"detector\.classes: got 1 names, but 'logits' has 4 columns"),
        ("DETR", {"format": "rtdetr"}, r"detector\.classes: the list has 3 names, the graph has 4 classes"),
        ("YOLOv8", {"classes": "none.txt"}, r"detector\.classes: there is no file 'none\.txt'"),
        ("YOLOv8", {"format": "ssd"}, r"detector\.format: ssd has boxes .* output0 \(1, 7, 84\)"),
        ("torchvision", {"format": "yolov5"}, r"detector\.format: yolov5 has one output"),
        ("TensorFlow", {"input": {"mean": 0.5}}, r"detector\.input\.mean: the graph takes uint8"),
    ],
)
def test_what_is_missing_or_wrong_is_named(graph, name, options, message):
    with pytest.raises(ConfigError, match=message):
        detect(red_frames(1), weights=graph(name), **options)


def test_names_are_counted_against_those_of_the_card():
    with pytest.raises(ConfigError, match=r"has 1 names, the graph has 6 classes: name each; to find some .* set only"):
        OnnxDetector(weights="demo", classes=["ball"])


def test_a_label_without_a_name_is_an_error(graph):
    with pytest.raises(ConfigError, match=r"detector\.classes: the graph gives the label 2, but 1 names.*1 to 1"):
        detect(red_frames(1), weights=graph("torchvision"), classes=["car"])


@pytest.mark.parametrize(
    ("file", "text"), [("names.txt", "\n"), ("names.yaml", "nc: 3\n"), ("names.yaml", "names: {1: car, 3: bus}\n")]
)
def test_a_file_without_names_is_an_error(graph, tmp_path, file, text):
    (tmp_path / file).write_text(text)

    with pytest.raises(ConfigError, match="has no names: expected one on each line, or YAML"):
        detect(red_frames(1), weights=graph("YOLOv8"), classes=str(tmp_path / file))


# Files


def test_a_missing_file_is_named():
    with pytest.raises(WeightsError, match=r"'nowhere\.onnx': no such file"):
        detect(red_frames(1), weights="nowhere.onnx")


@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\n", b"\x00\x01", b"{}"])
def test_a_file_that_is_no_graph_is_named(tmp_path, content):
    (tmp_path / "x.onnx").write_bytes(content)

    with pytest.raises(WeightsError, match=r"x\.onnx: is no ONNX file"):
        detect(red_frames(1), weights=str(tmp_path / "x.onnx"))


def test_outputs_of_no_known_form_are_listed(tmp_path):
    class Features(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return images[:, :, ::8, ::8], images[:, :, ::16, ::16]

    path = export(Features(), tmp_path / "features.onnx", outputs=["p3", "p4"])

    with pytest.raises(ConfigError, match=r"detector\.format: cannot be told.*p3 \(1, 3, 8, 8\), p4 \(1, 3, 4, 4\)"):
        detect(red_frames(1), weights=str(path))


def test_two_inputs_of_unknown_meaning_are_named(tmp_path):
    class Scaled(torch.nn.Module):
        def forward(self, image: torch.Tensor, scale_factor: torch.Tensor) -> torch.Tensor:
            return image.flatten(2) * scale_factor

    inputs = {"image": torch.rand(1, 3, SIDE, SIDE), "scale_factor": torch.rand(1)}
    path = export(Scaled(), tmp_path / "two.onnx", inputs)

    with pytest.raises(WeightsError, match="inputs are image, scale_factor: expected one for the image"):
        detect(red_frames(1), weights=str(path))


def test_a_layout_that_the_shape_does_not_tell_has_to_be_set(tmp_path):
    path = str(export(Yolo("yolov10"), tmp_path / "any.onnx", dynamic=[0, 1, 2, 3]))

    with pytest.raises(ConfigError, match=r"detector\.input\.layout: cannot be told.*any x any x any x any"):
        detect(red_frames(1), weights=path, input={"size": [SIDE, SIDE]})
    options = {"layout": "nchw", "size": [SIDE, SIDE]}
    assert len(detect(red_frames(1), weights=path, format="yolov10", input=options)[0]) == 1


def test_weights_in_a_file_of_their_own_count_and_must_be_there(tmp_path):
    path = export(Noise((NUM_CELLS, 8), [1.0] * 8), tmp_path / "x.onnx")
    digests = set()
    for seed in (0, 1):
        model = onnx.load(export(Noise((NUM_CELLS, 8), [1.0] * 8, seed), path))
        onnx.save(model, path, save_as_external_data=True, location="x.data", size_threshold=0)
        record = OnnxDetector(weights=str(path), format="yolov5", classes=NAMES, device="cpu").traits.model
        assert record is not None
        digests.add(record.weights_sha256)
    assert len(digests) == 2
    (tmp_path / "x.data").unlink()
    with pytest.raises(WeightsError, match=r"x\.data: no such file"):
        detect(red_frames(1), weights=str(path))


def test_a_graph_that_does_not_run_says_why(tmp_path):
    path = export(Yolo("yolov10"), tmp_path / "x.onnx")
    model = onnx.load(path)
    model.graph.node[0].op_type = "NoSuchOperation"
    onnx.save(model, path)

    with pytest.raises(WeightsError, match=r"cannot be run with 64 x 64 pixels: openvino: .*; onnx: .*NoSuchOperation"):
        detect(red_frames(1), weights=str(path))


def test_probabilities_in_the_place_of_logits_are_not_taken_for_a_detr(tmp_path):
    class BeforeNms(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.finder = Finder()

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            corners, confidence = self.finder(images)
            return confidence[:, None, None].expand(-1, 1, len(NAMES)), corners[:, None]

    path = str(export(BeforeNms(), tmp_path / "x.onnx", outputs=["scores", "boxes"]))

    with pytest.raises(ConfigError, match=r"detector\.format: cannot be told: 'scores' and .* lies within 0 to 1"):
        detect(red_frames(1), weights=path)


@pytest.mark.parametrize(("first_label", "num_warnings"), [(1, 1), (0, 0)])
def test_the_list_of_80_names_of_coco_is_doubted_where_labels_have_gaps(graph, first_label, num_warnings):
    names = [*(f"class {number}" for number in range(11)), "stop sign"]

    detector = OnnxDetector(
        weights=graph("torchvision"), format="ssd", classes=names, first_label=first_label, device="cpu"
    )

    assert len([warning for warning in detector.warnings if "COCO" in warning]) == num_warnings


def test_boxes_in_a_batch_without_a_known_unit_ask_for_it(tmp_path):
    class Batched(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.finder = Finder()

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
            corners, confidence = self.finder(images)
            boxes = corners[:, None] * (confidence < 0.9)[:, None, None]  # nothing in noise
            return boxes, torch.full_like(confidence, 2).long()[:, None], confidence[:, None]

    path = str(export(Batched(), tmp_path / "x.onnx", outputs=["boxes", "labels", "scores"]))

    with pytest.raises(
        ConfigError, match=r"detector\.format: cannot be told.*ssd: labels from 1; rtdetr: labels from 0"
    ):
        detect(red_frames(1), weights=path)
    with pytest.raises(ConfigError, match=r"detector\.box_units: cannot be told"):
        detect(red_frames(1), weights=path, format="ssd")
    (found,) = detect(red_frames(1), weights=path, format="ssd", box_units="pixels")
    np.testing.assert_allclose(found.xyxy, [RECTANGLE], atol=0.6)


def test_a_graph_that_openvino_cannot_run_goes_to_onnx_runtime_and_is_said(graph, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no such operation")

    monkeypatch.setattr("prelabel.models.detectors.onnx_graph.OpenVinoSession", refuse)

    detector = OnnxDetector(weights=graph("YOLOv8"), format="yolov8", classes=NAMES, device="cpu")

    assert detector.warnings == ("detector.engine: openvino: no such operation: the graph runs in onnx instead",)
    assert detector.traits.model is not None
    assert str(detector.traits.model.engine).startswith("onnx ")
    assert len(detector.detect(as_batch(red_frames(1)))[0]) == 1


def test_feature_maps_next_to_the_table_are_ignored(tmp_path):
    class WithMaps(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = Yolo("yolov5")

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.network(images), images[:, :, None, ::8, ::8].repeat(1, 1, 8, 1, 1)

    path = export(WithMaps(), tmp_path / "old.onnx", outputs=["output", "onnx_345"])

    assert len(detect(red_frames(1), weights=str(path))[0]) == 1


# Ultralytics' own exports


@pytest.mark.slow
def test_an_export_of_ultralytics_runs_here_too(tmp_path):
    from prelabel.models.detectors.ultralytics import UltralyticsDetector
    from prelabel.models.ultralytics_models import contained
    from tests.models.detectors.checkpoints import make_checkpoint

    checkpoint = make_checkpoint("yolo11n", tmp_path)
    with contained():
        from ultralytics import YOLO

        exported = YOLO(checkpoint).export(format="onnx", imgsz=160, simplify=False, verbose=False)
    frames = as_batch(blocky_frames(2))
    options = {"weights": str(exported), "device": "cpu", "conf": 0.05}

    found = OnnxDetector(**options, engine="onnx").detect(frames)

    for ours, theirs in zip(found, UltralyticsDetector(**options).detect(frames), strict=True):
        assert len(ours) == len(theirs) > 5
        np.testing.assert_allclose(ours.xyxy, theirs.xyxy, atol=0.05)
        np.testing.assert_allclose(ours.confidence, theirs.confidence, atol=1e-4)


def test_an_export_for_another_task_goes_to_ultralytics(tmp_path):
    path = export(Yolo("yolov8"), tmp_path / "pose.onnx", metadata={"task": "pose", "names": json.dumps(NAMES)})

    with pytest.raises(WeightsError, match="model for 'pose': set use: ultralytics"):
        detect(red_frames(1), weights=str(path))


@pytest.mark.slow
def test_the_demo_imports_no_torch(tmp_path):
    config = Path(__file__).parents[3] / "configs" / "demo.yaml"
    settings = [f"source.output={tmp_path}", "detector.device=cpu", "reader.frame_ranges=[[0, 3]]"]

    imported = heavy_imports("run", config, *(part for setting in settings for part in ("--set", setting)))

    assert (tmp_path / "demo.preview.mp4").exists()
    assert imported == []


def test_auto_is_the_cpu_where_onnx_runtime_has_no_gpu(graph, monkeypatch):
    monkeypatch.setattr("prelabel.models.detectors.base.name_device", lambda device: "cuda:0")
    monkeypatch.setattr("prelabel.models.detectors.onnx.runs_on_gpu", lambda: False)

    detector = OnnxDetector(weights=graph("torchvision"), classes=NAMES, format="ssd")

    assert detector.traits.device == "cpu"
    assert "OpenVINO" in detector.warnings[0]
