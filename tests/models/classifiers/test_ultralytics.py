from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

os.environ.setdefault("YOLO_OFFLINE", "true")  # these tests import ultralytics by themselves, too

from prelabel.errors import WeightsError
from prelabel.models.classifiers.ultralytics import UltralyticsClassifier
from prelabel.testing import check_classifier
from tests.models.detectors.checkpoints import blocky_frames


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small classifier of five classes that nobody trained, but whose answers differ from picture to picture."""
    from ultralytics import YOLO

    torch.manual_seed(0)
    model = YOLO("yolo11n-cls.yaml")
    head = model.model.model[-1]
    head.linear = torch.nn.Linear(head.linear.in_features, 5)
    torch.nn.init.normal_(head.linear.weight, std=0.05)
    for module in model.model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.model.train()(torch.from_numpy(blocky_frames(2, 64, 64)).permute(0, 3, 1, 2) / 255)
    model.model.eval()
    model.model.names = {number: f"class {number}" for number in range(5)}
    path = tmp_path_factory.mktemp("weights") / "small-cls.pt"
    model.save(path)
    return path


def test_classifier_keeps_its_contract(weights):
    check_classifier(UltralyticsClassifier(weights=str(weights), device="cpu", imgsz=64))


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_probabilities_are_those_of_predict(weights, engine):
    from ultralytics import YOLO

    frames = blocky_frames(2, 64, 64)  # of the network's size: nobody trained it, and a rounded pixel changes its mind
    classifier = UltralyticsClassifier(weights=str(weights), device="cpu", imgsz=64, engine=engine)
    assert classifier.traits.model.engine.startswith(engine)
    found = classifier.classify([torch.from_numpy(frame) for frame in frames])
    model = YOLO(weights)
    expected = [
        model.predict(np.ascontiguousarray(f[..., ::-1]), imgsz=64, verbose=False)[0].probs.data for f in frames
    ]
    assert found == pytest.approx(np.stack([row.numpy() for row in expected]), abs=1e-3)
    assert classifier.class_names == tuple(f"class {n}" for n in range(5))


@pytest.mark.parametrize("size", [(90, 130), (200, 120), (40, 30)])
def test_pictures_are_prepared_as_ultralytics_prepares_them(weights, size):
    from ultralytics.data.augment import classify_transforms

    (frame,) = blocky_frames(1, *size)
    found = UltralyticsClassifier(weights=str(weights), device="cpu", imgsz=64).prepare(frame)
    expected = classify_transforms(64)(Image.fromarray(frame)).permute(1, 2, 0).numpy()
    assert np.abs(found / 255 - expected).max() <= 1.01 / 255


def test_weights_that_find_boxes_are_named(checkpoint):
    with pytest.raises(WeightsError, match="holds a model for 'detect', expected one for 'classify'"):
        UltralyticsClassifier(weights=str(checkpoint("yolo11n")), device="cpu")


def test_a_file_of_another_form_is_named(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"got \.onnx, expected a \.pt checkpoint"):
        UltralyticsClassifier(weights=str(tmp_path / "a.onnx"), device="cpu")
