"""Detectors of the hub: equal to transformers' own pipeline, and clear about what they cannot load."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from prelabel.data.frames import FrameBatch
from prelabel.errors import ConfigError, WeightsError
from prelabel.testing import check_detector

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.slow  # the import alone takes ten seconds
from prelabel.models.detectors.transformers import TransformersDetector  # noqa: E402
from tests.models.detectors.word_models import save_random  # noqa: E402

HEIGHT, WIDTH = 90, 160
NAMES = {0: "person", 1: "car", 2: "dog"}
LABELS = {"num_labels": 3, "id2label": NAMES, "label2id": {name: key for key, name in NAMES.items()}}


def backbone() -> object:
    return transformers.RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 16, 16],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )


RT_DETR = {
    "encoder_in_channels": [16, 16, 16],
    "encoder_hidden_dim": 32,
    "d_model": 32,
    "num_queries": 30,
    "decoder_layers": 2,
    "decoder_attention_heads": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "decoder_in_channels": [32, 32, 32],
    "feat_strides": [8, 16, 32],
}
SQUARE = {"size": {"height": 64, "width": 64}}


def rt_detr() -> tuple[object, object]:
    config = transformers.RTDetrConfig(backbone_config=backbone(), **RT_DETR, **LABELS)
    return transformers.RTDetrForObjectDetection(config), transformers.RTDetrImageProcessor(**SQUARE)


def rt_detr_v2() -> tuple[object, object]:
    config = transformers.RTDetrV2Config(backbone_config=backbone(), **RT_DETR, **LABELS)
    return transformers.RTDetrV2ForObjectDetection(config), transformers.RTDetrImageProcessor(**SQUARE)


def d_fine() -> tuple[object, object]:
    config = transformers.DFineConfig(backbone_config=backbone(), **RT_DETR, **LABELS)
    return transformers.DFineForObjectDetection(config), transformers.RTDetrImageProcessor(**SQUARE)


def yolos() -> tuple[object, object]:
    config = transformers.YolosConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=[64, 64],
        patch_size=16,
        num_detection_tokens=20,
        **LABELS,
    )
    return transformers.YolosForObjectDetection(config), transformers.YolosImageProcessor(**SQUARE)


FAMILIES = {"RT-DETR": rt_detr, "RT-DETRv2": rt_detr_v2, "D-FINE": d_fine, "YOLOS": yolos}


def save_model(folder: Path, family: str) -> Path:
    """Saves a model of a family with random weights."""
    return save_random(folder, FAMILIES[family])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small model of each family."""
    return {family: save_model(tmp_path_factory.mktemp("hub") / family, family) for family in FAMILIES}


def frames(number: int = 3) -> FrameBatch:
    generator = torch.Generator().manual_seed(0)
    data = torch.randint(0, 256, (number, HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=generator)
    return FrameBatch(data, np.arange(number), np.arange(number) / 25)


@pytest.mark.parametrize("family", FAMILIES)
def test_boxes_equal_those_of_transformers_own_pipeline(folders: dict[str, Path], family: str):
    detector = TransformersDetector(weights=str(folders[family]), raw_conf=0.0, conf=0.0)
    found = detector.detect(frames())
    network = transformers.AutoModelForObjectDetection.from_pretrained(folders[family]).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folders[family])
    for frame, detections in zip(frames().data, found, strict=True):
        with torch.inference_mode():
            outputs = network(**processor(images=frame.numpy(), return_tensors="pt"))
        (own,) = processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=[(HEIGHT, WIDTH)])
        order = own["scores"].argsort(descending=True, stable=True)
        boxes = own["boxes"][order].clone()
        boxes[:, 0::2].clamp_(0, WIDTH)
        boxes[:, 1::2].clamp_(0, HEIGHT)
        assert len(detections) == len(order) > 5
        np.testing.assert_allclose(detections.confidence, own["scores"][order].numpy(), atol=1e-4)
        np.testing.assert_allclose(detections.xyxy, boxes.numpy(), atol=0.05)
        assert detections.class_id.tolist() == own["labels"][order].tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_detector_keeps_the_contract(folders: dict[str, Path], family: str):
    check_detector(TransformersDetector(weights=str(folders[family]), raw_conf=0.2, conf=0.3))


def test_names_classes_and_the_record_come_with_the_weights(folders: dict[str, Path]):
    (folders["RT-DETR"] / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    detector = TransformersDetector(weights=str(folders["RT-DETR"]))
    assert detector.class_names == ("person", "car", "dog")
    record = detector.traits.model
    assert record is not None
    assert (record.name, record.licence) == ("RT-DETR", "apache-2.0")
    assert len(record.weights_sha256 or "") == 64
    assert "float32" in (record.engine or "")


def test_classes_are_chosen_before_max_det_is_reached(folders: dict[str, Path]):
    detector = TransformersDetector(weights=str(folders["RT-DETR"]), raw_conf=0.0, conf=0.0, only=["dog"], max_det=4)
    found = detector.detect(frames())
    assert {len(detections) for detections in found} == {4}
    assert {class_id for detections in found for class_id in detections.class_id.tolist()} == {2}


def test_words_belong_to_models_without_fixed_classes(folders: dict[str, Path]):
    with pytest.raises(ConfigError, match=r"detector\.words: YOLOS has fixed classes"):
        TransformersDetector(weights=str(folders["YOLOS"]), words=["cat"])


def test_a_head_that_would_be_random_is_refused(folders: dict[str, Path], tmp_path: Path):
    from safetensors.torch import load_file, save_file

    weights = load_file(folders["YOLOS"] / "model.safetensors")
    for path in folders["YOLOS"].glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("class_labels_classifier")}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"weights are missing \(class_labels_classifier.*would be random"):
        TransformersDetector(weights=str(tmp_path))


def edit_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "preprocessor_config.json is missing"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be loaded as a detector"),
        (lambda folder: (folder / "config.json").write_text("{}"), "cannot be loaded as a detector|config.json"),
        (
            lambda folder: (folder / "config.json").write_text(json.dumps({"model_type": "bert"})),
            r"config\.json: model_type 'bert' is not a detector",
        ),
        (
            lambda folder: edit_json(folder / "config.json", hidden_size=48, num_attention_heads=2),
            r"weights do not have the shapes that config\.json says \(.*different models",
        ),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(
                (folder / "model.safetensors").read_bytes()[:5000]
            ),
            "safetensors file is damaged or cut off: get it again",
        ),
    ],
)
def test_a_folder_that_is_no_detector_says_what_is_wrong(folders: dict[str, Path], tmp_path: Path, change, reason):
    for path in folders["YOLOS"].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    change(tmp_path)
    with pytest.raises(WeightsError, match=reason):
        TransformersDetector(weights=str(tmp_path), words=["cat"])


def test_weights_that_are_neither_folder_nor_hub_id_say_so():
    with pytest.raises(WeightsError, match="OWNER/NAME"):
        TransformersDetector(weights="nowhere")


def test_without_network_the_error_says_how_to_fetch_by_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    by_hand = (
        "hf download nobody/nothing --local-dir models/nothing; then copy that folder here and set weights: models/"
    )
    with pytest.raises(WeightsError, match=f"cannot be reached: fetch it on a machine with network: {by_hand}nothing"):
        TransformersDetector(weights="nobody/nothing")
