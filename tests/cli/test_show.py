"""What a person reads at the end of a run."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from prelabel.cli.doctor import Finding
from prelabel.cli.show import show_entries, show_findings, show_paths, show_report, spinner
from prelabel.errors import ConfigError
from prelabel.plugins.protocols import SkippedTask
from prelabel.store.ledger import Entry
from prelabel.store.report import Price, RunReport, Score, TaskReport, WorkerReport, count_devices


def report(*tasks: TaskReport, **more) -> RunReport:
    return RunReport("0", "", "", {}, False, 1.0, tasks, **more)


def test_names_in_brackets_are_shown_as_they_are(capsys):
    task = TaskReport("[x].mp4", "k", "done", instances={"[bold]": 1}, pathway="[/red]")
    show_report(report(task, outputs=("out [1]/coco.json",), skipped=(SkippedTask("[a].wav", "audio"),)))
    said = capsys.readouterr().err
    for text in ("[bold]", "[/red]", "out [1]/coco.json", "[a].wav"):
        assert text in said
    show_entries(Path("out [1]"), [Entry("k", "[x].mp4", "done", "f")])
    told = capsys.readouterr().out
    assert "out [1]" in told
    assert "[x].mp4" in told
    show_paths([Path("out [1]/a.jpg")])
    assert "out [1]/a.jpg" in capsys.readouterr().err


def test_the_score_of_a_class_is_shown_whatever_its_name(capsys, tmp_path):
    scored = report(score=Score(0.5, 0.75, {"map_pin": 0.25, "car": 0.75}))
    scored.write(tmp_path / "report.json")
    values = json.loads((tmp_path / "report.json").read_text())
    assert values["score"] == {"map_50_95": 0.5, "map_50": 0.75, "map_pin": 0.25, "car": 0.75}
    assert RunReport.read(tmp_path / "report.json") == scored
    show_report(scored)
    said = capsys.readouterr().err
    assert [line.split() for line in said.splitlines() if "map_pin" in line or "car" in line] == [
        ["map_pin", "0", "0.250"],
        ["car", "0", "0.750"],
    ]
    assert "mAP 0.500 (AP50 0.750)" in said


@pytest.mark.parametrize("score", [[0.5], {"map_50": 0.5}, {"map_50_95": "x", "map_50": 0.5}])
def test_a_report_with_a_score_of_another_form_is_refused(tmp_path, score):
    report().write(tmp_path / "report.json")
    values = json.loads((tmp_path / "report.json").read_text())
    (tmp_path / "report.json").write_text(json.dumps({**values, "score": score}))
    with pytest.raises(ConfigError, match="is not a report of this version: run again"):
        RunReport.read(tmp_path / "report.json")


def test_dropped_detections_are_counted_by_reason(capsys):
    dropped = {"low_confidence": 1200, "unmapped": 3}
    show_report(report(TaskReport("a", "a", "done", dropped=dropped), TaskReport("b", "b", "done", dropped=dropped)))
    assert "2,400 low confidence, 6 unmapped" in capsys.readouterr().err


def test_the_cost_counts_the_devices_of_all_workers(capsys, tmp_path):
    workers = tuple(WorkerReport(str(n), "host", "cuda:0", tasks=1, frames=9, busy=1.0) for n in range(3))
    of_all = {"workers": workers, "num_devices": count_devices(workers, 1.0), "price": Price(1200.0, "EUR")}
    paid = report(TaskReport("a", "a", "done"), **of_all)
    show_report(paid)
    assert "cost 1.00 EUR: 0.001 GPU-hours at 1,200.00" in capsys.readouterr().err
    paid.write(tmp_path / "report.json")
    values = json.loads((tmp_path / "report.json").read_text())
    assert (values["cost"], values["device_hours"], values["price"]) == (1.0, 0.0008, asdict(paid.price))
    assert RunReport.read(tmp_path / "report.json") == paid
    on_cpus = [replace(worker, host=host, device="cpu") for worker, host in zip(workers, "aab", strict=True)]
    assert count_devices(on_cpus, 0.0) == 2
    show_report(report(TaskReport("a", "a", "done")))
    assert "cost" not in capsys.readouterr().err


def test_one_thing_is_counted_in_the_singular(capsys):
    task = TaskReport("a", "a", "done", num_inferred=1, num_boxes=1, instances={"Car": 1})
    show_report(report(task, instances_are="tracks", shapes=("bounding_box",)))
    said = capsys.readouterr().err
    assert "1 track of 1 box, 0 of them filled in" in said


def test_tasks_in_which_nothing_was_found_are_counted(capsys):
    found, empty = {"num_inferred": 4, "instances": {"Car": 2}}, {"num_inferred": 4}
    show_report(report(TaskReport("a", "a", "done", **found), TaskReport("b", "b", "done", **empty)))
    assert "2 done; 1 without a label" in capsys.readouterr().err
    show_report(report(TaskReport("a", "a", "done", **found)))
    assert "without a label" not in capsys.readouterr().err


def test_a_failed_task_is_named_once(capsys):
    reason = "clip.mp4: the file is empty: fetch it again"
    show_report(report(TaskReport("day 1/clip.mp4", "k", "failed", reason)))
    assert "failed day 1/clip.mp4: the file is empty: fetch it again\n" in capsys.readouterr().err
    show_entries(Path("out"), [Entry("k", "day 1/clip.mp4", "failed", "f", reason=reason, num_failures=2)])
    told = capsys.readouterr().out
    assert told.count("clip.mp4") == 1
    assert "the file is empty: fetch it again (failed 2 times)" in " ".join(told.split())


@pytest.mark.parametrize(("aborted", "waits"), [("", True), ("the key is not known", False)])
def test_a_run_that_was_refused_does_not_say_that_no_task_waits(capsys, aborted, waits):
    show_report(report(aborted=aborted))
    assert ("no task waits" in capsys.readouterr().err) == waits


@pytest.mark.parametrize(("num_tasks", "shown"), [(2, True), (40, False)])
def test_the_files_of_few_tasks_are_named(capsys, num_tasks, shown):
    tasks = [TaskReport(str(n), str(n), "done", outputs=(f"out/{n}.labels.json",)) for n in range(num_tasks)]
    show_report(report(*tasks, outputs=("out/report.json",)))
    said = capsys.readouterr().err
    assert ("out/1.labels.json" in said) == shown
    assert "out/report.json" in said


def test_many_previews_are_counted_instead_of_listed(capsys):
    previews = tuple(f"out/{number}.preview.jpg" for number in range(40))
    show_report(report(outputs=("out/coco.json", *previews)))
    said = capsys.readouterr().err
    assert "out/coco.json" in said
    assert "40 previews, the first is out/0.preview.jpg" in said
    assert "out/1.preview.jpg" not in said


def test_status_without_entries_prints_no_empty_table(capsys):
    show_entries(Path("out"), [])
    told = capsys.readouterr()
    assert (told.out, "no task has reached a step yet" in told.err) == ("", True)


@pytest.mark.parametrize(
    ("statuses", "verdict"),
    [
        (("ok", "ok"), "ready: prelabel run --demo works here\n"),
        (("ok", "warn"), "works here; see the notes above for what does not"),
        (("missing", "warn"), "not ready: nothing runs here without: part 0"),
    ],
)
def test_the_doctor_ends_with_a_verdict(statuses, verdict, capsys):
    show_findings([Finding(f"part {number}", status, "…") for number, status in enumerate(statuses)])
    assert verdict in capsys.readouterr().out


@pytest.mark.parametrize("force_color", ["", "1"])
def test_waiting_shows_nothing_without_a_terminal(capsys, monkeypatch, force_color):
    monkeypatch.setenv("FORCE_COLOR", force_color)  # Jupyter and CI set it; colours are welcome, a spinner is not
    with spinner("loading …"):
        pass
    assert capsys.readouterr() == ("", "")
