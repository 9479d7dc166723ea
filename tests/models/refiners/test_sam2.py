"""SAM 2 makes the masks that transformers' own processor and model make."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from prelabel.data.frames import FrameBatch
from prelabel.data.geometry import Mask
from prelabel.errors import MachineError, WeightsError
from prelabel.testing import check_refiner

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.slow  # the import alone takes ten seconds
from prelabel.models.refiners.sam2 import BOXES_AT_A_TIME, Sam2Refiner  # noqa: E402
from tests.models.detectors.checkpoints import as_batch, blocky_frames  # noqa: E402
from tests.models.refiners.sam2_models import write_model  # noqa: E402

HEIGHT, WIDTH = 90, 160


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("sam2"))


def frames(num: int) -> FrameBatch:
    return as_batch(blocky_frames(num, HEIGHT, WIDTH))


def boxes(num: int) -> np.ndarray:
    rng = np.random.default_rng(num)
    corners = rng.uniform(0, [WIDTH - 20, HEIGHT - 20], (num, 2))
    return np.concatenate([corners, corners + rng.uniform(8, 20, (num, 2))], axis=1).astype(np.float32)


def own_masks(folder: Path, frame: torch.Tensor, of_frame: np.ndarray) -> np.ndarray:
    """What transformers itself makes of one frame, bool (n, height, width)."""
    processor = transformers.Sam2Processor.from_pretrained(folder)
    network = transformers.Sam2Model.from_pretrained(folder).eval()
    inputs = processor(images=frame.permute(2, 0, 1), input_boxes=[of_frame.tolist()], return_tensors="pt")
    with torch.inference_mode():
        outputs = network(**inputs, multimask_output=False)
    return processor.post_process_masks(outputs.pred_masks, inputs["original_sizes"])[0][:, 0].numpy()


def pixels_of(mask: Mask | None) -> np.ndarray:
    pixels = np.zeros((HEIGHT, WIDTH), np.bool_)
    if mask is not None:
        pixels[mask.top : mask.top + mask.height, mask.left : mask.left + mask.width] = mask.pixels
    return pixels


@pytest.mark.parametrize("for_videos", [False, True])
def test_masks_equal_those_of_transformers(tmp_path: Path, for_videos: bool) -> None:
    folder, batch, of_frames = write_model(tmp_path, for_videos=for_videos), frames(3), [boxes(2), boxes(0), boxes(3)]

    found = Sam2Refiner(weights=str(folder), device="cpu").refine(batch, of_frames)

    assert [len(masks) for masks in found] == [2, 0, 3]
    for frame, of_frame, masks in zip(batch.data, of_frames, found, strict=True):
        if len(of_frame):
            expected = own_masks(folder, frame, of_frame)
            assert 0 < expected.mean() < 1
            np.testing.assert_array_equal([pixels_of(mask) for mask in masks], expected)


def test_many_boxes_get_the_masks_that_each_gets_alone(folder: Path) -> None:
    refiner, batch, many = Sam2Refiner(weights=str(folder), device="cpu"), frames(1), boxes(BOXES_AT_A_TIME + 2)

    (together,) = refiner.refine(batch, [many])

    alone = [refiner.refine(batch, [many[place, None]])[0][0] for place in (0, BOXES_AT_A_TIME + 1)]
    for mask, expected in zip([together[0], together[-1]], alone, strict=True):
        assert (pixels_of(mask) != pixels_of(expected)).mean() < 0.01


def test_the_refiner_keeps_its_contract(folder: Path) -> None:
    check_refiner(Sam2Refiner(weights=str(folder), device="cpu"))


def test_a_model_goes_on_record_before_it_is_loaded(folder: Path) -> None:
    refiner = Sam2Refiner(weights=str(folder), device="cpu")

    assert refiner.traits.model.name == folder.name
    assert len(refiner.traits.model.weights_sha256) == 64
    assert "_loaded" not in vars(refiner)


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "detr"}))
    with pytest.raises(WeightsError, match=r"model_type: got 'detr', expected sam2"):
        Sam2Refiner(weights=str(tmp_path))


@pytest.mark.skipif(importlib.util.find_spec("timm") is not None, reason="timm is installed")
def test_edgetam_names_the_package_that_it_needs(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "edgetam")
    (tmp_path / "edgetam" / "config.json").write_text(json.dumps({"model_type": "edgetam"}))
    with pytest.raises(MachineError, match=r"^edgetam: needs the package timm: uv pip install timm$"):
        Sam2Refiner(weights=str(tmp_path / "edgetam")).refine(frames(1), [boxes(1)])


def test_a_folder_without_its_processor_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "bare")
    (tmp_path / "bare" / "processor_config.json").unlink()
    with pytest.raises(WeightsError, match=r"preprocessor_config\.json is missing"):
        Sam2Refiner(weights=str(tmp_path / "bare")).refine(frames(1), [boxes(1)])


def test_neither_folder_nor_hub_id_is_said_in_one_line() -> None:
    with pytest.raises(WeightsError, match="no such folder, and no hub id"):
        Sam2Refiner(weights="models/none/sam2")
