"""What README, docs and docstrings show is what is there, and runs."""

from __future__ import annotations

import doctest
import importlib
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

import prelabel
from docs.make_config_tables import PAGE, fill_tables
from prelabel.assembly.assemble import assemble
from prelabel.config.base import (
    OnFailureSection,
    ReportSection,
    RetriesSection,
    RuleSection,
)
from prelabel.config.load import check_config, load_config
from prelabel.config.sections import (
    AgentSection,
    ClassifierSection,
    Config,
    DetectorSection,
    LabelsSection,
    ReaderSection,
    RefineSection,
    TrackerSection,
)
from prelabel.encord.source import EncordSection
from prelabel.files.demo import DemoSection
from prelabel.files.folder_source import FolderSection
from prelabel.run.checks import prepare
from prelabel.run.runner import run_tasks
from prelabel.runtime.interrupts import StopSignal
from prelabel.runtime.progress import NullProgress
from prelabel.testing import check_detector
from tests.make_media import NUM_FRAMES, RECIPES, write_clip

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WITH_EXAMPLES = sorted(path for path in (ROOT / "prelabel").rglob("*.py") if ">>> " in path.read_text())


def blocks(language: str, page: str = "README.md") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def test_the_documented_detector_runs_and_keeps_the_contract(tmp_path):
    (code,) = [text for text in blocks("python", "docs/extending.md") if "# mine.py" in text]
    (section,) = [yaml.safe_load(text) for text in blocks("yaml", "docs/extending.md") if "mine.py" in text]
    (tmp_path / "mine.py").write_text(code)
    clip = write_clip(tmp_path / "clip.mp4", RECIPES["h264"]).path
    values = {"source": {"path": str(clip), "output": str(tmp_path / "out")}, **section}
    assembly = assemble(check_config(values, "README.md"), tmp_path)
    prepare(assembly)
    (task,) = run_tasks(assembly, NullProgress(), StopSignal()).tasks
    assert task.status == "done"
    assert NUM_FRAMES // 2 < task.instances["spot"] < NUM_FRAMES  # frame 0 shows no bright block
    check_detector(assembly.detection.detector)


def test_the_readme_s_function_runs(tmp_path):
    (code,) = [text for text in blocks("python") if "# my_agent.py" in text]
    (section,) = [yaml.safe_load(text) for text in blocks("yaml") if "my_agent.py" in text]
    (tmp_path / "my_agent.py").write_text(code)
    (tmp_path / "ontology.json").write_text('{"objects": [], "classifications": []}')
    for title in ("night_1.mp4", "day_1.mp4"):
        write_clip(tmp_path / title, RECIPES["h264"])
    source = {"path": str(tmp_path), "output": str(tmp_path / "out"), "ontology": str(tmp_path / "ontology.json")}
    assembly = assemble(check_config({"source": source, **section}, "README.md"), tmp_path)
    prepare(assembly)
    tasks = run_tasks(assembly, NullProgress(), StopSignal()).tasks
    assert [(task.title, task.status, task.pathway) for task in tasks] == [
        ("day_1.mp4", "done", None),
        ("night_1.mp4", "done", "Night team"),
    ]


@pytest.mark.parametrize("stage", ["Pre-Labeling Agent", "Pre-classification"])
def test_the_readme_s_encord_configs_load(tmp_path, monkeypatch, stage):
    monkeypatch.setenv("ENCORD_PROJECT_HASH", "any")
    (text,) = [text for text in blocks("yaml") if f"stage: {stage}" in text]
    (tmp_path / "config.yaml").write_text(text)
    assert load_config(tmp_path / "config.yaml").source.stage == stage


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize(
    "section",
    [
        Config,
        FolderSection,
        EncordSection,
        DemoSection,
        ReaderSection,
        RetriesSection,
        DetectorSection,
        AgentSection,
        ClassifierSection,
        TrackerSection,
        RefineSection,
        LabelsSection,
        OnFailureSection,
        ReportSection,
        RuleSection,
    ],
)
def test_every_key_of_the_config_is_explained(section: type[BaseModel]):
    text = (ROOT / "docs" / "config.md").read_text()
    for key in section.model_fields:
        assert f"`{key}" in text, key


def test_the_tables_of_the_config_page_are_made_from_its_fields() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert fill_tables(page) == page, "run: python docs/make_config_tables.py"


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_examples_in_docstrings_hold(path: Path):
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    assert doctest.testmod(module).failed == 0


def test_the_install_page_explains_every_extra():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    page = (ROOT / "docs/install.md").read_text()
    assert [extra for extra in extras if f"\n| `{extra}` | " not in page] == []
    assert set(re.findall(r"[a-z]+", extras["all"][0].partition("[")[2])) == {*extras} - {"all"}


def test_pyproject_and_package_tell_one_version():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == prelabel.__version__
