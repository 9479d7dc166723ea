from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import MobileNet_V2_Weights, get_model

from prelabel.errors import ConfigError, WeightsError
from prelabel.media.images import read_picture
from prelabel.models.classifiers.torchvision import TorchvisionClassifier
from prelabel.testing import check_classifier

BUILDER = "squeezenet1_1"  # the smallest
NAMES = ("bolt", "nut", "washer")


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A small network of three classes that nobody trained, kept as float16."""
    torch.manual_seed(0)
    network = get_model(BUILDER, weights=None, num_classes=len(NAMES))
    path = tmp_path_factory.mktemp("weights") / "small.pth"
    torch.save({name: value.half() for name, value in network.state_dict().items()}, path)
    return path


def small(weights: Path, **options: object) -> TorchvisionClassifier:
    fixed = {"builder": BUILDER, "classes": NAMES, "device": "cpu"}
    return TorchvisionClassifier(weights=str(weights), **(fixed | options))


def test_classifier_keeps_its_contract(weights):
    check_classifier(small(weights))


def test_no_picture_is_no_row(weights):
    assert small(weights).classify([]).shape == (0, 3)


def test_grey_pictures_are_the_networks_own_answer(weights):
    """Of a picture of one colour, scaling and cropping change nothing."""
    network = get_model(BUILDER, weights=None, num_classes=3).eval()
    network.load_state_dict({name: value.float() for name, value in torch.load(weights).items()})
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normal = ((torch.full((3,), 128 / 255) - mean) / std).view(1, 3, 1, 1).expand(1, 3, 224, 224)
    with torch.inference_mode():
        expected = network(normal).softmax(dim=1).numpy()
    found = small(weights).classify([torch.full((300, 500, 3), 128, dtype=torch.uint8)])
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("builder", ["mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_folded_norms_change_no_answer(builder, tmp_path):
    torch.manual_seed(0)
    network = get_model(builder, weights=None, num_classes=3).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 2)
    torch.save(network.state_dict(), tmp_path / "net.pth")
    inputs = torch.rand(2, 3, 224, 224)
    classifier = small(tmp_path / "net.pth", builder=builder)
    with torch.inference_mode():
        assert torch.allclose(classifier._network(inputs), network(inputs), rtol=1e-3, atol=1e-5)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in classifier._network.modules())


def test_input_of_another_size_keeps_its_proportion(weights):
    preparation = small(weights, imgsz=112)._preparation
    assert (preparation.resize, preparation.crop_size) == (128, 112)


@pytest.mark.parametrize(
    ("options", "error", "complaint"),
    [
        ({"builder": "squeezent1_1"}, ConfigError, r"classifier\.builder: .* did you mean 'squeezenet1_1'"),
        ({"builder": None}, ConfigError, r"classifier\.builder: needed for weights"),
        ({"builder": "mobilenet_v2"}, WeightsError, r"does not fit mobilenet_v2: .* is missing"),
        ({"classes": ("bolt",)}, WeightsError, r"it has 3 classes, 1 are named"),
        ({"classes": None}, WeightsError, r"it has 3 classes, 1000 are named"),
        ({"published": "IMAGENET1K_V7"}, ConfigError, r"has no weights 'IMAGENET1K_V7'; .*IMAGENET1K_V1"),
        ({"device": "tpu"}, ConfigError, r"device: got 'tpu'"),
    ],
)
def test_what_does_not_fit_is_named(weights, options, error, complaint):
    with pytest.raises(error, match=complaint):
        small(weights, **options)


@pytest.mark.needs_test_data
def test_the_card_s_weights_say_what_torchvision_s_own_preset_says(test_data, real_weights):
    pictures = [read_picture(path) for path in sorted((test_data / "coco_mini" / "images").glob("*.jpg"))[:4]]
    classifier = TorchvisionClassifier(weights="mobilenet_v2", device="cpu")
    found = classifier.classify([torch.from_numpy(np.array(picture)) for picture in pictures])
    published = MobileNet_V2_Weights.IMAGENET1K_V1
    network = get_model("mobilenet_v2", weights=None).eval()
    network.load_state_dict(torch.load(real_weights / "mobilenet_v2-b0353104.pth", weights_only=True))
    with torch.inference_mode():
        inputs = torch.stack([published.transforms()(Image.fromarray(picture)) for picture in pictures])
        expected = network(inputs).softmax(dim=1).numpy()
    assert found == pytest.approx(expected, abs=0.02)
    assert [classifier.class_names[n] for n in found.argmax(axis=1)] == ["vase", "freight car", "kite", "moped"]
    assert classifier.traits.model.licence == "BSD-3-Clause"
