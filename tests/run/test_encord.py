"""The whole way on the test server: tasks at an agent stage in, label rows and moves out."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from prelabel.assembly.assemble import assemble
from prelabel.cli.commands import run_config
from prelabel.config.load import check_config
from prelabel.encord.source import EncordSource
from prelabel.errors import AccountError
from prelabel.plugins.protocols import Task
from prelabel.run.runner import Run
from prelabel.store.ledger import LEDGER, Ledger
from prelabel.store.report import RunReport
from prelabel.testing.encord_server import AGENT, ANNOTATE, REVIEW, LostAnswer, MalformedJson, Status, Truncated
from tests.encord_fixtures import NUM_FRAMES, Platform
from tests.running import run_whole

pytestmark = [
    pytest.mark.usefixtures("encord_environment"),
    pytest.mark.filterwarnings("ignore:save_label_row is deprecated:DeprecationWarning"),
]

DETECTOR = """
from prelabel import Detections

class Alternating:
    class_names = ("Pedestrian", "Vehicle")

    def detect(self, batch):
        return [Detections(xyxy=[[2, 2, 20, 20]], confidence=[0.7], class_id=[i % 2]) for i in batch.frame_indices]
"""


def run(platform: Platform, folder: Path, on_failure: dict[str, object] | None = None, **source: object) -> RunReport:
    (folder / "mine.py").write_text(DETECTOR)
    values = {
        "source": {
            "use": "encord",
            "project_hash": platform.project.uuid,
            "stage": AGENT,
            "output": folder / "out",
            **source,
        },
        "detector": {"use": "mine.py:Alternating"},
        "pathway": "Annotate 1",
        "retries": {"wait_seconds": 0},
        "on_failure": on_failure or {},
    }
    return run_whole(assemble(check_config(values, "test.yaml"), folder))


def label_counts(platform: Platform) -> list[int]:
    return [len(row.objects()) for row in platform.project.rows.values()]


def test_all_tasks_are_labelled_and_moved(platform: Platform, tmp_path: Path) -> None:
    platform.add_clips(5)
    report = run(platform, tmp_path)
    assert [task.status for task in report.tasks] == ["done"] * 6
    assert label_counts(platform) == [NUM_FRAMES] * 6
    assert len(platform.project.tasks_at(ANNOTATE)) == len(platform.server.world.moves) == 6
    assert [left.name for left in (tmp_path / "out" / ".prelabel" / "cache").iterdir()] == [".lock"]


def test_a_run_for_which_nothing_waits_leaves_the_report_of_the_one_before(platform: Platform, tmp_path: Path) -> None:
    assert [len(run(platform, tmp_path).tasks) for _ in range(2)] == [1, 0]
    assert len(json.loads((tmp_path / "out" / "report.json").read_text())["tasks"]) == 1


def test_disk_for_one_video_is_enough_for_all(platform: Platform, tmp_path: Path) -> None:
    platform.add_clips(3)
    report = run(platform, tmp_path, cache_gb=platform.clip.item.file_size / 1e9)
    assert [task.status for task in report.tasks] == ["done"] * 4


def test_passing_faults_change_nothing(platform: Platform, tmp_path: Path) -> None:
    platform.add_clips(5)
    faults = platform.server.faults
    faults.add("download", Truncated(700), times=2)
    faults.add("create_label_rows", LostAnswer(carried_out=True), skip=1)
    faults.add("save_label_rows", MalformedJson(), skip=2)
    faults.add("act_on_tasks", LostAnswer(carried_out=True), skip=3)
    faults.add("get_item", Status(503), skip=1)
    report = run(platform, tmp_path)
    assert [(task.status, task.reason) for task in report.tasks] == [("done", "")] * 6
    assert label_counts(platform) == [NUM_FRAMES] * 6
    assert len(platform.project.tasks_at(ANNOTATE)) == len(platform.server.world.moves) == 6


def test_failed_task_costs_only_itself(platform: Platform, tmp_path: Path) -> None:
    platform.add_clips(2)
    add_broken(platform, tmp_path)
    report = run(platform, tmp_path)
    assert sorted((task.title, task.status) for task in report.tasks) == [
        ("0.mp4", "done"),
        ("1.mp4", "done"),
        ("broken.mp4", "failed"),
        ("clip.mp4", "done"),
    ]
    assert platform.project.titles_at(AGENT) == ["broken.mp4"]


def add_broken(platform: Platform, folder: Path) -> None:
    (folder / "broken.mp4").write_bytes(b"no video")
    world = platform.server.world
    world.add_task(
        platform.project.stage(AGENT), world.add_video(folder / "broken.mp4", facts=platform.clip.item.facts)
    )


def test_failed_task_goes_down_a_pathway_of_its_own_with_an_issue_on_it(platform: Platform, tmp_path: Path) -> None:
    add_broken(platform, tmp_path)
    report = run(platform, tmp_path, {"pathway": "Straight to review", "issue": True})
    assert [task.title for task in report.failed] == ["broken.mp4"]
    assert platform.project.titles_at(REVIEW) == ["broken.mp4"]
    (issue,) = platform.project.issues
    assert issue.comment.startswith("prelabel could not label this: ")
    assert report.failed[0].reason in issue.comment


def test_what_cannot_be_done_with_a_failed_task_is_a_warning(platform: Platform, tmp_path: Path) -> None:
    add_broken(platform, tmp_path)
    platform.server.faults.add("add_issues", Status(403), times=None)
    report = run(platform, tmp_path, {"issue": True})
    assert [(task.title, task.status) for task in report.tasks] == [("clip.mp4", "done"), ("broken.mp4", "failed")]
    assert any("broken.mp4: opening an issue on it" in warning for warning in report.warnings)


def test_key_that_is_revoked_under_way_ends_the_run_with_the_reason(platform: Platform, tmp_path: Path) -> None:
    platform.add_clips(3)

    class Revoke:
        def __call__(self, carry_out, stopping):
            answer = carry_out()
            platform.server.users.by_key.clear()
            return answer

    platform.server.faults.add("act_on_tasks", Revoke())
    report = run(platform, tmp_path)
    assert "does not know this key" in report.aborted
    assert len(platform.server.world.moves) == 1


def test_a_run_that_ends_reports_the_tasks_that_are_being_saved(
    platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform.add_clips(3)
    monkeypatch.setattr(Run, "_num_savers", 2)
    together = threading.Barrier(2, timeout=120)

    class MoveOneAndRevoke:
        def __call__(self, carry_out, stopping):
            if together.wait() == 0:
                answer = carry_out()
                together.wait()
                return answer
            together.wait()
            platform.server.users.by_key.clear()
            return carry_out()

    platform.server.faults.add("act_on_tasks", MoveOneAndRevoke(), times=2)
    report = run(platform, tmp_path)
    assert "does not know this key" in report.aborted
    assert [task.status for task in report.tasks] == ["done"]
    assert len(platform.server.world.moves) == 1


def test_a_list_that_ends_with_an_error_loses_no_saved_task(
    platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "_num_savers", 2)
    list_all, is_moving = EncordSource.tasks, threading.Event()

    class NoteMove:
        def __call__(self, carry_out, stopping):
            is_moving.set()
            return carry_out()

    def list_one_page(source: EncordSource) -> Iterator[Task]:
        yield from list_all(source)
        assert is_moving.wait(120)
        raise AccountError("the next page cannot be read")

    platform.server.faults.add("act_on_tasks", NoteMove())
    monkeypatch.setattr(EncordSource, "tasks", list_one_page)
    report = run(platform, tmp_path, fetch_workers=1)
    assert report.aborted == "the next page cannot be read"
    assert [task.status for task in report.tasks] == ["done"]


def test_project_that_is_paused_under_way_ends_the_run_and_sets_nothing_aside(
    platform: Platform, tmp_path: Path
) -> None:
    platform.add_clips(3)

    class Pause:
        def __call__(self, carry_out, stopping):
            platform.project.status = "paused"
            return Status(400, message="the project is paused")(carry_out, stopping)

    platform.server.faults.add("act_on_tasks", Pause(), skip=1)
    report = run(platform, tmp_path)
    assert "is paused: resume it" in report.aborted
    assert [task.status for task in report.tasks] == ["done"]
    with closing(Ledger(tmp_path / "out" / LEDGER)) as ledger:
        assert not [entry for entry in ledger.entries() if entry.step == "failed"]
    platform.project.status = "inProgress"
    assert [task.status for task in run(platform, tmp_path).tasks] == ["done"] * 3
    assert label_counts(platform) == [NUM_FRAMES] * 4


def test_ontology_that_loses_a_class_under_way_ends_the_run_and_names_it(platform: Platform, tmp_path: Path) -> None:
    platform.add_clips(2)

    class Remove:
        def __call__(self, carry_out, stopping):
            objects = platform.project.ontology.editor["objects"]
            objects[:] = [entry for entry in objects if entry["name"] != "Vehicle"]
            for remembered in ("features", "shapes"):
                vars(platform.project.ontology).pop(remembered, None)
            return carry_out()

    platform.server.faults.add("save_label_rows", Remove(), skip=1)
    report = run(platform, tmp_path)
    assert "lacks Vehicle now: start the run again" in report.aborted
    assert [task.status for task in report.tasks] == ["done"]


def test_run_whose_stage_cannot_be_listed_is_exit_2(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(DETECTOR)
    config = tmp_path / "config.yaml"
    config.write_text(
        f"source: {{stage: {AGENT}, project_hash: {platform.project.uuid}, output: {tmp_path / 'out'}}}\n"
        "detector: {use: mine.py:Alternating}\npathway: Annotate 1\n"
    )
    platform.server.faults.add("list_tasks", Status(403), times=None)
    assert run_config(config) == 2


def two_clips(platform: Platform, folder: Path) -> Path:
    """Adds a clip to the platform's, and returns a config for both."""
    platform.add_clips(1)
    (folder / "mine.py").write_text(DETECTOR)
    config = folder / "config.yaml"
    config.write_text(
        f"source: {{stage: {AGENT}, project_hash: {platform.project.uuid}, output: {folder / 'out'}}}\n"
        "detector: {use: mine.py:Alternating}\npathway: Annotate 1\n"
    )
    return config


def test_dry_run_asks_the_platform_for_nothing_that_changes_it(platform: Platform, tmp_path: Path) -> None:
    assert run_config(two_clips(platform, tmp_path), dry_run=True) == 0
    asked = {call.operation for call in platform.server.calls}
    assert asked <= {"get_project", "get_ontology", "list_tasks", "list_label_rows", "get_item", "download"}
    assert len(list((tmp_path / "out" / "dry-run").glob("*.labels.json"))) == 2
    assert not list((tmp_path / "out").rglob("*.mp4"))


def test_the_run_after_a_dry_run_fetches_and_detects_nothing_again(platform: Platform, tmp_path: Path) -> None:
    config = two_clips(platform, tmp_path)
    assert (run_config(config, dry_run=True), run_config(config)) == (0, 0)
    tried, done = (json.loads((tmp_path / "out" / place / "report.json").read_text()) for place in ("dry-run", ""))
    assert [list(task["seconds"]) for task in done["tasks"]] == [["save"]] * 2
    assert done["instances"] == tried["instances"]
