"""Runs from and to a bucket: what arrives there, what people changed there, what is refused before the first task."""

from __future__ import annotations

import json
import pickle
import time
from pathlib import Path
from socket import gethostname

import orjson
import pytest

from prelabel.assembly.assemble import assemble
from prelabel.cli.commands import check_config_file, evaluate_labels, relabel_kept, run_config, show_status
from prelabel.config.load import check_config, load_config
from prelabel.errors import AccountError, ConfigError, FetchError, MachineError
from prelabel.run.work import Work
from tests.bucket_server import BucketServer, fail
from tests.kept import write_grey_clip
from tests.run.conftest import MakeActor


@pytest.fixture
def config(s3: BucketServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config with two clips in a bucket, and an output there."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "day 2/b"):
        clip = tmp_path / f"{name}.mp4"
        write_grey_clip(clip, 96, 64, 3)
        s3.put(f"clips/{name}.mp4", clip.read_bytes())
        clip.unlink()
    values = {
        "source": {"path": "s3://videos/clips/**/*.mp4", "output": "s3://videos/labels"},
        "detector": {"use": "tests.kept:BoxDetector"},
        "reader": {"isolate": "never"},
        "retries": {"attempts": 1},
    }
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(values))
    return path


def written(s3: BucketServer) -> list[str]:
    return [key.removeprefix("labels/") for key in s3.list_keys() if key.startswith("labels/")]


def row_in(s3: BucketServer, name: str = "a") -> dict:
    return json.loads(s3.get(f"labels/{name}.labels.json"))


def report() -> dict:
    return json.loads(Path("out/s3/videos/labels/report.json").read_text())


@pytest.mark.slow
def test_the_files_for_people_go_to_the_bucket(config: Path, s3: BucketServer) -> None:
    assert run_config(config) == 0
    tasks = ("a.detections.parquet", "a.labels.json", "day 2/b.detections.parquet", "day 2/b.labels.json")
    assert written(s3) == sorted([".prelabel/run.lock", ".prelabel/run.txt", "coco.json", "report.json", *tasks])
    assert row_in(s3)["data_title"] == "a.mp4"
    assert s3.get("labels/report.json") == Path("out/s3/videos/labels/report.json").read_bytes()
    assert not list(Path("out").rglob("media.mp4"))
    assert show_status(config) == 0


def test_a_second_run_does_nothing_twice(config: Path, s3: BucketServer) -> None:
    assert run_config(config) == 0
    s3.requests.clear()
    assert run_config(config) == 0
    assert {task["status"] for task in report()["tasks"]} == {"already done"}
    assert not [request for request in s3.requests if ".mp4" in request and "list-type" not in request]


def test_a_dry_run_uploads_nothing(config: Path, s3: BucketServer) -> None:
    assert run_config(config, dry_run=True) == 0
    assert written(s3) == []
    assert Path("out/s3/videos/labels/dry-run/a.labels.json").exists()


@pytest.mark.slow
def test_a_task_whose_files_do_not_arrive_has_failed(config: Path, s3: BucketServer) -> None:
    s3.faults.append(fail(1000, "PUT", "labels/a.labels.json", "403 Forbidden", "AccessDenied"))
    s3.faults.append(fail(1000, "POST", "labels/a.labels.json", "403 Forbidden", "AccessDenied"))
    assert run_config(config) == 1
    (reason,) = [task["reason"] for task in report()["tasks"] if task["status"] == "failed"]
    assert "s3://videos/labels/a.labels.json: the credentials give no right to this" in reason
    assert "a.labels.json" not in written(s3)
    s3.faults.clear()
    assert run_config(config) == 0
    assert "a.labels.json" in written(s3)


@pytest.mark.slow
def test_files_about_the_run_that_do_not_arrive_make_the_exit_code(config: Path, s3: BucketServer, capfd) -> None:
    for method in ("PUT", "POST"):
        s3.faults.append(fail(1000, method, "labels/coco.json", "403 Forbidden", "AccessDenied"))
    assert run_config(config) == 1
    assert "not written s3://videos/labels/coco.json: the credentials give no right" in capfd.readouterr().err.replace(
        "\n", " "
    )
    s3.faults.clear()
    assert run_config(config) == 0
    assert "coco.json" in written(s3)


def correct(s3: BucketServer) -> dict:
    """Has a person move a box in the bucket; returns the row."""
    row = row_in(s3)
    unit = next(iter(row["data_units"].values()))
    box = unit["labels"]["0"]["objects"][0]
    box["boundingBox"]["x"] = 0.5
    box["manualAnnotation"], box["lastEditedBy"] = True, "ann@example.com"
    s3.put("labels/a.labels.json", orjson.dumps(row))
    return box


@pytest.mark.slow
@pytest.mark.parametrize("has_run_folder", [True, False])
def test_what_people_changed_in_the_bucket_stays(has_run_folder: bool, config: Path, s3: BucketServer) -> None:
    assert run_config(config) == 0
    box = correct(s3)
    if not has_run_folder:  # as on another machine
        Path("out").rename("out-of-the-way")
    assert run_config(config, ["labels.conf=0.5"]) == 0
    unit = next(iter(row_in(s3)["data_units"].values()))
    assert box in unit["labels"]["0"]["objects"]


@pytest.mark.slow
def test_later_commands_read_and_write_in_the_bucket(config: Path, s3: BucketServer) -> None:
    assert run_config(config) == 0
    correct(s3)
    assert evaluate_labels(config, (), against=None, stages=(), min_iou=0.5, accept_iou=0.9) == 0
    assert json.loads(s3.get("labels/evaluation.json"))["total"]["moved"] == 1
    assert relabel_kept(config, ["labels.conf=0.5"]) == 0
    assert json.loads(s3.get("labels/report.json"))["instances"] == {"thing": 6}


def test_a_worker_downloads_with_the_credentials_of_its_own_environment(
    config: Path, s3: BucketServer, make_actor: MakeActor
) -> None:
    assembly = assemble(load_config(config), config.parent)
    task = next(iter(assembly.source.tasks()))
    work = Work.of(task, task.locate())
    actor = make_actor(assembly.config, config.parent)
    with actor._open(pickle.loads(pickle.dumps(work))) as media:
        assert (media.kind, len(media.paths)) == ("video", 1)
    s3.faults.append(fail(1000, "HEAD", "clips/", "403 Forbidden", "AccessDenied"))
    with pytest.raises(FetchError, match=f"on {gethostname()}: the credentials give no right"), actor._open(work):
        pass


def test_missing_rights_are_said_before_the_first_task(config: Path, s3: BucketServer, capfd) -> None:
    for method in ("PUT", "POST"):
        s3.faults.append(fail(1000, method, "labels/", "403 Forbidden", "AccessDenied"))
    with pytest.raises(AccountError, match=r"s3://videos/labels/\.prelabel/run\.txt: the credentials give no right"):
        run_config(config)
    assert check_config_file(config, ()) == 2
    assert "no right to this" in capfd.readouterr().out.replace("\n", " ")


def test_a_bucket_that_another_run_writes_to_is_refused(
    config: Path, s3: BucketServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = b"process 7 on gpu-3\ngpu-3:/out\n"
    s3.put("labels/.prelabel/run.lock", lock)
    monkeypatch.setattr(time, "sleep", lambda _: s3.put("labels/.prelabel/run.lock", lock + b"1\n"))
    with pytest.raises(MachineError, match=r"another run writes to this bucket \(process 7 on gpu-3\)"):
        run_config(config)
    assert written(s3) == [".prelabel/run.lock", ".prelabel/run.txt"]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ({"path": "a.mp4", "output": "https://host/out"}, "cannot be written to, expected a folder or s3://"),
        ({"use": "demo", "output": "s3://b/out"}, "is an address, expected a folder: only labels in files go to"),
        ({"use": "encord", "project_hash": "0", "stage": "a", "output": "s3://b"}, "is an address, expected a folder"),
        ({"path": "hdfs://host/a"}, "hdfs://host is an address of an unknown kind"),
        ({"path": 5}, "got 5, expected a path or an address"),
    ],
)
def test_places_that_cannot_be_used_are_refused(source: dict, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        check_config({"source": source, "detector": {"weights": "demo"}}, "test")


def test_the_run_folder_follows_from_the_address(config: Path) -> None:
    section = load_config(config).source
    assert section.run_folder == Path("out/s3/videos/labels")
    assert json.loads(section.model_dump_json())["output"] == "s3://videos/labels"
