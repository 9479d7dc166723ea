"""`only` keeps some classes, and means the same to every detector."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest

from models.scenes import SceneSpec, render_frames
from prelabel import Detector, FrameBatch
from prelabel.data.detections import Detections
from prelabel.errors import ConfigError
from prelabel.models.detectors.onnx import OnnxDetector
from prelabel.models.detectors.torchvision import TorchvisionDetector
from prelabel.models.detectors.ultralytics import UltralyticsDetector
from tests.models.detectors.checkpoints import as_batch, make_checkpoint

LOW = {"conf": 0.01, "raw_conf": 0.01, "max_det": 3000, "device": "cpu"}
WORDS = ["kettle", "paper boat"]


def _shapes(_folder: Path) -> partial[Detector]:
    return partial(TorchvisionDetector, weights="demo_shapes", **LOW)


def _onnx(_folder: Path) -> partial[Detector]:
    return partial(OnnxDetector, weights="demo", **LOW)


def _onnx_with_names(folder: Path) -> partial[Detector]:
    """The graph gets its names from the config, and still some of them can be chosen."""
    (folder / "names.txt").write_text("\n".join(OnnxDetector(weights="demo").class_names))
    return partial(OnnxDetector, weights="demo", classes=str(folder / "names.txt"), **LOW)


def _ultralytics(folder: Path) -> partial[Detector]:
    return partial(UltralyticsDetector, weights=str(make_checkpoint("yolo11n", folder)), engine="torch", **LOW)


def _transformers(folder: Path) -> partial[Detector]:
    from prelabel.models.detectors.transformers import TransformersDetector
    from tests.models.detectors.test_transformers import save_model

    return partial(TransformersDetector, weights=str(save_model(folder, "YOLOS")), **LOW)


def _words(folder: Path) -> partial[Detector]:
    from prelabel.models.detectors.transformers import TransformersDetector
    from tests.models.detectors.word_models import save_word_model

    weights = str(save_word_model(folder, "OWLv2"))
    return partial(TransformersDetector, weights=weights, words=WORDS, **LOW)


def _words_of_the_ontology(folder: Path) -> Callable[..., Detector]:
    """The detector learns its words after it is loaded."""
    make = _words(folder)
    return lambda **options: make(words=None, **options).with_words(WORDS)  # type: ignore[attr-defined]


_SLOW = {"marks": pytest.mark.slow}
KINDS = [
    pytest.param(_shapes, id="torchvision"),
    pytest.param(_onnx, id="onnx"),
    pytest.param(_onnx_with_names, id="onnx with names"),
    pytest.param(_ultralytics, id="ultralytics"),
    pytest.param(_transformers, id="transformers", **_SLOW),
    pytest.param(_words, id="words", **_SLOW),
    pytest.param(_words_of_the_ontology, id="words of the ontology", **_SLOW),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Callable[[Callable[[Path], Callable[..., Detector]]], Callable[..., Detector]]:
    """Makes the weights of a kind of detector once, and returns what builds the detector with further options."""
    return cache(lambda kind: _made(kind, tmp_path_factory.mktemp("weights")))


def _made(kind: Callable[[Path], Callable[..., Detector]], folder: Path) -> Callable[..., Detector]:
    if kind in (_transformers, _words, _words_of_the_ontology):
        pytest.importorskip("transformers")
    return kind(folder)


def scenes() -> FrameBatch:
    scene = render_frames(SceneSpec(seed=1, width=320, height=180, num_frames=2))
    return as_batch(np.stack([frame.image for frame in scene]))


def without_others(detections: Detections, class_id: int) -> np.ndarray:
    kept = detections.class_id == class_id
    return np.column_stack([detections.xyxy, detections.confidence])[kept]


@pytest.mark.parametrize("kind", KINDS)
def test_one_class_is_kept_by_name_and_by_id(made, kind):
    make = made(kind)
    everything = make()
    first, _ = found = everything.detect(scenes())
    wanted = int(first.class_id[0])
    assert len(set(first.class_id.tolist())) > 1

    for only in (everything.class_names[wanted], wanted):
        detector = make(only=[only])
        assert list(detector.class_names) == list(everything.class_names)
        for kept, whole in zip(detector.detect(scenes()), found, strict=True):
            assert set(kept.class_id.tolist()) <= {wanted}
            np.testing.assert_allclose(without_others(kept, wanted), without_others(whole, wanted), atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_that_the_model_lacks_is_named_with_the_nearest(made, kind):
    make = made(kind)
    name = make().class_names[1]
    with pytest.raises(
        ConfigError, match=rf"detector\.only: '{name}x' is no class of this model; did you mean '{name}'"
    ):
        make(only=[f"{name}x"])
    with pytest.raises(ConfigError, match=r"detector\.only: got 999, this model has 0 to "):
        make(only=[999])


def test_only_goes_before_ultralytics_own_name_for_it(made):
    detector = made(_ultralytics)(classes=[1, 2], only=["class 3"])

    assert {class_id for found in detector.detect(scenes()) for class_id in found.class_id.tolist()} == {3}
