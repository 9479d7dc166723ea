from __future__ import annotations

import sys

import pytest

from prelabel.errors import ConfigError, PluginError
from prelabel.plugins import installed_names, load_plugin

MINE = """
from pydantic import BaseModel, ConfigDict, Field

class Plain:
    class_names = ("person",)
    def __init__(self, conf: float = 0.5, *, size: int): self.conf, self.size = conf, size

class Checked:
    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")
        conf: float = Field(0.5, le=1)
    def __init__(self, conf: float = 0.1): self.conf = conf

class Raises:
    def __init__(self): raise RuntimeError("no such camera")

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


def test_a_module_on_the_path_is_loaded():
    half = load_plugin("detector", "fractions:Fraction", None).build(options={"numerator": 1, "denominator": 2})
    assert half == 0.5


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
def test_what_cannot_be_loaded_is_named_with_the_next_step(folder, use, complaint):
    with pytest.raises(PluginError, match=complaint):
        load_plugin("detector", use, folder)


def test_a_file_that_raises_is_named_with_its_error(folder):
    (folder / "bad.py").write_text("import nothing_of_that_name\n")
    with pytest.raises(PluginError, match=r"bad\.py: ModuleNotFoundError"):
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
