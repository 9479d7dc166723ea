"""YAML that is more than it looks."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from prelabel.config.load import load_config
from prelabel.errors import ConfigError
from prelabel.runtime.yaml_files import MAX_BYTES, parse_yaml

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
MERGES = "m0: &m0 {a: 1, b: 2}\n" + "".join(
    f"m{n}: &m{n} {{k{n}: 1, <<: [{', '.join([f'*m{n - 1}'] * 9)}]}}\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (LAUGHS, "unfold to more than 100000 values"),
        (MERGES, "merges too many keys"),
        ("a: &a [*a]", "unfold to more than 100000 values"),
        ("[" * 5000, "nested too deeply"),
        ("a: {b: 1, b: 2}", "the key 'b' occurs twice"),
        ("? [a, b]\n: 1\n", "unhashable key"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
    ],
)
def test_text_that_means_harm_is_refused_at_once(text: str, complaint: str):
    began = time.process_time()
    with pytest.raises(ValueError, match=complaint):
        parse_yaml(text)
    assert time.process_time() - began < 5


def test_anchors_and_merges_may_be_used():
    text = "base: &base {use: pyav, device: cpu}\nreader: {<<: *base, stride: 2}\nagain: *base\n"
    assert parse_yaml(text)["reader"] == {"use": "pyav", "device": "cpu", "stride": 2}


def test_config_that_unfolds_without_end_is_a_line(tmp_path: Path):
    path = tmp_path / "config.yaml"
    path.write_text(LAUGHS)
    with pytest.raises(ConfigError, match=r"config\.yaml: is not YAML: its aliases unfold to more than"):
        load_config(path)


def test_large_file_given_as_config_is_not_read_whole(tmp_path: Path):
    path = tmp_path / "weights.pt"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES * 1000)
    with pytest.raises(ConfigError, match=r"weights\.pt: is larger than 2 MB, expected a small YAML file"):
        load_config(path)


def test_setting_is_read_in_the_same_way(tmp_path: Path):
    path = tmp_path / "config.yaml"
    path.write_text("source: {path: .}\ndetector: {weights: demo}\n")
    with pytest.raises(ConfigError, match=r"--set labels=.*: the value is not YAML: the key 'a' occurs twice"):
        load_config(path, ["labels={a: 1, a: 2}"])
