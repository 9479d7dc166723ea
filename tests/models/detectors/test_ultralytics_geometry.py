"""Masks, turned boxes and poses of Ultralytics' heads: those of its own `predict`, where they are asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from prelabel.data.boxes import iou_matrix
from prelabel.models.detectors.ultralytics import UltralyticsDetector
from prelabel.models.ultralytics_models import keypoint_facts
from prelabel.testing import check_detector
from tests.models.detectors.checkpoints import as_batch, blocky_frames

LOW = {"conf": 0.02, "raw_conf": 0.02, "imgsz": 160, "device": "cpu", "engine": "torch"}
ALL = frozenset(range(80))
SIZES = [(180, 320), (250, 333), (500, 200)]  # each with a padding of its own


def predict(weights: Path, frames: np.ndarray, **options: object):
    """Returns what Ultralytics' own `predict` finds."""
    from ultralytics import YOLO

    bgr = [np.ascontiguousarray(frame[..., ::-1]) for frame in frames]
    return YOLO(weights).predict(bgr, device="cpu", verbose=False, conf=0.02, imgsz=160, **options)


def asked(weights: Path, class_ids: frozenset[int] = ALL, **options: object) -> UltralyticsDetector:
    return UltralyticsDetector(weights=str(weights), **{**LOW, **options}).with_geometry(class_ids)


def pixels_of(mask, height, width):
    whole = np.zeros((height, width), bool)
    whole[mask.top : mask.top + mask.height, mask.left : mask.left + mask.width] = mask.pixels
    return whole


def assert_masks_are_those_of_predict(found, results):
    for ours, theirs in zip(found, results, strict=True):
        assert len(ours) == len(theirs.boxes) > 0
        np.testing.assert_allclose(ours.xyxy, theirs.boxes.xyxy, atol=0.01)
        whole = [pixels_of(mask, *theirs.orig_shape) for mask in ours.geometry]
        differing = (np.array(whole) ^ theirs.masks.data.numpy().astype(bool)).mean()
        assert differing < 5e-4  # sums come in another order: where one is about 0, a pixel may tip


@pytest.mark.parametrize("size", SIZES)
def test_masks_equal_predict(checkpoint, size):
    weights, frames = checkpoint("yolo11n-seg"), blocky_frames(2, *size)

    assert_masks_are_those_of_predict(
        asked(weights).detect(as_batch(frames)), predict(weights, frames, retina_masks=True)
    )


def test_masks_of_an_end_to_end_head_equal_predict(checkpoint):
    weights, frames = checkpoint("yolo26n-seg"), blocky_frames(2)

    found = asked(weights, nms=False).detect(as_batch(frames))

    assert_masks_are_those_of_predict(found, predict(weights, frames, retina_masks=True, nms=False))


def test_masks_of_the_way_of_gpus_equal_predict(checkpoint):
    weights, frames = checkpoint("yolo11n-seg"), blocky_frames(2)
    detector = asked(weights)
    detector._is_batched = True

    assert_masks_are_those_of_predict(detector.detect(as_batch(frames)), predict(weights, frames, retina_masks=True))


@pytest.mark.slow
def test_masks_of_an_export_equal_predict(checkpoint, tmp_path):
    from ultralytics import YOLO

    (tmp_path / "net.pt").write_bytes(checkpoint("yolo11n-seg").read_bytes())
    weights = Path(YOLO(tmp_path / "net.pt").export(format="torchscript", imgsz=(96, 160), verbose=False))
    frames = blocky_frames(2)

    assert_masks_are_those_of_predict(
        asked(weights).detect(as_batch(frames)), predict(weights, frames, retina_masks=True)
    )


@pytest.mark.parametrize("size", SIZES[:2])
def test_poses_equal_predict(checkpoint, size):
    weights, frames = checkpoint("yolo11n-pose"), blocky_frames(2, *size)

    for ours, theirs in zip(asked(weights).detect(as_batch(frames)), predict(weights, frames), strict=True):
        assert len(ours) == len(theirs.boxes) > 0
        points = theirs.keypoints.data.numpy()
        np.testing.assert_allclose(
            [pose.xy for pose in ours.geometry], points[..., :2], atol=1.0
        )  # untrained, points lie far off and amplify rounding
        np.testing.assert_allclose([pose.confidence for pose in ours.geometry], points[..., 2], atol=1e-3)


@pytest.mark.parametrize("nms", [True, False])
@pytest.mark.parametrize("size", SIZES[:2])
def test_turned_boxes_equal_predict(checkpoint, size, nms):
    architecture, options = ("yolo11n-obb", {}) if nms else ("yolo26n-obb", {"nms": False})
    weights, frames = checkpoint(architecture), blocky_frames(2, *size)
    height, width = size

    for ours, theirs in zip(
        asked(weights, **options).detect(as_batch(frames)), predict(weights, frames, **options), strict=True
    ):
        expected = theirs.obb[(theirs.obb.xywhr[:, 2:4] > 0).all(dim=1)]
        assert len(ours) == len(expected) > 0
        np.testing.assert_allclose(ours.xyxy, expected.xyxy.numpy().clip(0, [width, height] * 2), atol=0.2)
        from_top_left = expected.xyxyxyxy.numpy()[:, [2, 1, 0, 3]]
        np.testing.assert_allclose([box.corners for box in ours.geometry], from_top_left, atol=0.2)
        np.testing.assert_allclose(ours.confidence, expected.conf, atol=1e-4)


@pytest.mark.parametrize("architecture", ["yolo11n-seg", "yolo11n-pose", "yolo11n-obb"])
def test_boxes_are_the_same_asked_or_not_and_only_what_is_asked_has_geometry(checkpoint, architecture):
    weights, frames = checkpoint(architecture), as_batch(blocky_frames(1))
    detector = UltralyticsDetector(weights=str(weights), **LOW)
    (bare,) = detector.detect(frames)
    wanted = int(np.bincount(bare.class_id).argmax())

    (found,) = detector.with_geometry(frozenset([wanted])).detect(frames)

    assert not bare.geometry.astype(bool).any()
    is_wanted = found.class_id == wanted
    assert found.geometry.astype(bool).tolist() == is_wanted.tolist()
    others = bare.class_id != wanted
    np.testing.assert_allclose(found.xyxy[~is_wanted], bare.xyxy[others], atol=0.01)
    assert not detector.detect(frames)[0].geometry.astype(bool).any()


@pytest.mark.parametrize("architecture", ["yolo11n-seg", "yolo11n-obb"])
def test_detector_that_is_asked_keeps_its_contract(checkpoint, architecture):
    check_detector(asked(checkpoint(architecture)), blocky_frames(2, 96, 160))


def test_detector_says_what_it_can_tell(checkpoint):
    offers = {
        task: UltralyticsDetector(weights=str(checkpoint(f"yolo11n{task}")), **LOW).traits.output
        for task in ("", "-seg", "-obb", "-pose")
    }

    assert [offer.kind for offer in offers.values()] == [None, "mask", "rotated_box", "keypoints"]
    assert offers["-pose"].keypoint_names[:2] == ("nose", "left_eye")
    assert len(offers["-pose"].keypoint_names) == 17


@pytest.mark.parametrize(
    ("shape", "names", "expected"),
    [
        (None, None, {}),
        ([2, 3], {0: ["tip", "end"]}, {"keypoint_names": ("tip", "end"), "keypoint_values": 3}),
        ([3, 2], None, {"keypoint_names": ("0", "1", "2"), "keypoint_values": 2}),
    ],
)
def test_keypoints_have_the_weights_own_names_or_numbers(shape, names, expected):
    assert keypoint_facts(shape, names) == expected


def test_points_without_confidence_count_as_seen():
    from prelabel.data.boxes import Letterbox
    from prelabel.models.detectors.ultralytics_geometry import read_keypoints

    rows = np.array([[0, 0, 9, 9, 0.5, 0, 32, 16, 400, -5]], np.float32)

    (pose,) = read_keypoints(rows, 2, Letterbox.fit(90, 160, 320), 90, 160)

    assert pose.xy.tolist() == [[16, 5], [160, 0]]
    assert pose.confidence.tolist() == [1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_masks_of_an_engine_are_those_of_torch(checkpoint, engine):
    weights, frames = checkpoint("yolo11n-seg"), as_batch(blocky_frames(1))
    (expected,) = asked(weights).detect(frames)
    detector = asked(weights, engine=engine, half=False)

    pending = detector.start(frames)
    detector.detect(as_batch(blocky_frames(1, 240, 200)))  # the engine may use its memory again

    (found,) = pending()
    assert detector.warnings == ()
    overlaps = iou_matrix(expected.xyxy, found.xyxy) * (expected.class_id[:, None] == found.class_id)
    same = overlaps.max(axis=1) > 0.99
    assert same.mean() > 0.95
    pairs = zip(expected.geometry[same], found.geometry[overlaps.argmax(axis=1)[same]], strict=True)
    differing = [(pixels_of(one, 180, 320) ^ pixels_of(other, 180, 320)).mean() for one, other in pairs]
    assert np.median(differing) < 5e-4


def test_poses_of_an_engine_are_those_of_torch(checkpoint):
    pytest.importorskip("onnxruntime")
    weights, frames = checkpoint("yolo11n-pose"), as_batch(blocky_frames(1))

    (engine,), (expected,) = asked(weights, engine="onnx").detect(frames), asked(weights).detect(frames)

    assert len(engine) == len(expected) > 0
    np.testing.assert_allclose([pose.xy for pose in engine.geometry], [pose.xy for pose in expected.geometry], atol=1.0)


def test_frame_of_nothing_has_no_masks(checkpoint):
    frames = torch.zeros(2, 96, 160, 3, dtype=torch.uint8)

    found = asked(checkpoint("yolo11n-seg"), classes=()).detect(as_batch(frames.numpy()))

    assert [len(each) for each in found] == [0, 0]
