from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import MobileNet_V2_Weights, get_model

from prelabel.errors import ConfigError, WeightsError
from prelabel.media.images import read_picture
from prelabel.models.classifiers.torchvision import TorchvisionClassifier, build_network
from prelabel.models.openvino import cpu_has_bfloat16
from prelabel.testing import check_classifier
from tests.models.detectors.checkpoints import blocky_frames, heavy_imports

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


def untrained(builder: str, path: Path) -> torch.nn.Module:
    """Returns a network of three classes whose answers differ from picture to picture, and writes its weights."""
    torch.manual_seed(0)
    network = get_model(builder, weights=None, num_classes=3)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=0.01)
    with torch.no_grad():
        network.train()(torch.from_numpy(blocky_frames(4, 224, 224)).permute(0, 3, 1, 2) / 255)
    torch.save(network.eval().state_dict(), path)
    return network


@pytest.mark.parametrize("builder", ["mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_folded_norms_change_no_answer(builder, tmp_path):
    network = untrained(builder, tmp_path / "net.pth")
    inputs = torch.rand(2, 3, 224, 224)
    folded = build_network(builder, 3, network.state_dict(), tmp_path / "net.pth")
    with torch.inference_mode():
        assert torch.allclose(folded(inputs), network(inputs), rtol=1e-3, atol=1e-5)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())


@pytest.mark.parametrize(
    "builder",
    [
        "mobilenet_v3_small",
        "shufflenet_v2_x0_5",
        pytest.param("swin_t", marks=pytest.mark.slow),
    ],
)
def test_openvino_gives_torch_s_probabilities_for_any_number_of_pictures(builder, tmp_path):
    untrained(builder, tmp_path / "net.pth")
    options = {"builder": builder, "published": "IMAGENET1K_V1"}
    pictures = [torch.from_numpy(frame) for frame in (*blocky_frames(4, 90, 130), *blocky_frames(1, 300, 200))]

    classifier = small(tmp_path / "net.pth", **options)

    assert classifier.warnings == ()
    assert classifier.traits.model.engine.startswith("openvino ")
    in_torch = small(tmp_path / "net.pth", **options, engine="torch")
    assert in_torch.traits.model.engine.startswith("torch ")
    expected = in_torch.classify(pictures)
    assert np.ptp(expected, axis=0).max() > 1e-3
    assert classifier.classify(pictures) == pytest.approx(expected, abs=1e-4)
    assert classifier.classify(pictures[:1]) == pytest.approx(expected[:1], abs=1e-4)


class OnGpu(torch.Tensor):
    """A tensor that becomes an array only as one on a GPU does: if its copy is asked for."""

    def __array__(self, *args, **kwargs):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def numpy(self, *, force=False):
        return super().numpy() if force else self.__array__()


def test_frames_that_a_reader_left_on_a_gpu_run_in_openvino(weights):
    classifier, frame = small(weights), np.full((224, 224, 3), 128, np.uint8)
    on_gpu = torch.from_numpy(frame).as_subclass(OnGpu)
    expected = classifier.classify_prepared([frame, frame])
    assert classifier.classify_prepared([on_gpu, frame]) == pytest.approx(expected)


def test_an_export_serves_its_own_options_only(weights, monkeypatch):
    small(weights)
    monkeypatch.setattr(TorchvisionClassifier, "_build", None)
    assert small(weights).class_names == NAMES
    assert small(weights).warnings == ()
    with pytest.raises(TypeError):  # there is neither an export nor a way to build one
        small(weights, classes=("a", "b", "c"))


def test_a_network_that_openvino_cannot_run_runs_in_torch(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "prelabel").write_text("")  # where the folder of exports should be
    classifier = small(weights)
    (warning,) = classifier.warnings
    assert warning.startswith("classifier.engine: openvino: ")
    assert warning.endswith("the model runs in torch instead")
    assert classifier.traits.model.engine.startswith("torch ")


def test_bfloat16_is_used_if_asked_for_and_says_much_the_same(weights):
    if not cpu_has_bfloat16():
        pytest.skip("this processor does not compute in bfloat16")
    pictures = [torch.from_numpy(frame) for frame in blocky_frames(3)]
    classifier = small(weights, half=True)
    assert classifier.traits.model.engine.endswith("bfloat16")
    assert classifier.classify(pictures) == pytest.approx(small(weights).classify(pictures), abs=0.1)


def test_a_run_with_an_export_imports_no_torch(weights, tmp_path):
    small(weights)
    Image.fromarray(blocky_frames(1)[0]).save(tmp_path / "a.png")
    values = {
        "source": {"path": str(tmp_path / "a.png"), "output": str(tmp_path / "out")},
        "classifier": {"use": "torchvision", "weights": str(weights), "builder": BUILDER, "classes": NAMES},
    }
    (tmp_path / "config.yaml").write_text(json.dumps({**values, "labels": {"classification": "Part"}}))

    imported = heavy_imports("run", tmp_path / "config.yaml", "--device", "cpu")

    assert (tmp_path / "out" / "a.labels.json").exists()
    assert imported == []


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
        ({"engine": "torch", "half": True}, ConfigError, r"classifier\.half: .* torch computes in float32"),
    ],
)
def test_what_does_not_fit_is_named(weights, options, error, complaint):
    with pytest.raises(error, match=complaint):
        small(weights, **options)


@pytest.mark.needs_test_data
def test_the_card_s_weights_say_what_torchvision_s_own_preset_says(test_data, real_weights):
    pictures = [read_picture(path) for path in sorted((test_data / "coco_mini" / "images").glob("*.jpg"))]
    classifier = TorchvisionClassifier(weights="mobilenet_v2", device="cpu")

    found = classifier.classify([torch.from_numpy(np.array(picture)) for picture in pictures])

    published = MobileNet_V2_Weights.IMAGENET1K_V1
    network = get_model("mobilenet_v2", weights=None).eval()
    network.load_state_dict(torch.load(real_weights / "mobilenet_v2-b0353104.pth", weights_only=True))
    with torch.inference_mode():
        inputs = torch.stack([published.transforms()(Image.fromarray(picture)) for picture in pictures])
        expected = network(inputs).softmax(dim=1).numpy()
    assert found == pytest.approx(expected, abs=1e-4)
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).all()
    assert [classifier.class_names[n] for n in found[:4].argmax(axis=1)] == ["vase", "freight car", "kite", "moped"]
    assert classifier.traits.model.licence == "BSD-3-Clause"
