from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from prelabel.assembly.assemble import Assembly, assemble
from prelabel.config.load import load_config, load_configs
from prelabel.data.detections import Detections
from prelabel.data.frames import FrameBatch
from prelabel.models.weights import cache_folder, find_card
from prelabel.testing import check_detector

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
NEEDS_NOTHING = ["demo", "own_detector"]


def config_path(name: str) -> Path:
    return next(path for path in CONFIGS if path.stem == name)


def on_a_table(*things: tuple[int, int, int, int], height: int = 96, width: int = 160) -> NDArray[np.uint8]:
    """Returns a picture (H, W, 3) with a bright thing in each x1, y1, x2, y2 of an even ground."""
    picture = np.full((height, width, 3), 60, np.uint8)
    for x1, y1, x2, y2 in things:
        picture[y1:y2, x1:x2] = (60, 200, 60)
    return picture


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_loads(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCORD_PROJECT_HASH", "4f8ac2d1-0000-4000-8000-000000000000")
    load_configs(path)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_names_its_schema(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    _, _, schema = first.partition("# yaml-language-server: $schema=")
    assert (path.parent / schema).is_file()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_names_weights_that_a_card_knows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCORD_PROJECT_HASH", "4f8ac2d1-0000-4000-8000-000000000000")
    for config in load_configs(path):
        weights = (config.detector or config.classifier or config.agent).options.get("weights")
        is_file = weights is not None and Path(weights).suffix == ".pt"  # somebody's own
        assert weights is None or is_file or find_card(str(weights)) is not None


@pytest.mark.parametrize("name", NEEDS_NOTHING)
def test_a_config_that_needs_neither_account_nor_download_assembles(name: str, tmp_path: Path) -> None:
    already = set(cache_folder().glob("*"))
    settings = [f"source.output={tmp_path / 'out'}"] + ([] if name == "demo" else [f"source.path={tmp_path}"])
    path = config_path(name)
    assembly = assemble(load_config(path, settings), path.parent)
    assert assembly.detection.detector.class_names
    assert assembly.detection.label_map.categories
    assert assembly.sink
    assert set(cache_folder().glob("*")) == already


def own_detector(**options: object) -> Assembly:
    path = config_path("own_detector")
    settings = [f"detector.{key}={value}" for key, value in options.items()]
    return assemble(load_config(path, settings), path.parent)


def found_on(picture: NDArray[np.uint8], **options: object) -> Detections:
    batch = FrameBatch(torch.from_numpy(picture)[None], np.zeros(1, np.int64), np.zeros(1))
    (found,) = own_detector(**options).detection.detector.detect(batch)
    return found


def test_the_own_detector_keeps_the_contract() -> None:
    frames = [on_a_table(), on_a_table((32, 32, 64, 48)), on_a_table((0, 0, 16, 16), (80, 40, 160, 96))]
    check_detector(own_detector().detection.detector, np.stack(frames))


def test_the_own_detector_boxes_each_thing() -> None:
    found = found_on(on_a_table((16, 32, 48, 64), (80, 8, 96, 16)))
    assert sorted(found.xyxy.tolist()) == [[16, 32, 48, 64], [80, 8, 96, 16]]
    assert found.confidence == pytest.approx([1 - 40 / 140] * 2)


def test_the_own_detector_boxes_things_that_touch_as_one() -> None:
    assert found_on(on_a_table((16, 16, 32, 32), (32, 32, 48, 48))).xyxy.tolist() == [[16, 16, 48, 48]]


def test_the_own_detector_stays_within_a_frame_of_any_size() -> None:
    (box,) = found_on(on_a_table((64, 32, 99, 61), height=61, width=99)).xyxy.tolist()
    assert box == [64, 32, 96, 56]


def test_the_own_detectors_options_come_from_the_config() -> None:
    assert len(found_on(on_a_table((16, 32, 48, 64)), threshold=150)) == 0
