from __future__ import annotations

import sys

import pytest

from prelabel.errors import ConfigError, PluginError
from prelabel.plugins.load import installed_names, load_plugin

MINE = """
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

class Plain:
    class_names = ("person",)
    def __init__(self, conf: float = 0.5, *, size: int): self.conf, self.size = conf, size

class Checked:
    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")
        conf: float = Field(0.5, le=1)
        engine: Literal["auto"] | Literal["torch", "onnx"] = "auto"
        half: bool | Literal["auto"] = "auto"
    def __init__(self, conf: float = 0.1): self.conf = conf

class Raises:
    def __init__(self): raise RuntimeError("no such camera")

class Annotated:
    def __init__(self, size: "int", names: tuple[str, ...] = (), limit: float = None): self.got = size, names, limit

class Unresolved:
    def __init__(self, size: "NotThere"): self.size = size

number = 3
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


def test_a_file_beside_the_config_is_loaded_and_called_with_its_options(folder):
    plugin = load_plugin("detector", "mine.py:Plain", folder)
    built = plugin.build(options={"size": 3})
    assert (built.conf, built.size) == (0.5, 3)
    assert len(plugin.source_sha256) == 64


def test_a_changed_file_is_another_plugin(folder):
    before = load_plugin("detector", "mine.py:Plain", folder).source_sha256
    (folder / "mine.py").write_text(MINE + "# changed\n")
    assert load_plugin("detector", "mine.py:Plain", folder).source_sha256 != before


def test_a_module_on_the_path_is_loaded(tmp_path):
    half = load_plugin("detector", "fractions:Fraction", tmp_path).build(options={"numerator": 1, "denominator": 2})
    assert half == 0.5


@pytest.mark.parametrize("place", ["config", "cwd"])
def test_a_module_beside_the_config_or_in_the_working_directory_is_loaded(tmp_path, monkeypatch, place):
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("config", "cwd"):
        (tmp_path / name).mkdir()
    (tmp_path / place / f"parts_in_{place}.py").write_text(MINE)
    monkeypatch.chdir(tmp_path / "cwd")
    plugin = load_plugin("detector", f"parts_in_{place}:Plain", tmp_path / "config")
    assert plugin.build(options={"size": 3}).size == 3


def test_a_missing_import_of_a_module_differs_from_a_missing_module(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "needs_more.py").write_text("import nowhere_at_all")
    with pytest.raises(PluginError, match="importing 'needs_more' raised ModuleNotFoundError: No module"):
        load_plugin("detector", "needs_more:Mine", tmp_path)


def test_options_go_through_the_nested_model_and_only_those_given_are_passed(folder):
    plugin = load_plugin("detector", "mine.py:Checked", folder)
    assert plugin.build(options={"conf": "0.25"}).conf == 0.25
    assert plugin.build(options={}).conf == 0.1
    with pytest.raises(ConfigError, match=r"detector\.conf: got 2, expected 1 or less"):
        plugin.build(options={"conf": 2})


@pytest.mark.parametrize("use", ["mine.py:Plain", "mine.py:Checked"])
def test_an_unknown_option_names_the_nearest_known_one(folder, use):
    with pytest.raises(ConfigError, match=r"detector\.cnof: .*did you mean 'conf'"):
        load_plugin("detector", use, folder).build(options={"cnof": 1, "size": 2})


def test_a_missing_option_is_named(folder):
    with pytest.raises(ConfigError, match="needs 'size'"):
        load_plugin("detector", "mine.py:Plain", folder).build(options={})


def test_options_are_of_the_kind_that_the_signature_says(folder):
    plugin = load_plugin("detector", "mine.py:Annotated", folder)
    assert plugin.build(options={"size": 3, "names": ["a"], "limit": None}).got == (3, ("a",), None)
    with pytest.raises(ConfigError, match=r"detector\.size: got 'high', expected an integer"):
        plugin.build(options={"size": "high"})


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("engine", r"detector\.engine: got 'maybe', expected 'auto' or 'torch' or 'onnx'"),
        ("half", r"detector\.half: got 'maybe', expected true or false or 'auto'"),
    ],
)
def test_all_values_of_an_option_with_several_types_are_named(folder, option, complaint):
    with pytest.raises(ConfigError, match=complaint):
        load_plugin("detector", "mine.py:Checked", folder).build(options={option: "maybe"})


def test_an_annotation_that_is_not_there_at_run_time_checks_nothing(folder):
    assert load_plugin("detector", "mine.py:Unresolved", folder).build(options={"size": "high"}).size == "high"


@pytest.mark.parametrize(
    ("names", "got"),
    [({0: "person"}, "dict"), ("person", "'person'"), ((), "none"), ([1], r"\[1\]"), (None, "NoneType")],
)
def test_class_names_are_a_sequence_of_text(folder, names, got):
    with pytest.raises(ConfigError, match=f"detector.use: 'mine.py:Plain': class_names: got {got}, expected"):
        load_plugin("detector", "mine.py:Plain", folder).check_class_names(names)


@pytest.mark.parametrize(
    ("use", "complaint"),
    [
        ("mine.py:Plian", "did you mean 'Plain'"),
        ("mine.py:number", "is a int, expected a class"),
        ("yours.py:Plain", r"there is no file .*yours\.py"),
        ("no_such_module:Plain", "No module named"),
        ("torchvison", "did you mean 'torchvision'"),
    ],
)
def test_a_plug_in_that_cannot_be_loaded_is_named_with_the_next_step(folder, use, complaint):
    with pytest.raises(PluginError, match=complaint):
        load_plugin("detector", use, folder)


def test_a_file_that_raises_is_named_with_its_error(folder):
    (folder / "bad.py").write_text("import nothing_of_that_name\n")
    with pytest.raises(PluginError, match=r"bad\.py raised ModuleNotFoundError"):
        load_plugin("detector", "bad.py:X", folder)


def test_a_factory_that_raises_is_named_with_its_error(folder):
    with pytest.raises(PluginError, match="RuntimeError: no such camera"):
        load_plugin("detector", "mine.py:Raises", folder).build(options={})


def test_built_ins_come_through_the_same_door():
    assert {"torchvision", "ultralytics"} <= set(installed_names("detector"))
    assert {"pyav", "decord", "torchcodec"} <= set(installed_names("reader"))


def test_a_file_that_several_sections_name_is_run_once(tmp_path):
    (tmp_path / "both.py").write_text("class Reads: ...\n\n\nclass Finds: ...\n")
    reads = load_plugin("reader", "both.py:Reads", tmp_path).factory
    finds = load_plugin("detector", "both.py:Finds", tmp_path).factory
    assert sys.modules[reads.__module__] is sys.modules[finds.__module__]
    assert load_plugin("reader", "both.py:Reads", tmp_path).factory is reads
