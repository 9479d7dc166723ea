"""Names in a config are read as they were written, also where YAML reads a number, a date or a truth value."""

from __future__ import annotations

from pathlib import Path

import pytest

from prelabel.config.load import load_config, load_configs
from prelabel.config.sections import Config
from prelabel.errors import ConfigError
from prelabel.labels.filter import FilterRules

START = "source: {path: clips}\n"
DETECTOR = START + "detector: {use: 'mine.py:Mine'}\n"
ODD = ["Yes", "no", "On", "off", "01234567", "0x1F", "1_000", "1e5", "1.50", "2024-01-31", "12:30", "7", ".5", "NO"]


def load(text: str, folder: Path, *settings: str) -> Config:
    path = folder / "config.yaml"
    path.write_text(text)
    return load_config(path, settings)


@pytest.mark.parametrize("name", ODD)
def test_classes_and_what_they_become_are_read_as_written(name: str, tmp_path: Path) -> None:
    labels = load(DETECTOR + f"labels: {{classes: {{{name}: thing, car: {name}}}}}\n", tmp_path).labels
    assert labels.classes == {name: "thing", "car": name}


@pytest.mark.parametrize("name", ODD)
def test_they_are_read_as_written_on_the_command_line_too(name: str, tmp_path: Path) -> None:
    settings = [f"labels.classes={{thing: {name}}}", f"labels.conf={{{name}: 0.5}}", f"labels.classification={name}"]
    labels = load(DETECTOR, tmp_path, *settings, f"labels.keypoints={{knee: {name}}}").labels
    assert (labels.classes, labels.conf, labels.keypoints) == ({"thing": name}, {name: 0.5}, {"knee": name})
    assert labels.classification == name
    assert labels.rules == FilterRules(conf={name: 0.5})


@pytest.mark.parametrize("name", ODD)
def test_pathways_and_routing_are_read_as_written(name: str, tmp_path: Path) -> None:
    config = load(DETECTOR + f"routing: {{{name}: {name}, otherwise: {name}}}\n", tmp_path)
    first, last = config.routing
    assert (first.when, first.pathway, last.otherwise) == (f"has({name!r})", name, name)
    listed = load(DETECTOR + f"routing: [{{when: count > 1, pathway: {name}}}, {{otherwise: {name}}}]\n", tmp_path)
    assert [rule.pathway or rule.otherwise for rule in listed.routing] == [name, name]


@pytest.mark.parametrize("name", ODD)
def test_stages_and_projects_are_read_as_written(name: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        f"source: {{project_hash: {name}}}\ndetector: {{use: 'mine.py:Mine'}}\n"
        f"stages: [{{stage: {name}, pathway: {name}}}, {{stage: Other, pathway: A}}]\n"
    )
    first, _ = load_configs(path)
    assert (first.source.project_hash, first.source.stage, first.pathway) == (name, name, name)
    assert [config.source.stage for config in load_configs(path, [f"stage={name}"])] == [name]


def test_the_classes_of_a_detector_are_names_or_ids(tmp_path: Path) -> None:
    config = load(START + "detector: {use: 'mine.py:Mine', classes: [2, No, 007, car]}\n", tmp_path)
    assert config.detector is not None
    assert config.detector.options["classes"] == [2, "No", "007", "car"]


@pytest.mark.parametrize("name", ["true", "False", "null", "~"])
@pytest.mark.parametrize(
    "text", ["labels: {{classes: {{{}: a}}}}", "labels: {{conf: {{{}: 0.5}}}}", "routing: {{{}: A}}"]
)
def test_names_whose_text_is_not_known_are_to_be_quoted(name: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"quote it"):
        load(DETECTOR + text.format(name), tmp_path)


def test_a_target_that_is_true_is_to_be_quoted_and_null_ignores_the_class(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="quote it"):
        load(DETECTOR + "labels: {classes: {thing: true}}", tmp_path)
    assert load(DETECTOR + "labels: {classes: {thing: null}}", tmp_path).labels.classes == {"thing": None}


def test_values_that_are_no_names_stay_numbers_and_truth_values(tmp_path: Path) -> None:
    text = "source: {path: clips, output: out}\ndetector: {use: 'mine.py:Mine', half: yes, batch_size: 0x10}\n"
    config = load(text + "reader: {stride: 010, only_keyframes: on, stall_seconds: 1.50}\n", tmp_path)
    assert (config.reader.stride, config.reader.only_keyframes, config.reader.stall_seconds) == (8, True, 1.5)
    assert config.detector is not None
    assert (config.detector.batch_size, config.detector.options["half"]) == (16, True)


def test_an_error_shows_a_number_as_it_was_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"detector\.use: got 01234567, expected text; quote it"):
        load(START + "detector: {use: 01234567}", tmp_path)


@pytest.mark.parametrize("device", ["0", "'1'"])
def test_a_device_may_be_a_number_as_in_ultralytics(device: str, tmp_path: Path) -> None:
    config = load(
        START + f"detector: {{use: 'mine.py:Mine', device: {device}}}\nreader: {{device: {device}}}", tmp_path
    )
    expected = f"cuda:{device.strip(chr(39))}"
    assert config.detector is not None
    assert (config.detector.options["device"], config.reader.device) == (expected, expected)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("rtsp://cam/1", "is a live stream: record it first: ffmpeg -i rtsp://cam/1"),
        ("s3a://host/a.mp4", "s3a://host is an address of an unknown kind, expected a path or one of s3://, gs://"),
    ],
)
def test_an_address_is_no_path(path: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=reason):
        load(f"source: {{path: '{path}'}}\ndetector: {{use: 'mine.py:Mine'}}\n", tmp_path)
