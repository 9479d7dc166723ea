"""Detectors by words: equal to transformers' own pipeline, in as many passes as the words need."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from prelabel.data.frames import FrameBatch
from prelabel.errors import ConfigError, DetectError, WeightsError
from prelabel.testing import check_detector

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.slow  # the import alone takes ten seconds
from prelabel.models.detectors.transformers import TransformersDetector  # noqa: E402
from tests.models.detectors.word_models import FAMILIES, save_word_model  # noqa: E402

HEIGHT, WIDTH = 90, 160
WORDS = ("fork lift", "Pallet")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: save_word_model(tmp_path_factory.mktemp("hub") / family, family) for family in FAMILIES}


def frames(number: int = 3) -> FrameBatch:
    generator = torch.Generator().manual_seed(0)
    data = torch.randint(0, 256, (number, HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=generator)
    return FrameBatch(data, np.arange(number), np.arange(number) / 25)


def detector_of(folder: Path, *words: str, **options: object) -> TransformersDetector:
    return TransformersDetector(
        **{"weights": str(folder), "raw_conf": 0.0, "conf": 0.0, "words": list(words), **options}
    )


def own_results(folder: Path, words: tuple[str, ...], frame: torch.Tensor) -> dict[str, torch.Tensor]:
    """Boxes, scores and labels of one frame by transformers' own classes."""
    network = transformers.AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()
    processor = transformers.AutoProcessor.from_pretrained(folder)
    inputs = processor(images=frame.numpy(), text=[list(words)], return_tensors="pt")
    with torch.inference_mode():
        outputs = network(**inputs)
    options = {"threshold": 0.0, "target_sizes": [(HEIGHT, WIDTH)]}
    if "input_ids" not in inputs or len(inputs["input_ids"]) > 1:  # one text per word: labels are places of words
        (found,) = processor.post_process_grounded_object_detection(outputs, **options)
        return found
    # Grounding DINO scores each token of "fork lift. pallet.", also the separators. Only those of words are compared.
    ids, scores = inputs["input_ids"][0].tolist(), []
    stops = [-1, *(place for place, token in enumerate(ids) if token == processor.tokenizer.convert_tokens_to_ids("."))]
    everything = outputs.logits
    for start, end in zip([1, *(stop + 1 for stop in stops[1:])], stops[1:], strict=False):
        outputs.logits = torch.full_like(everything, -torch.inf)
        outputs.logits[..., start:end] = everything[..., start:end]
        (found,) = processor.post_process_grounded_object_detection(outputs, **{**options, "threshold": -1.0})
        scores.append(found["scores"])
    best, labels = torch.stack(scores, dim=1).max(dim=1)
    return {"boxes": found["boxes"], "scores": best, "labels": labels}


@pytest.mark.parametrize("family", FAMILIES)
def test_boxes_equal_those_of_transformers_own_pipeline(folders: dict[str, Path], family: str):
    detected = detector_of(folders[family], *WORDS).detect(frames())
    for frame, detections in zip(frames().data, detected, strict=True):
        own = own_results(folders[family], WORDS, frame)
        boxes = own["boxes"].clone()
        boxes[:, 0::2].clamp_(0, WIDTH)
        boxes[:, 1::2].clamp_(0, HEIGHT)
        kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        order = own["scores"].argsort(descending=True, stable=True)
        order = order[kept[order]]
        assert len(detections) == len(order) > 5
        np.testing.assert_allclose(detections.confidence, own["scores"][order].numpy(), atol=1e-4)
        np.testing.assert_allclose(detections.xyxy, boxes[order].numpy(), atol=0.05)
        assert detections.class_id.tolist() == own["labels"][order].tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_detector_keeps_the_contract(folders: dict[str, Path], family: str):
    check_detector(detector_of(folders[family], *WORDS, raw_conf=0.2, conf=0.3))


def test_words_of_an_ontology_reach_a_detector_on_the_same_network(folders: dict[str, Path]):
    asked = TransformersDetector(weights=str(folders["OWLv2"]), raw_conf=0.0, conf=0.0)
    assert (asked.class_names, asked.traits.word_passes) == ((), ())
    detector = asked.with_words(["cat", "traffic_light"])
    assert detector.class_names == ("cat", "traffic_light")
    assert detector.traits.word_passes == (("cat", "traffic_light"),)
    assert detector._network is asked._network
    same = detector_of(folders["OWLv2"], "Cat", "traffic light").detect(frames(1))
    other = asked.with_words(["dog", "bus"]).detect(frames(1))
    (found,) = detector.detect(frames(1))
    np.testing.assert_array_equal(found.confidence, same[0].confidence)
    assert found.confidence.tolist() != other[0].confidence.tolist()
    assert asked.class_names == ()


@pytest.mark.parametrize(
    ("family", "length", "num_passes"), [("Grounding DINO", 60, 2), ("OmDet-Turbo", 18, 2), ("OWLv2", 12, 1)]
)
def test_more_words_than_the_model_reads_go_in_several_passes(
    folders: dict[str, Path], family: str, length: int, num_passes: int
):
    words = [letter * length for letter in "abcdef"]
    detector = detector_of(folders[family], *words, max_det=10_000)
    passes = detector.traits.word_passes or ()
    assert len(passes) == num_passes
    assert [word for each in passes for word in each] == words
    (whole,) = detector.detect(frames(1))
    rows = []
    for part in passes:
        (found,) = detector_of(folders[family], *part, max_det=10_000).detect(frames(1))
        class_id = [words.index(part[place]) for place in found.class_id.tolist()]
        rows += zip(found.confidence.tolist(), class_id, found.xyxy.tolist(), strict=True)
    merged = sorted(rows, key=lambda row: -row[0])
    np.testing.assert_allclose(whole.confidence, [confidence for confidence, _, _ in merged], atol=1e-5)
    assert sorted(whole.class_id.tolist()) == sorted(class_id for _, class_id, _ in merged)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["cat", "..."], "cannot read '...'"),
        (["cat", "кот"], "cannot read 'кот'"),
        (["Cat", "dog", "cat"], "'Cat' and 'cat' are the same to the model"),
        (["a " * 300], "has 300 tokens, the model reads 253: shorten it"),
    ],
)
def test_words_that_the_model_cannot_read_are_refused(folders: dict[str, Path], words: list[str], complaint: str):
    with pytest.raises(ConfigError, match=complaint):
        detector_of(folders["Grounding DINO"], *words)


def test_a_word_of_owl_has_its_own_limit(folders: dict[str, Path]):
    with pytest.raises(ConfigError, match="has 15 tokens, the model reads 14"):
        detector_of(folders["OWLv2"], "a" * 15)


def test_a_model_without_its_tokenizer_is_refused(folders: dict[str, Path], tmp_path: Path):
    for name in ("config.json", "model.safetensors", "processor_config.json"):
        (tmp_path / name).write_bytes((folders["OWLv2"] / name).read_bytes())
    with pytest.raises(WeightsError, match=r"tokenizer\.json is missing"):
        detector_of(tmp_path, "cat")


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "OmDet-Turbo"])
def test_half_precision_gives_about_the_same_boxes(folders: dict[str, Path], family: str):
    (whole,) = detector_of(folders[family], *WORDS).detect(frames(1))
    (half,) = detector_of(folders[family], *WORDS, half=True).detect(frames(1))
    assert abs(whole.confidence.max() - half.confidence.max()) < 0.05


def test_outputs_that_are_no_numbers_fail_instead_of_finding_nothing(folders: dict[str, Path]):
    detector = detector_of(folders["OmDet-Turbo"], *WORDS, half=True)  # its random weights do not fit into float16
    with pytest.raises(DetectError, match=r"are no numbers: with detector\.half: true, leave it out"):
        detector.detect(frames(1))
