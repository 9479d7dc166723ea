"""How large label rows are, in the report of a run and on its page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prelabel.labels.row.size import row_num_bytes
from prelabel.reports.run_page import write_run_report
from prelabel.store.report import RunReport
from prelabel.testing.encord_server import AGENT
from tests.encord_fixtures import Platform
from tests.kept import assembly_of, run, write_grey_clip

pytestmark = [
    pytest.mark.filterwarnings("ignore:save_label_row is deprecated:DeprecationWarning"),
]


class Talkative:
    """A sink that returns something else."""

    def write(self, task, info, detections):
        return object()


def test_a_file_s_row_is_as_large_as_it_would_be_sent(tmp_path: Path):
    write_grey_clip(tmp_path / "media" / "a.mp4", 96, 64, 6)
    assembly = assembly_of(tmp_path / "media", tmp_path / "out")
    report = run(assembly)
    row = json.loads((tmp_path / "out" / "a.labels.json").read_text())
    assert report.tasks[0].row_bytes == row_num_bytes(row)
    report.write(tmp_path / "report.json")
    assert RunReport.read(tmp_path / "report.json").tasks[0].row_bytes == row_num_bytes(row)
    write_run_report(assembly, report, tmp_path / "report.html")
    assert f"label row {row_num_bytes(row) / 1000:.0f} kB" in (tmp_path / "report.html").read_text()
    assert run(assembly).tasks[0].row_bytes is None  # nothing was written


@pytest.mark.usefixtures("encord_environment")
def test_a_row_on_the_platform_is_as_large_as_its_request(platform: Platform, tmp_path: Path):
    source = {"use": "encord", "project_hash": platform.project.uuid, "stage": AGENT, "output": str(tmp_path / "out")}
    classes = {"thing": "Pedestrian", "other": "Vehicle"}
    report = run(assembly_of(tmp_path, tmp_path, source=source, pathway="Annotate 1", labels={"classes": classes}))
    (save,) = platform.server.world.saves
    assert report.tasks[0].row_bytes == pytest.approx(len(save.request_body), rel=0.02)


def test_a_sink_of_one_s_own_may_return_what_it_likes(tmp_path: Path):
    write_grey_clip(tmp_path / "media" / "a.mp4", 96, 64, 2)
    report = run(assembly_of(tmp_path / "media", tmp_path / "out", sink={"use": "tests.run.test_row_bytes:Talkative"}))
    report.write(tmp_path / "report.json")
    assert [(task.status, task.row_bytes) for task in report.tasks] == [("done", None)]
