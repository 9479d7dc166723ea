from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import BaseModel

from prelabel.assembly.detectors import detector_plugin
from prelabel.config.base import PluginSection, Section
from prelabel.config.fingerprints import config_fingerprint, detection_key_hashes, frame_values, values_affecting
from prelabel.config.load import check_config
from prelabel.config.sections import ClassifierSection, Config
from prelabel.plugins.affects import Affects, affects_of
from prelabel.plugins.load import Plugin, load_plugin


class Paid:
    class Options(BaseModel):
        prompt: str = ""
        price: Annotated[float, Affects.NOTHING] = 0.0


def config_of(**sections: object) -> Config:
    return check_config({"source": {"path": "clips"}, "detector": {"weights": "demo"}} | sections, "config.yaml")


def test_every_key_of_every_section_says_what_it_affects() -> None:
    sections = [each for base in (Section, PluginSection) for each in base.__subclasses__()]
    nested = {"source", "reader", "detector", "classifier", "agent", "labels", "tracker", "refine", "sink", "workers"}
    nested |= {"retries", "on_failure", "report", "when", "pathway", "otherwise"}  # the last three: keys of a rule
    silent = [
        f"{section.__name__}.{key}"
        for section in sections
        for key in section.model_fields
        if affects_of(section, key) is None and key not in nested
    ]
    assert silent == []


SAME = [
    {"source": {"path": "clips", "output": "elsewhere"}},
    {"source": {"path": "other", "preview": "clip"}},
    {"reader": {"isolate": "never", "decode_workers": 4}},
    {"detector": {"weights": "demo", "batch_size": 2, "replicas": 3}},
    {"labels": {"if_begun": "skip", "max_row_mb": 1}},
    {"retries": {"attempts": 5}},
    {"report": {"gpu_hour_price": 2.5, "pictures": 0}},
    {"pathway": "Annotate"},
]
OTHER = [
    {"reader": {"stride": 2}},
    {"detector": {"weights": "demo", "conf": 0.4}},
    {"labels": {"unmapped": "error"}},
    {"tracker": {"min_length": 1}},
    {"frames": "warn"},
    {"source": {"path": "clips", "ontology": "o.json"}},
]


@pytest.mark.parametrize("sections", SAME, ids=str)
def test_the_config_fingerprint_ignores_keys_that_change_no_label(sections: dict[str, object]) -> None:
    assert config_fingerprint(config_of(**sections)) == config_fingerprint(config_of())


@pytest.mark.parametrize("sections", OTHER, ids=str)
def test_the_config_fingerprint_changes_with_keys_that_change_labels(sections: dict[str, object]) -> None:
    assert config_fingerprint(config_of(**sections)) != config_fingerprint(config_of())


def test_detection_key_hashes_name_the_keys_that_decide_raw_detections() -> None:
    before = config_of(detector={"use": "ultralytics", "weights": "a.pt"})
    after = config_of(
        detector={"use": "ultralytics", "weights": "a.pt", "imgsz": 320, "replicas": 2, "batch_size": 4},
        reader={"stride": 5, "isolate": "never"},
        labels={"conf": 0.9},
        frames="warn",
    )
    hashes = [detection_key_hashes(config, detector_plugin(config, Path())) for config in (before, after)]
    changed = {key for key in hashes[0] | hashes[1] if hashes[0].get(key) != hashes[1].get(key)}
    assert changed == {"detector.imgsz", "reader.stride", "frames"}


def test_a_plugin_s_own_options_say_what_they_affect() -> None:
    section = ClassifierSection.model_validate({"use": "x", "prompt": "which?", "price": 2.0, "conf": 0.4})
    plugin = Plugin("classifier", "x", Paid)
    assert values_affecting(section, Affects.DETECTIONS, plugin=plugin) == {
        "use": "x",
        "frames_per_video": 8,
        "prompt": "which?",
    }
    assert values_affecting(section, Affects.LABELS, plugin=plugin) == {"conf": 0.4}


@pytest.mark.parametrize(
    "detector",
    [
        {"weights": "yolo11n"},
        {"weights": "yolo11n", "use": "ultralytics"},
        {"weights": "yolo11n", "imgsz": 640, "iou": 0.7, "half": "auto", "classes": None},
    ],
)
def test_a_config_that_names_defaults_has_the_same_values(detector: dict[str, object]) -> None:
    config = config_of(detector=detector)
    values = values_affecting(config.detector, Affects.DETECTIONS, plugin=detector_plugin(config, Path()))
    assert values.pop("use") == "ultralytics"
    assert values.pop("weights") == "yolo11n"
    assert not values.keys() & {"imgsz", "iou", "half", "classes"}


def test_prices_and_pace_of_a_service_ask_it_nothing_again() -> None:
    section = ClassifierSection.model_validate({"use": "openai", "model": "m", "price_in": 1, "workers": 2})
    plugin = load_plugin("classifier", "openai", Path())
    assert values_affecting(section, Affects.DETECTIONS, plugin=plugin).keys() == {"use", "frames_per_video", "model"}


def test_frame_values_hold_the_file_of_a_reader_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("class Mine: ...")
    config = config_of(reader={"use": "mine.py:Mine", "stride": 3, "depth": 7, "stall_seconds": 9})
    values = frame_values(config, tmp_path)
    assert values["reader_sha256"] is not None
    assert values["frames"] == "strict"
    assert values["reader"] == {
        "use": "mine.py:Mine",
        "device": "auto",
        "stride": 3,
        "only_keyframes": False,
        "frame_ranges": [],
        "depth": 7,
    }
