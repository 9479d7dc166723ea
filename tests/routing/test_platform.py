"""Rules on the test server: tasks go where they should, as urgent as they should be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prelabel.assembly.assemble import assemble
from prelabel.cli.commands import run_config
from prelabel.config.load import load_config
from prelabel.run.checks import run_checks
from prelabel.testing.encord_server import AGENT, ANNOTATE, COMPLETE, REVIEW, Status
from tests.encord_fixtures import Platform

pytestmark = [
    pytest.mark.usefixtures("encord_environment"),
    pytest.mark.filterwarnings("ignore:save_label_row is deprecated:DeprecationWarning"),
]

DETECTOR = """
from prelabel import Detections

class ByFrame:
    '''A box on the frames before `until`.'''
    class_names = ("Pedestrian", "Vehicle")

    def __init__(self, until=12):
        self.until = until

    def detect(self, batch):
        box = Detections(xyxy=[[2, 2, 20, 20]], confidence=[0.7], class_id=[0])
        return [box if i < self.until else Detections.empty() for i in batch.frame_indices]
"""
RULES = """
routing:
  - {when: count == 0, pathway: Nothing to label}
  - {when: metadata.camera == 1 and confidence.min > 0.6, pathway: Straight to review}
  - otherwise: Annotate 1
priority: 1 - confidence.mean
"""


def write_config(platform: Platform, folder: Path, rules: str = RULES, until: int = 12) -> Path:
    (folder / "by_frame.py").write_text(DETECTOR)
    config = folder / "config.yaml"
    config.write_text(
        f"source: {{stage: {AGENT}, project_hash: {platform.project.uuid}, output: {folder / 'out'}}}\n"
        f"detector: {{use: by_frame.py:ByFrame, until: {until}}}\nretries: {{wait_seconds: 0}}\n{rules}"
    )
    return config


def test_tasks_go_by_metadata_and_carry_their_priority(platform: Platform, tmp_path: Path) -> None:
    platform.add_clips(2)  # without metadata
    assert run_config(write_config(platform, tmp_path)) == 0
    assert platform.project.titles_at(REVIEW) == ["clip.mp4"]
    assert platform.project.titles_at(ANNOTATE) == ["0.mp4", "1.mp4"]
    assert [task.priority for task in platform.project.tasks_at(ANNOTATE)] == pytest.approx([0.3, 0.3])
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["pathways"] == {"Annotate 1": 2, "Straight to review": 1}
    assert {task["title"]: task["pathway"] for task in report["tasks"]}["clip.mp4"] == "Straight to review"


def test_nothing_found_keeps_its_priority(platform: Platform, tmp_path: Path) -> None:
    assert run_config(write_config(platform, tmp_path, until=0)) == 0
    assert platform.project.titles_at(COMPLETE) == ["clip.mp4"]
    assert platform.project.tasks_at(COMPLETE)[0].priority == 0.5
    assert not [call for call in platform.server.calls if call.operation == "set_priorities"]


def test_a_dry_run_counts_pathways_and_sets_nothing(
    platform: Platform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.add_clips(2)
    assert run_config(write_config(platform, tmp_path), dry_run=True) == 0
    said = capsys.readouterr().err
    assert "Straight to review" in said
    assert "0.mp4, 1.mp4" in said or "1.mp4, 0.mp4" in said  # whichever was fetched first
    assert platform.project.titles_at(AGENT) == ["0.mp4", "1.mp4", "clip.mp4"]
    assert not [call for call in platform.server.calls if call.operation == "set_priorities"]


def test_a_priority_that_is_not_taken_fails_the_task_where_it_is(platform: Platform, tmp_path: Path) -> None:
    platform.server.faults.add("set_priorities", Status(403), times=None)
    config = write_config(platform, tmp_path)
    assert run_config(config) == 1
    assert platform.project.titles_at(AGENT) == ["clip.mp4"]
    platform.server.faults.clear()
    assert run_config(config) == 0
    assert platform.project.titles_at(REVIEW) == ["clip.mp4"]


def test_a_check_shows_the_rules(platform: Platform, tmp_path: Path) -> None:
    path = write_config(platform, tmp_path)
    (check,) = [check for check in run_checks(assemble(load_config(path), tmp_path)) if check.name == "routing"]
    assert check.passed
    assert "1. count == 0 → Nothing to label; 2. " in check.detail
    assert check.detail.endswith("3. otherwise → Annotate 1; priority: 1 - confidence.mean")


def test_a_check_shows_where_tasks_and_labels_go(platform: Platform, tmp_path: Path) -> None:
    path = write_config(platform, tmp_path, "pathway: Annotate 1\non_failure: {pathway: Nothing to label}")
    checks = {check.name: check.detail for check in run_checks(assemble(load_config(path), tmp_path))}
    assert checks["pathway"] == (
        "'Annotate 1', to stage 'Annotate 1'; failed tasks: 'Nothing to label', to stage 'Complete'"
    )
    assert checks["labels"] == f"onto the label rows of project {platform.project.title!r}; labels of people stay"
    dry = {check.name: check.detail for check in run_checks(assemble(load_config(path), tmp_path, dry_run=True))}
    assert dry["labels"].endswith("dry-run: NAME.labels.json, one file per task")


@pytest.mark.parametrize(
    ("rules", "complaint"),
    [
        ("routing: {Vehicle: Anotate 1, otherwise: Annotate 1}", "has no pathway 'Anotate 1'"),
        ("routing: {Vehicle: Annotate 1, otherwise: Anywhere}", "has no pathway 'Anywhere'"),
        ("routing: {Vehicel: Annotate 1, otherwise: Annotate 1}", "did you mean 'Vehicle'?"),
        ("pathway: Annotate 1\npriority: count(Vehicel) / 9", "did you mean 'Vehicle'?"),
    ],
)
def test_what_is_not_there_is_named_before_the_first_task(
    platform: Platform, tmp_path: Path, rules: str, complaint: str
) -> None:
    path = write_config(platform, tmp_path, rules)
    checks = run_checks(assemble(load_config(path), tmp_path))
    assert complaint in "\n".join(check.detail for check in checks if not check.passed)
    with pytest.raises(Exception, match=complaint.replace("?", r"\?")):
        run_config(path)
    assert not platform.server.world.saves
