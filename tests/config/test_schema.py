from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from prelabel.config.load import load_configs
from prelabel.config.schema import config_schema
from prelabel.errors import ConfigError

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
FOLDER = {"source": {"path": "clips"}, "detector": {"weights": "yolo11n"}}
ENCORD = {
    "source": {"use": "encord", "project_hash": "x", "stage": "Agent"},
    "detector": {"use": "ultralytics", "weights": "yolo11n", "conf": 0.25, "half": "auto", "device": "cuda:1"},
    "labels": {"classes": {"person": "Pedestrian", "car": None}, "unmapped": "error", "conf": {"Pedestrian": 0.5}},
    "pathway": "Annotate 1",
}
CLASSIFIER = {
    "source": {"use": "encord", "project_hash": "x", "stage": "Agent"},
    "classifier": {"use": "torchvision", "weights": "mobilenet_v2", "conf": 0.5, "frames_per_video": None},
    "labels": {"classification": "Animal", "classes": {"tabby": "Cat"}, "answers": "per_frame"},
    "routing": {"Cat": "Annotate cats", "otherwise": "Other"},
}
STAGES = {
    "source": {"project_hash": "x"},
    "reader": {"stride": 5},
    "stages": [
        {
            "stage": "Sort",
            "classifier": {"use": "torchvision", "weights": "mobilenet_v2"},
            "routing": {"otherwise": "A"},
        },
        {"stage": "Label", "detector": {"weights": "yolo11n"}, "pathway": "Annotate 1"},
    ],
}
GOOD = {
    "stages": STAGES,
    "folder": FOLDER,
    "a function": {"source": {"path": "clips"}, "agent": {"use": "mine.py:handle", "threshold": 3}},
    "a function on Encord, which says itself": {"source": ENCORD["source"], "agent": {"use": "mine.py:handle"}},
    "rules": FOLDER | {"routing": [{"when": "count == 0", "pathway": "A"}, {"otherwise": "B"}], "priority": 0.5},
    "pathways by class": FOLDER | {"routing": {"Cat": "A", "otherwise": "B"}, "priority": "1 - confidence.mean"},
    "demo": {"source": {"use": "demo"}, "detector": {"weights": "demo", "batch_size": 4}},
    "Encord": ENCORD,
    "one's own detector": FOLDER | {"detector": {"use": "mine.py:Mine", "threshold": 3}},
    "one's own reader": FOLDER | {"reader": {"use": "mine.py:Mine", "depth": 3}},
    "torchvision": FOLDER | {"detector": {"use": "torchvision", "weights": "a.pth", "builder": "fcos_resnet50_fpn"}},
    "frame ranges": FOLDER | {"reader": {"stride": 5, "frame_ranges": [[0, 9], [20, 29]]}},
    "a sink": FOLDER | {"sink": {"use": "mine.py:Sink"}, "frames": "warn"},
    "one threshold": FOLDER | {"labels": {"conf": 0.4}},
    "a classifier": CLASSIFIER,
    "masks": FOLDER | {"refine": {"weights": "facebook/sam2.1-hiera-tiny", "objects": ["Pedestrian"]}},
    "one's own masks": FOLDER | {"refine": {"use": "mine.py:Mine", "threshold": 3}},
}
BAD = {
    "a stage of stages": STAGES | {"source": {"project_hash": "x", "stage": "Sort"}},
    "stages of a folder": STAGES | {"source": {"path": "clips"}},
    "no stage of stages": STAGES | {"stages": []},
    "a stage without its name": STAGES | {"stages": [{"detector": {"weights": "yolo11n"}, "pathway": "A"}]},
    "a source of a stage": STAGES | {"stages": [{"stage": "Label", "source": {}, "detector": {"weights": "yolo11n"}}]},
    "a chosen stage without stages": FOLDER | {"stage": "Label"},
    "unknown section": FOLDER | {"detectors": {}},
    "no detector": {"source": {"path": "clips"}},
    "unknown option of a built-in classifier": CLASSIFIER | {"classifier": {"use": "torchvision", "wieghts": "a"}},
    "a function without a name": {"source": {"path": "clips"}, "agent": {"threshold": 3}},
    "detector and function": FOLDER | {"agent": {"use": "mine.py:handle"}},
    "detector and classifier": FOLDER | {"classifier": {"use": "torchvision"}},
    "a classifier with neither pathway nor routing": {k: v for k, v in CLASSIFIER.items() if k != "routing"},
    "rules without otherwise": FOLDER | {"routing": [{"when": "count == 0", "pathway": "A"}]},
    "a rule without a pathway": FOLDER | {"routing": [{"when": "count == 0"}, {"otherwise": "A"}]},
    "a rule of another kind": FOLDER | {"routing": ["count == 0", {"otherwise": "A"}]},
    "routing without otherwise": CLASSIFIER | {"routing": {"Cat": "Annotate cats"}},
    "unknown key of a source": FOLDER | {"source": {"path": "clips", "recursive": True}},
    "unknown source": FOLDER | {"source": {"use": "s3", "path": "clips"}},
    "unknown option of a built-in detector": FOLDER | {"detector": {"use": "ultralytics", "weights": "a", "cnf": 1}},
    "an option that neither built-in has": FOLDER | {"detector": {"weights": "yolo11n", "treshold": 1}},
    "confidence past 1": FOLDER | {"detector": {"use": "ultralytics", "weights": "a", "conf": 25}},
    "masks of a classifier": CLASSIFIER | {"refine": {"weights": "a"}},
    "unknown option of masks": FOLDER | {"refine": {"use": "sam2", "weights": "a", "threshold": 1}},
    "stride of 0": FOLDER | {"reader": {"stride": 0}},
    "no such device": FOLDER | {"reader": {"device": "gpu"}},
    "unknown policy": FOLDER | {"frames": "lenient"},
    "Encord without a pathway": {key: value for key, value in ENCORD.items() if key != "pathway"},
    "Encord without a stage": ENCORD | {"source": {"use": "encord", "project_hash": "x"}},
    "a class that becomes a list": FOLDER | {"labels": {"classes": {"car": ["a"]}}},
}  # fmt: skip

# The loader leaves a plug-in's options to the plug-in.
FOUND_BY_THE_DETECTOR = {
    "unknown option of a built-in classifier",
    "unknown option of a built-in detector",
    "an option that neither built-in has",
    "unknown option of masks",
    "confidence past 1",
}


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return config_schema()


def test_the_published_file_is_what_is_generated(schema: dict[str, Any]) -> None:
    published = json.loads((ROOT / "docs" / "config.schema.json").read_text(encoding="utf-8"))
    assert published == schema, "run: prelabel schema > docs/config.schema.json"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_of_the_repository_is_valid(schema: dict[str, Any], path: Path) -> None:
    Draft202012Validator(schema).validate(yaml.safe_load(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", GOOD)
def test_what_the_loader_takes_is_valid(schema: dict[str, Any], name: str, tmp_path: Path) -> None:
    load_configs(as_file(GOOD[name], tmp_path))
    Draft202012Validator(schema).validate(GOOD[name])


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_right_is_not_valid(schema: dict[str, Any], name: str) -> None:
    assert not Draft202012Validator(schema).is_valid(BAD[name])


@pytest.mark.parametrize("name", sorted(BAD.keys() - FOUND_BY_THE_DETECTOR))
def test_the_loader_refuses_the_same(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        load_configs(as_file(BAD[name], tmp_path))


def test_every_key_of_every_section_is_described(schema: dict[str, Any]) -> None:
    sections = {name: section for name, section in schema["$defs"].items() if "properties" in section}
    silent = [
        f"{name}.{key}"
        for name, section in sections.items()
        for key, described in section["properties"].items()
        if described is not True and "description" not in described and "const" not in described
    ]
    assert silent == []


def as_file(values: Mapping[str, Any], folder: Path) -> Path:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(dict(values)), encoding="utf-8")
    return path
