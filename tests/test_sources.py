"""A source of a user, in one file: it runs, its stored detections are labelled again and exported, like any other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prelabel import Detections, FrameBatch
from prelabel.assembly.assemble import assemble, assemble_stored, assemble_without_detector
from prelabel.config.load import check_config, load_config
from prelabel.config.sections import Config
from prelabel.data.ontology import Ontology
from prelabel.errors import ConfigError
from prelabel.export.export import export_run
from prelabel.run.checks import run_checks
from tests.kept import write_grey_clip
from tests.running import run_whole
from tests.test_docs import blocks

(SOURCE,) = [text for text in blocks("python", "docs/extending.md") if "# csv_source.py" in text]


class OneBox:
    class_names = ("thing",)

    def detect(self, batch: FrameBatch) -> list[Detections]:
        return [Detections([(2, 2, 20, 20)], [0.9], [0]) for _ in batch.frame_indices]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "csv_source.py").write_text(SOURCE)
    write_grey_clip(tmp_path / "a.mp4", 64, 48, 3)
    (tmp_path / "clips.csv").write_text(f"first,{tmp_path / 'a.mp4'}\nsecond,{tmp_path / 'missing.mp4'}\n")
    path = tmp_path / "config.yaml"
    path.write_text(
        f"source: {{use: 'csv_source.py:CsvSource', list: '{tmp_path / 'clips.csv'}', output: '{tmp_path / 'out'}'}}\n"
        "detector: {use: 'tests.test_sources:OneBox'}\npathway: next\nretries: {attempts: 1}\n"
    )
    return load_config(path)


def test_a_source_of_three_methods_runs(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assembly = assemble(config, tmp_path)
    assert next((check.name, check.detail) for check in run_checks(assembly)) == ("tasks", "CsvSource")
    report = run_whole(assembly)
    assert {task.title: task.status for task in report.tasks} == {"first": "done", "second": "failed"}
    said = capsys.readouterr().err
    assert "first takes next\n" in said
    assert "second failed: " in said
    assert len(json.loads((tmp_path / "out" / "coco.json").read_text())["annotations"]) == 3


def test_its_stored_detections_are_labelled_again_and_exported(config: Config, tmp_path: Path) -> None:
    run_whole(assemble(config, tmp_path))
    labels = {"labels": config.labels.model_copy(update={"instances": "tracks"})}
    again = assemble_stored(config.model_copy(update=labels), tmp_path)
    report = run_whole(again)
    assert [(task.title, task.status, task.instances) for task in report.tasks] == [("first", "done", {"thing": 1})]
    export_run(assemble_without_detector(config, tmp_path), "coco", tmp_path / "exported")
    assert len(json.loads((tmp_path / "exported" / "coco.json").read_text())["annotations"]) == 3


def test_its_section_may_name_an_ontology(config: Config, tmp_path: Path) -> None:
    ontology = Ontology.from_classes(["thing", "other"])
    (tmp_path / "ontology.json").write_text(json.dumps({"title": "Things", **ontology.structure}))
    source = config.source.model_copy(update={"ontology": tmp_path / "ontology.json"})
    assembly = assemble(config.model_copy(update={"source": source}), tmp_path)
    assert [entry.name for entry in assembly.ontology.objects] == ["thing", "other"]


def test_an_option_that_it_lacks_is_named(tmp_path: Path) -> None:
    (tmp_path / "csv_source.py").write_text(SOURCE)
    section = {"use": "csv_source.py:CsvSource", "lsit": "clips.csv"}
    config = check_config({"source": section, "detector": {"weights": "demo"}}, "test", tmp_path)
    with pytest.raises(ConfigError, match=r"source\.lsit: .* has no such option: did you mean 'list'"):
        assemble(config, tmp_path)


def test_a_class_without_the_three_methods_is_refused(tmp_path: Path) -> None:
    config = check_config({"source": {"use": "tests.test_sources:OneBox"}, "detector": {"weights": "demo"}}, "test")
    with pytest.raises(ConfigError, match=r"source\.use: 'tests\.test_sources:OneBox' lacks `tasks\(\)`"):
        assemble(config, tmp_path)
