"""What a run leaves beside its label rows, where writing that goes wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prelabel.cli.commands import run_config
from prelabel.run.checks import prepare
from prelabel.run.outputs import complete
from prelabel.runtime.progress import NullProgress
from tests.kept import assembly_of, run, write_grey_clip


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    write_grey_clip(tmp_path / "clips" / "a.mp4", 96, 64, 3)
    return tmp_path / "clips"


def test_detections_damaged_meanwhile_cost_the_score_and_not_the_report(clips, tmp_path):
    truth = tmp_path / "truth.json"
    truth.write_text('{"images": [], "annotations": [], "categories": []}')
    source = {"path": str(clips), "output": str(tmp_path / "out"), "truth": str(truth)}
    assembly = assembly_of(clips, tmp_path / "out", source=source)
    prepare(assembly)
    report = run(assembly)
    damaged = tmp_path / "out" / "a.detections.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-50])
    finished = complete(assembly, report, NullProgress(), page=True)
    kept = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [task["status"] for task in kept["tasks"]] == ["done"]
    assert kept["unwritten"].startswith(f"{tmp_path / 'out' / 'coco.json'}: {damaged}")
    assert (finished.score, finished.warnings) == (None, ())  # no score of a file that an earlier run wrote
    assert not any(output.endswith("coco.json") for output in finished.outputs)
    assert "not all written" in (tmp_path / "out" / "report.html").read_text()


def test_a_disk_that_refuses_is_said_and_makes_the_exit_code(clips, tmp_path, capfd):
    values = {
        "source": {"path": str(clips), "output": str(tmp_path / "out")},
        "detector": {"use": "tests.kept:BoxDetector"},
    }
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(values))
    (tmp_path / "out" / "coco.json").mkdir(parents=True)
    assert run_config(config) == 1
    assert "not written" in (said := capfd.readouterr().err)
    assert "IsADirectoryError" in said
    assert [task["status"] for task in json.loads((tmp_path / "out" / "report.json").read_text())["tasks"]] == ["done"]
    (tmp_path / "out" / "coco.json").rmdir()
    assert run_config(config) == 0
    assert json.loads((tmp_path / "out" / "report.json").read_text())["unwritten"] == ""
