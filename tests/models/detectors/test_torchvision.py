from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import get_model

from models.scenes import SceneSpec, render_frames
from prelabel.errors import ConfigError, WeightsError
from prelabel.models.detectors.torchvision import TorchvisionDetector, published_categories
from prelabel.models.weights import ModelCard
from prelabel.testing import check_detector
from tests.models.detectors.checkpoints import as_batch, blocky_frames

SSDLITE = "ssdlite320_mobilenet_v3_large"
NAMES = ("bolt", "nut")


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A small SSDlite of two classes that nobody trained, kept as float16."""
    torch.manual_seed(0)
    network = get_model(SSDLITE, weights=None, weights_backbone=None, num_classes=1 + len(NAMES), width_mult=0.5)
    path = tmp_path_factory.mktemp("weights") / "small.pth"
    torch.save({name: t.half() if t.is_floating_point() else t for name, t in network.state_dict().items()}, path)
    return path


def small(weights: Path, **options: object) -> TorchvisionDetector:
    fixed = {"builder": SSDLITE, "builder_args": {"width_mult": 0.5}, "classes": NAMES, "device": "cpu"}
    return TorchvisionDetector(weights=str(weights), **(fixed | options))


def test_detector_keeps_its_contract(weights):
    check_detector(small(weights, raw_conf=0.3), blocky_frames(2))


def test_boxes_are_the_networks_own_without_the_background(weights):
    frames = blocky_frames(1)
    network = get_model(SSDLITE, weights=None, weights_backbone=None, num_classes=3, width_mult=0.5).eval()
    network.load_state_dict({name: value.float() for name, value in torch.load(weights).items()})
    with torch.inference_mode():
        (expected,) = network([torch.from_numpy(frames[0]).permute(2, 0, 1) / 255])

    (found,) = small(weights).detect(as_batch(frames))

    count = len(found)
    assert count > 0
    np.testing.assert_allclose(found.xyxy, expected["boxes"][:count], atol=0.01)
    np.testing.assert_array_equal(found.class_id, expected["labels"][:count] - 1)


def test_boxes_come_best_first_and_no_more_than_asked(weights):
    (found,) = small(weights, max_det=7).detect(as_batch(blocky_frames(1)))

    assert len(found) == 7
    assert (np.diff(found.confidence) <= 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("builder", ["fcos_resnet50_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn"])
def test_builders_of_every_kind_load_and_keep_low_scores(tmp_path, builder):
    network = get_model(builder, weights=None, weights_backbone=None, num_classes=3)
    torch.save({"model": network.state_dict()}, tmp_path / "net.pth")
    options = {"weights": str(tmp_path / "net.pth"), "builder": builder, "classes": NAMES, "device": "cpu"}

    detector = TorchvisionDetector(raw_conf=0.001, **options)

    (found,) = detector.detect(as_batch(blocky_frames(1, 64, 64)))
    assert set(found.class_id.tolist()) <= {0, 1}


def test_published_weights_name_their_classes_and_leave_gaps_out(tmp_path):
    network = get_model(SSDLITE, weights=None, weights_backbone=None, num_classes=91, width_mult=0.5)
    torch.save(network.state_dict(), tmp_path / "coco.pth")

    detector = small(tmp_path / "coco.pth", classes=None)

    assert len(detector.class_names) == 80
    assert detector.class_names[:2] == ("person", "bicycle")
    assert "N/A" not in detector.class_names
    names = published_categories(SSDLITE)
    assert detector.class_names[detector._class_by_label[1 + names.index("toothbrush")]] == "toothbrush"


def test_card_brings_builder_arguments_and_classes(weights, tmp_path, monkeypatch):
    (tmp_path / "small.pth").write_bytes(weights.read_bytes())
    card = {"file": "small.pth", "licence": "MIT", "use": "torchvision", "builder": SSDLITE, "classes": NAMES}
    text = ModelCard(name="small", builder_args={"width_mult": 0.5}, **card).model_dump_json()
    (tmp_path / "small.yaml").write_text(text)
    monkeypatch.setenv("PRELABEL_MODELS", str(tmp_path))

    detector = TorchvisionDetector(weights="small", device="cpu")

    assert detector.class_names == NAMES
    assert (detector.traits.model.name, detector.traits.model.licence) == ("small", "MIT")


def test_unknown_builder_names_the_nearest(weights):
    with pytest.raises(ConfigError, match=f"did you mean '{SSDLITE}'"):
        small(weights, builder="ssdlite320_mobilenet_v3")


def test_missing_builder_says_where_it_is_set(weights):
    with pytest.raises(ConfigError, match=r"detector\.builder: needed"):
        small(weights, builder=None)


def test_a_card_for_another_plug_in_is_named():
    with pytest.raises(
        ConfigError, match=r"use: 'demo' is a card for use: onnx: leave use out.* such as .*demo_shapes"
    ):
        TorchvisionDetector(weights="demo")


def test_other_number_of_classes_says_how_many_there_are(weights):
    with pytest.raises(WeightsError, match="it has 2 classes, 3 are named"):
        small(weights, classes=("a", "b", "c"))


def test_weights_of_another_network_name_the_first_tensor(weights):
    with pytest.raises(WeightsError, match=r"backbone\.body\.0\.0\.weight is missing"):
        small(weights, builder="fasterrcnn_mobilenet_v3_large_320_fpn", builder_args={})


def test_other_width_names_tensor_and_shapes(weights):
    with pytest.raises(WeightsError, match=r"is \(.*\), expected \(.*\): set builder and builder_args"):
        small(weights, builder_args={})


def test_unknown_builder_argument_is_named(weights):
    with pytest.raises(ConfigError, match=r"widht_mult.*did you mean 'width_mult'"):
        small(weights, builder_args={"widht_mult": 0.5})


def test_arguments_that_would_fetch_weights_are_refused(weights):
    with pytest.raises(ConfigError, match="weights_backbone"):
        small(weights, builder_args={"weights_backbone": "DEFAULT"})


def test_file_that_would_run_code_is_refused(tmp_path):
    torch.save(get_model(SSDLITE, weights=None, weights_backbone=None, width_mult=0.5), tmp_path / "whole.pth")

    with pytest.raises(WeightsError, match="without running code"):
        small(tmp_path / "whole.pth")


@pytest.mark.needs_test_data
def test_trained_weights_find_the_bottles(test_data):
    import av

    with av.open(test_data / "clips" / "bottles_360p.mp4") as container:
        frames = [f.to_ndarray(format="rgb24") for f, _ in zip(container.decode(video=0), range(150), strict=False)]
    detector = TorchvisionDetector(
        weights=str(test_data / "weights" / "ssdlite320_people_vehicle_bottle.pth"),
        builder=SSDLITE,
        classes=("person", "vehicle", "bottle"),
        conf=0.4,
        device="cpu",
    )

    found = detector.detect(as_batch(np.stack(frames[::50])))

    for detections in found:
        sure = detections.class_id[detections.confidence > detector.traits.conf]
        assert sure.tolist().count(2) >= 2


@pytest.mark.needs_cuda
def test_a_gpu_finds_what_the_cpu_finds():
    scene = render_frames(SceneSpec(seed=1, width=320, height=180, num_frames=2))
    frames = as_batch(np.stack([frame.image for frame in scene]))

    ours, theirs = (
        TorchvisionDetector(weights="demo_shapes", device=device).detect(frames) for device in ("cuda", "cpu")
    )

    # Of weights that nobody trained, boxes are all as sure as each other, and which of them stay is chance.
    for found, expected in zip(ours, theirs, strict=True):
        sure = expected.confidence > 0.5
        assert sure.any()
        assert (found.confidence > 0.5).sum() == sure.sum()
        np.testing.assert_allclose(found.confidence[: sure.sum()], expected.confidence[sure], atol=1e-2)


SMALL = {"min_size": 64, "max_size": 96, "rpn_post_nms_top_n_test": 20, "box_detections_per_img": 6}


@pytest.fixture(scope="module")
def weights_of(tmp_path_factory) -> Callable[[str], Path]:
    """Makes the weights of a builder's network, untrained and small, once."""
    folder = tmp_path_factory.mktemp("heads")

    @cache
    def make(builder: str) -> Path:
        torch.manual_seed(0)
        network = get_model(builder, weights=None, weights_backbone=None, num_classes=3, **SMALL)
        torch.save(network.state_dict(), folder / f"{builder}.pth")
        return folder / f"{builder}.pth"

    return make


def with_heads(weights: Path, **options: object) -> TorchvisionDetector:
    fixed = {"builder": weights.stem, "builder_args": SMALL, "classes": NAMES, "device": "cpu", "raw_conf": 0.02}
    return TorchvisionDetector(weights=str(weights), **fixed, **options)


def outputs_of(detector, frames):
    """Returns what the whole network says, without the detector's choice of what is asked."""
    with torch.inference_mode():
        return detector._network([torch.from_numpy(frame).permute(2, 0, 1) / 255 for frame in frames])


@pytest.mark.slow
def test_masks_are_the_networks_own_where_they_are_asked_for(weights_of):
    detector = with_heads(weights_of("maskrcnn_resnet50_fpn"))
    frames = blocky_frames(2, 90, 120)

    bare = detector.detect(as_batch(frames))
    wanted = int(bare[0].class_id[0])
    found = detector.with_geometry(frozenset([wanted])).detect(as_batch(frames))

    assert detector.traits.output.kind == "mask"
    num_masks = 0
    for boxes, ours, output in zip(bare, found, outputs_of(detector, frames), strict=True):
        assert not boxes.geometry.astype(bool).any()
        np.testing.assert_allclose(ours.xyxy, boxes.xyxy, atol=0.01)
        assert not ours.geometry[ours.class_id != wanted].astype(bool).any()
        for row in np.flatnonzero(ours.geometry):
            mask, whole = ours.geometry[row], np.zeros((90, 120), bool)
            whole[mask.top : mask.top + mask.height, mask.left : mask.left + mask.width] = mask.pixels
            assert any(np.mean(whole ^ (theirs[0].numpy() >= 0.5)) < 1e-3 for theirs in output["masks"])
            num_masks += 1
    assert num_masks > 0


@pytest.mark.slow
def test_keypoints_are_the_networks_own_and_have_the_published_names(weights_of):
    detector = with_heads(weights_of("keypointrcnn_resnet50_fpn"))
    frames = blocky_frames(1, 90, 120)

    (bare,), (found,) = (
        each.detect(as_batch(frames)) for each in (detector, detector.with_geometry(frozenset([0, 1])))
    )

    assert detector.traits.output.kind == "keypoints"
    assert detector.traits.output.keypoint_names[:3] == ("nose", "left_eye", "right_eye")
    assert not bare.geometry.astype(bool).any()
    (output,) = outputs_of(detector, frames)
    assert len(found) > 0
    for pose in found.geometry:
        distances = np.abs(output["keypoints"][..., :2].numpy() - pose.xy).max(axis=(1, 2))
        assert distances.min() < 0.1
        scores = output["keypoints_scores"][int(distances.argmin())].sigmoid()
        np.testing.assert_allclose(pose.confidence, scores, atol=0.01)


def test_names_of_keypoints_are_as_many_as_the_network_has(weights):
    with pytest.raises(ConfigError, match=r"detector.keypoints: got 2 names, the network has 0 keypoints"):
        small(weights, keypoints=("tip", "end"))
