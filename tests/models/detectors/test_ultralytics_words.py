"""YOLO-World and YOLOE look for words. Their text encoder is a small one with random weights."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from prelabel.errors import ConfigError, MachineError, WeightsError
from prelabel.models.detectors.ultralytics import UltralyticsDetector
from prelabel.models.detectors.ultralytics_words import vocabulary_of, weights_for_words
from prelabel.models.weights import Weights
from prelabel.testing import check_detector
from tests.models.detectors.checkpoints import as_batch, blocky_frames, make_word_checkpoint
from tests.models.detectors.test_ultralytics import LOW, assert_same, with_area

ENCODERS = {
    "yolov8n-worldv2": "ViT-B-32.pt",
    "yoloe-11n": "mobileclip_blt.ts",
    "yoloe-26n": "mobileclip2_b.ts",
}
CLIP = """
import torch

def tokenize(texts, truncate=False):
    rows = [[ord(letter) % 128 for letter in text.ljust(20)[:20]] for text in texts]
    return torch.tensor(rows)

def load(path, device, download_root):
    return torch.jit.load(path), None
"""


class Encoder(torch.nn.Module):
    """Gives each text a direction that depends on its letters and their places."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.letters = torch.nn.Parameter(torch.randn(128, 20, 512, generator=generator))

    @torch.jit.export
    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        features = self.letters[tokens, torch.arange(20)].sum(1)
        return torch.nn.functional.normalize(features, dim=-1)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.encode_text(tokens)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with a checkpoint of each kind and all text encoders."""
    folder = tmp_path_factory.mktemp("models")
    for architecture, encoder in ENCODERS.items():
        make_word_checkpoint(architecture, folder)
        torch.jit.script(Encoder()).save(folder / encoder)
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def encoders(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text encoders, and a package `clip` that knows letters."""
    monkeypatch.setenv("PRELABEL_MODELS", str(folder))
    package = tmp_path / "packages" / "clip"
    package.mkdir(parents=True)
    (package / "clip.py").write_text(CLIP)
    (package / "__init__.py").write_text("from clip.clip import load, tokenize\n")
    monkeypatch.syspath_prepend(package.parent)
    for name in ("clip", "clip.clip", "ultralytics.nn.text_model"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield
    for name in ("clip", "clip.clip", "ultralytics.nn.text_model"):
        sys.modules.pop(name, None)


def detector_of(folder: Path, architecture: str, **options: object) -> UltralyticsDetector:
    return UltralyticsDetector(weights=str(folder / f"{architecture}.pt"), **{**LOW, **options})


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ENCODERS)
def test_boxes_of_words_equal_predict(folder: Path, encoders: None, architecture: str) -> None:
    from ultralytics import YOLO

    words, frames = ("forklift", "safety vest", "pallet"), blocky_frames(2)

    detector = detector_of(folder, architecture, words=words)

    model = YOLO(folder / f"{architecture}.pt")
    tokens = torch.tensor([[ord(letter) for letter in word.ljust(20)] for word in words])
    features = Encoder()(tokens).detach()[None]
    if "world" in architecture:
        model.model.txt_feats, model.model.names, model.model.model[-1].nc = features, dict(enumerate(words)), 3
    else:
        with torch.no_grad():
            model.set_classes(list(words), model.model.model[-1].get_tpe(features))
    bgr = [np.ascontiguousarray(frame[..., ::-1]) for frame in frames]
    results = model.predict(bgr, device="cpu", verbose=False, conf=0.02, imgsz=160, agnostic_nms=False)
    expected = [with_area(result.boxes.data.numpy()) for result in results]
    assert len({class_id for each in expected for class_id in each.class_id.tolist()}) > 1
    assert detector.class_names == words
    assert detector.traits.word_passes == (words,)
    assert_same(detector.detect(as_batch(frames)), expected)


@pytest.mark.slow
def test_words_of_an_ontology_reach_the_model_and_every_engine(folder: Path, encoders: None) -> None:
    bare = detector_of(folder, "yoloe-11n")
    assert (list(bare.class_names), bare.traits.word_passes) == ([], ())
    frames = as_batch(blocky_frames(1))

    found = [
        detector_of(folder, "yoloe-11n", engine=engine, half=False).with_words(["Hard_hat", "Vest"]).detect(frames)
        for engine in ("torch", "openvino")
    ]

    assert_same(found[1], found[0])


def test_a_word_detector_keeps_its_contract(folder: Path, encoders: None) -> None:
    check_detector(detector_of(folder, "yoloe-11n", words=("forklift", "pallet")))


def test_weights_with_classes_of_their_own_need_no_text_encoder(folder: Path) -> None:
    detector = detector_of(folder, "yolov8n-worldv2")
    assert len(detector.class_names) == 80
    assert len(detector.detect(as_batch(blocky_frames(1)))) == 1


def test_words_are_encoded_once(folder: Path, encoders: None, monkeypatch: pytest.MonkeyPatch) -> None:
    detector_of(folder, "yoloe-11n", words=("forklift",))
    monkeypatch.setenv("PRELABEL_MODELS", "")

    assert detector_of(folder, "yoloe-11n", words=("forklift",)).class_names == ("forklift",)


def test_another_text_encoder_encodes_again(folder: Path, encoders: None, tmp_path: Path, monkeypatch) -> None:
    weights = Weights(folder / "yoloe-11n.pt", "0" * 64, "yoloe-11n")
    first = weights_for_words(weights, ("forklift",)).sha256
    assert weights_for_words(weights, ("forklift",)).sha256 == first
    other = Encoder()
    torch.nn.init.normal_(other.letters)
    torch.jit.script(other).save(tmp_path / ENCODERS["yoloe-11n"])
    monkeypatch.setenv("PRELABEL_MODELS", str(tmp_path))

    assert weights_for_words(weights, ("forklift",)).sha256 != first


def test_vocabulary_that_was_saved_is_fixed_or_can_be_replaced(folder: Path, checkpoint) -> None:
    kinds = [vocabulary_of(folder / f"{name}.pt") for name in ENCODERS]
    assert kinds == ["own", "none", "none"]
    assert vocabulary_of(checkpoint("yolo11n")) == "fixed"


@pytest.mark.parametrize("architecture", ENCODERS)
def test_a_missing_text_encoder_is_named_with_its_address_and_place(folder: Path, architecture: str) -> None:
    file = ENCODERS[architecture]
    with pytest.raises(WeightsError, match=rf"fetch https://\S+/{file} and put it at models/{file}") as raised:
        detector_of(folder, architecture, words=("forklift",))
    assert "\n" not in str(raised.value)


def test_the_missing_package_of_the_encoder_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRELABEL_MODELS", str(folder))
    with pytest.raises(MachineError, match="package clip: uv pip install git"):
        detector_of(folder, "yoloe-11n", words=("forklift",))


@pytest.mark.parametrize(
    ("words", "complaint"),
    [(("hard hat", "Hard_hat"), "'hard hat' and 'Hard_hat' are the same"), (("...",), "cannot read '...'")],
)
def test_words_that_the_model_cannot_tell_are_refused(
    folder: Path, encoders: None, words: tuple[str, ...], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        detector_of(folder, "yoloe-11n", words=words)


def test_weights_with_fixed_classes_take_no_words(checkpoint) -> None:
    with pytest.raises(ConfigError, match=r"detector\.words: yolo11n has fixed classes"):
        UltralyticsDetector(weights=str(checkpoint("yolo11n")), words=("forklift",), **LOW)
