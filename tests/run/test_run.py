"""The run over a folder: real clips, the real reader, label rows on disk."""

from __future__ import annotations

import gc
import json
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from prelabel import Detections
from prelabel.assembly.assemble import Assembly, assemble
from prelabel.config.load import check_config
from prelabel.errors import ConfigError, MachineError, OntologyError, WeightsError
from prelabel.files.folder_source import FolderSource
from prelabel.run.checks import prepare, run_checks
from prelabel.run.outputs import complete
from prelabel.run.runner import run_tasks
from prelabel.runtime.interrupts import StopSignal
from prelabel.runtime.progress import NullProgress
from prelabel.store.ledger import LEDGER, Ledger
from tests.kept import write_grey_clip
from tests.labelling import object_json
from tests.make_media import NUM_FRAMES, RECIPES, cut_off, remux, write_clip
from tests.running import run, run_whole

DETECTOR = '''
from pathlib import Path
from prelabel import Detections
from tests.make_media import read_number

class Reads:
    """Finds a box whose place tells the number that the frame shows; notes every frame that it was given."""

    class_names = ("thing", "other")

    def __init__(self, log: str = "", conf: float = 0.8, fail_on: int = -1):
        self.log, self.score, self.fail_on = log, conf, fail_on

    def detect(self, batch):
        if self.log:
            with Path(self.log).open("a") as file:
                file.write(f"{len(batch)}\\n")
        if self.fail_on in batch.frame_indices:
            raise RuntimeError("out of luck")
        return [self.box(read_number(frame.numpy())) for frame in batch.data]

    def box(self, number):
        return Detections(xyxy=[[number, 2, number + 10, 20]], confidence=[self.score], class_id=[0])
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "clips").mkdir()
    (tmp_path / "mine.py").write_text(DETECTOR)
    return tmp_path


def assembly_of(folder: Path, *, dry_run: bool = False, **sections: dict) -> Assembly:
    values = {
        "source": {"path": str(folder / "clips"), "output": str(folder / "out"), **sections.pop("source", {})},
        "detector": {"use": "mine.py:Reads", "log": str(folder / "log"), **sections.pop("detector", {})},
        "retries": {"wait_seconds": 0},
        **sections,
    }
    return assemble(check_config(values, "test.yaml"), folder, dry_run)


def test_a_tracker_without_tracks_is_said_to_have_no_effect(folder: Path):
    add_clip(folder)
    said = "tracker: has no effect: it links boxes only with labels.instances: tracks"
    assert run(assembly_of(folder, tracker={"use": "bytetrack"})).warnings == (said,)


def test_a_pathway_of_files_is_said_to_have_no_effect(folder: Path):
    add_clip(folder)
    assembly = assembly_of(folder, pathway="Annotate 1")
    said = "pathway: 'Annotate 1' has no effect: files are at no stage, so tasks stay where they are"
    assert [check.detail for check in run_checks(assembly) if check.name == "pathway"] == [said]
    assert run(assembly).warnings == (said,)


def add_clip(folder: Path, name: str = "clip.mp4", recipe: str = "h264") -> Path:
    (folder / "clips" / name).parent.mkdir(exist_ok=True)
    return write_clip(folder / "clips" / name, RECIPES[recipe]).path


def add_cut_clip(folder: Path) -> None:
    whole = write_clip(folder / "whole.mp4", RECIPES["h264"]).path
    cut_off(whole, folder / "short.mp4").rename(folder / "clips" / "short.mp4")


def num_batches(folder: Path) -> int:
    log = folder / "log"
    return len(log.read_text().splitlines()) if log.exists() else 0


def boxes_by_frame(path: Path) -> dict[int, list[dict]]:
    (unit,) = json.loads(path.read_text())["data_units"].values()
    return {int(frame): labels["objects"] for frame, labels in unit["labels"].items()}


def test_every_output_of_the_contract_is_written_with_boxes_on_their_frames(folder):
    clip = add_clip(folder)
    report = run_whole(assembly_of(folder))
    out = folder / "out"
    boxes = boxes_by_frame(out / f"{clip.stem}.labels.json")
    assert sorted(boxes) == list(range(NUM_FRAMES))
    for frame, (box,) in boxes.items():
        assert round(box["boundingBox"]["x"] * 96) == frame
        assert (box["confidence"], box["manualAnnotation"]) == (0.8, False)
    raw = pq.read_table(out / f"{clip.stem}.detections.parquet")
    assert raw.num_rows == NUM_FRAMES
    coco = json.loads((out / "coco.json").read_text())
    assert coco["images"][12]["file_name"] == f"{clip.name}/000012.jpg"
    assert (coco["images"][12]["frame_index"], coco["images"][12]["video"]) == (12, clip.name)
    assert coco["annotations"][0]["score"] == pytest.approx(0.8)
    written = json.loads((out / "report.json").read_text())
    assert written["tasks"][0]["status"] == "done"
    assert written["instances"] == {"thing": NUM_FRAMES}
    assert written["limit"] in {"fetch", "decode", "detect", "save"}
    assert "pyav" in written["tasks"][0]["reader"]
    assert not report.failed


def test_a_second_run_does_nothing_twice_and_still_reports_all(folder):
    add_clip(folder)
    run_whole(assembly_of(folder))
    before = num_batches(folder)
    report = run_whole(assembly_of(folder))
    assert [task.status for task in report.tasks] == ["already done"]
    assert report.instances == {"thing": NUM_FRAMES}
    assert num_batches(folder) == before
    assert len(json.loads((folder / "out" / "coco.json").read_text())["images"]) == NUM_FRAMES


def test_several_sessions_label_every_frame_and_another_number_of_them_needs_no_second_look(folder):
    remux(write_clip(folder / "short.mp4", RECIPES["h264"]).path, folder / "clips" / "clip.mp4", times=5)
    detector = {"batch_size": 2}
    (task,) = run_whole(assembly_of(folder, reader={"decode_workers": 3}, detector=detector)).tasks
    assert "3 segments at once, where keyframes allow it" in task.reader
    boxes = boxes_by_frame(folder / "out" / "clip.labels.json")
    assert {frame: round(box["boundingBox"]["x"] * 96) for frame, (box,) in boxes.items()} == {
        frame: frame % NUM_FRAMES for frame in range(5 * NUM_FRAMES)
    }
    assert num_batches(folder) == 5 * NUM_FRAMES / 2
    (task,) = run_whole(assembly_of(folder, reader={"decode_workers": 1}, detector=detector)).tasks
    assert (task.status, num_batches(folder)) == ("already done", 5 * NUM_FRAMES / 2)


def test_another_threshold_is_applied_from_the_raw_store_without_the_detector(folder):
    clip = add_clip(folder)
    run_whole(assembly_of(folder))
    before = num_batches(folder)
    report = run_whole(assembly_of(folder, labels={"conf": {"thing": 0.9}}))
    assert (report.tasks[0].status, report.tasks[0].dropped) == ("done", {"low_confidence": NUM_FRAMES})
    assert num_batches(folder) == before
    assert boxes_by_frame(folder / "out" / f"{clip.stem}.labels.json") == {}


def test_a_changed_detector_or_video_is_looked_at_again(folder):
    clip = add_clip(folder)
    run_whole(assembly_of(folder))
    (folder / "mine.py").write_text(DETECTOR + "# changed\n")
    before = num_batches(folder)
    assert run_whole(assembly_of(folder)).tasks[0].status == "done"
    between = num_batches(folder)
    clip.write_bytes(clip.read_bytes() + b"\0" * 16)
    assert run_whole(assembly_of(folder)).tasks[0].status == "done"
    assert before < between < num_batches(folder)


def test_a_run_that_was_cut_off_goes_on_where_it_was(folder):
    add_clip(folder)
    add_clip(folder, "later.mp4", "h264 variable rate")
    assert [task.status for task in run_whole(assembly_of(folder), limit=1).tasks] == ["done"]
    report = run_whole(assembly_of(folder))
    assert [task.status for task in report.tasks] == ["already done", "done"]


def test_one_bad_video_costs_only_itself(folder):
    add_clip(folder)
    add_cut_clip(folder)
    (folder / "clips" / "empty.mp4").write_bytes(b"")
    (folder / "clips" / "text.mkv").write_text("no video at all")
    report = run_whole(assembly_of(folder))
    assert {task.title: task.status for task in report.tasks} == {
        "clip.mp4": "done",
        "short.mp4": "failed",
        "empty.mp4": "failed",
        "text.mkv": "failed",
    }
    assert all(task.title.removesuffix(".mp4") in task.reason for task in report.failed)
    assert not (folder / "out" / "short.labels.json").exists()
    with closing(Ledger(folder / "out" / LEDGER)) as ledger:
        assert {entry.title for entry in ledger.entries() if entry.step == "failed"} == {
            "short.mp4",
            "empty.mp4",
            "text.mkv",
        }


def test_under_warn_a_damaged_video_is_labelled_in_part_and_marked(folder):
    add_cut_clip(folder)
    (task,) = run_whole(assembly_of(folder, frames="warn")).tasks
    assert task.status == "done"
    assert "could not be decoded" in task.partial
    boxes = boxes_by_frame(folder / "out" / "short.labels.json")
    assert 0 < len(boxes) < NUM_FRAMES
    assert all(round(box["boundingBox"]["x"] * 96) == frame for frame, (box,) in boxes.items())


def test_a_detector_that_raises_fails_its_task_and_a_retry_starts_from_frame_0(folder):
    clip = add_clip(folder)
    report = run_whole(assembly_of(folder, detector={"fail_on": 20}))
    assert "out of luck" in report.failed[0].reason
    assert not list((folder / "out").glob("*.labels.json"))
    assert not run_whole(assembly_of(folder)).failed
    assert len(boxes_by_frame(folder / "out" / f"{clip.stem}.labels.json")) == NUM_FRAMES


def test_a_stride_labels_every_nth_frame(folder):
    clip = add_clip(folder)
    run_whole(assembly_of(folder, reader={"stride": 7}))
    boxes = boxes_by_frame(folder / "out" / f"{clip.stem}.labels.json")
    assert sorted(boxes) == [0, 7, 14, 21, 28]
    assert all(round(box["boundingBox"]["x"] * 96) == frame for frame, (box,) in boxes.items())


def test_clips_of_one_stem_do_not_share_files(folder):
    first = write_clip(folder / "whole.mp4", RECIPES["h264"]).path
    for name in ("a.mp4", "a.mov", "deep/a.mp4"):
        (folder / "clips" / name).parent.mkdir(exist_ok=True)
        (folder / "clips" / name).write_bytes(first.read_bytes())
    assert not run_whole(assembly_of(folder)).failed
    assert len(list((folder / "out").rglob("*.labels.json"))) == 3


def test_an_output_inside_the_source_is_not_taken_for_footage(folder):
    add_clip(folder)
    source = {"output": str(folder / "clips" / "out"), "preview": "clip"}
    run_whole(assembly_of(folder, source=source))
    assert len(run_whole(assembly_of(folder, source=source)).tasks) == 1


def test_a_dry_run_writes_nothing_outside_its_own_folder(folder):
    add_clip(folder)
    assert run_whole(assembly_of(folder, dry_run=True)).dry_run
    assert list((folder / "out" / "dry-run").glob("*.labels.json"))
    assert [path.name for path in (folder / "out").iterdir()] == ["dry-run"]


def test_a_run_uses_the_raw_detections_of_the_dry_run_before_it(folder):
    clip = add_clip(folder)
    run_whole(assembly_of(folder, dry_run=True))
    before = num_batches(folder)
    (task,) = run_whole(assembly_of(folder)).tasks
    assert (task.status, num_batches(folder)) == ("done", before)
    tried, kept = (folder / "out" / place / f"{clip.stem}.detections.parquet" for place in ("dry-run", "."))
    assert pq.read_table(kept).equals(pq.read_table(tried))


def test_a_run_detects_again_when_the_dry_run_had_another_detector(folder):
    add_clip(folder)
    run_whole(assembly_of(folder, dry_run=True))
    before = num_batches(folder)
    (task,) = run_whole(assembly_of(folder, detector={"conf": 0.7})).tasks
    assert (task.status, num_batches(folder)) == ("done", 2 * before)


def test_a_second_run_on_the_same_output_is_refused(folder):
    add_clip(folder)
    first, second = assembly_of(folder), assembly_of(folder)
    prepare(second)
    with first.store.hold(), pytest.raises(MachineError, match=r"out: another run writes here \(process \d+ on "):
        run(second)
    assert num_batches(folder) == 0
    assert run(assembly_of(folder, dry_run=True)).tasks


def test_asking_to_stop_leaves_the_rest_for_the_next_run(folder):
    add_clip(folder)
    add_clip(folder, "later.mp4", "h264 variable rate")
    stop = StopSignal()
    stop.ask()
    report = run_whole(assembly_of(folder), stop=stop)
    assert (report.tasks, report.stopped) == ((), True)
    assert [task.status for task in run_whole(assembly_of(folder)).tasks] == ["done", "done"]


def test_a_run_that_is_stopped_before_its_first_task_leaves_what_earlier_ones_wrote(folder):
    add_clip(folder)
    stop = StopSignal()
    stop.ask()
    coco = folder / "out" / "coco.json"
    run_whole(assembly_of(folder), stop=stop)
    assert not coco.exists()
    run_whole(assembly_of(folder))
    written = coco.read_text()
    assert run_whole(assembly_of(folder), stop=stop).stopped
    assert coco.read_text() == written


def test_a_task_called_like_the_folder_of_dry_runs_meets_none_of_theirs(folder):
    add_clip(folder, "clip.mp4")
    add_clip(folder, "dry-run/clip.mp4", "h264 one frame")
    run_whole(assembly_of(folder, dry_run=True))
    tried = (folder / "out" / "dry-run" / "clip.labels.json").read_text()
    assert not run_whole(assembly_of(folder)).failed
    assert (folder / "out" / "dry-run" / "clip.labels.json").read_text() == tried
    assert len(list((folder / "out").glob("dry-run_/clip-*.labels.json"))) == 1


def test_pictures_get_boxes_too(folder):
    from PIL import Image

    from tests.make_media import draw_number

    Image.fromarray(draw_number(5)).save(folder / "clips" / "p.png")
    run_whole(assembly_of(folder))
    row = json.loads((folder / "out" / "p.labels.json").read_text())
    (unit,) = row["data_units"].values()
    assert row["data_type"] == "image"
    assert round(unit["labels"]["objects"][0]["boundingBox"]["x"] * 96) == 5


@pytest.mark.parametrize(
    ("sections", "error", "complaint"),
    [
        ({"labels": {"classes": {"thnig": None}}}, OntologyError, "did you mean 'thing'"),
        ({"labels": {"classes": {"thing": None, "other": None}}}, OntologyError, "class"),
        ({"labels": {"conf": {"Thing": 0.5}}}, OntologyError, "did you mean 'thing'"),
        ({"detector": {"cnof": 0.5}}, ConfigError, "did you mean 'conf'"),
        ({"reader": {"thread": 1}}, ConfigError, r"reader\.thread"),
        ({"reader": {"use": "decord", "device": "cuda"}}, MachineError, "decord"),
        ({"source": {"path": "nowhere"}}, ConfigError, "there is nothing at nowhere"),
    ],
)
def test_what_is_wrong_is_known_before_frame_0(folder, sections, error, complaint):
    add_clip(folder)
    assembly = assembly_of(folder, **sections)
    with pytest.raises(error, match=complaint):
        prepare(assembly)
    checks = run_checks(assembly_of(folder, **sections))
    assert any(not check.passed for check in checks)
    assert num_batches(folder) == 0


def test_a_check_says_what_is_wrong_once(folder):
    add_clip(folder)
    wrong = [check for check in run_checks(assembly_of(folder, detector={"cnof": 0.5})) if not check.passed]
    assert "did you mean 'conf'" in wrong[0].detail
    assert [check.detail for check in wrong[1:]] == ["waits for weights, above"] * 2


def replace_tasks(assembly: Assembly, change) -> None:
    """Lets `change` happen to each listed file right before the run takes it up."""
    source = assembly.source

    class Changing:
        def tasks(self):
            for task in list(source.tasks()):
                change(task.path)
                yield task

        def __getattr__(self, name):
            return getattr(source, name)

    assembly.__dict__["source"] = Changing()


def test_a_file_that_goes_away_under_way_costs_only_itself(folder):
    add_clip(folder)
    add_clip(folder, "gone.mp4")
    assembly = assembly_of(folder)
    replace_tasks(assembly, lambda path: path.unlink() if path.stem == "gone" else None)
    report = run_whole(assembly)
    assert [(task.title, task.status) for task in report.tasks] == [("clip.mp4", "done"), ("gone.mp4", "failed")]
    assert "is gone" in report.failed[0].reason


def test_a_file_that_changes_under_way_is_looked_at_again(folder):
    clip = add_clip(folder)
    assembly = assembly_of(folder)
    replace_tasks(assembly, lambda path: path.write_bytes(path.read_bytes() + b"\0" * 16))
    run_whole(assembly)
    before = num_batches(folder)
    assert [task.status for task in run_whole(assembly_of(folder)).tasks] == ["done"]
    assert before < num_batches(folder)
    assert clip.exists()


def test_asking_to_stop_ends_what_is_looked_at_not_all_that_was_fetched(folder):
    for name in "abcdef":
        add_clip(folder, f"{name}.mp4")
    stop, has_fetched = StopSignal(), threading.Semaphore(0)
    assembly = assembly_of(folder)
    prepare(assembly)

    class Stops:
        class_names = assembly.detection.detector.class_names

        def detect(self, batch):
            if not stop.is_set:
                assert all(has_fetched.acquire(timeout=30) for _ in range(4))
                stop.ask()
            return [Detections.empty() for _ in batch.frame_indices]

    class Counts(NullProgress):
        def event(self, name, **values):
            if values.get("stage") == "fetch":
                has_fetched.release()

    assembly.detection.__dict__["detector"] = Stops()
    report = run(assembly, progress=Counts(), stop=stop)
    assert report.stopped
    assert 1 <= len(report.tasks) <= 3  # the one in the detector, and those opened while it was there
    assert [task.status for task in run_whole(assembly_of(folder)).tasks].count("done") == 6 - len(report.tasks)


def test_a_limit_counts_what_is_worked_on_not_what_is_done_already(folder):
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        add_clip(folder, name)
    assert [task.status for task in run_whole(assembly_of(folder), limit=1).tasks] == ["done"]
    assert [task.status for task in run_whole(assembly_of(folder), limit=1).tasks] == ["already done", "done"]
    assert [task.title for task in run_whole(assembly_of(folder), limit=1).tasks] == ["a.mp4", "b.mp4", "c.mp4"]


def test_a_run_that_is_given_up_leaves_no_thread(folder):
    for name in ("a.mp4", "b.mp4", "c.mp4", "d.mp4"):
        add_clip(folder, name)
    stop = StopSignal()
    assembly = assembly_of(folder)
    prepare(assembly)

    class StopsNow:
        class_names = assembly.detection.detector.class_names

        def detect(self, batch):
            stop.ask()
            stop.ask()
            return [Detections.empty() for _ in batch.frame_indices]

    assembly.detection.__dict__["detector"] = StopsNow()
    before = {*threading.enumerate()}
    gc.disable()
    try:
        assert run_whole(assembly, stop=stop).stopped
        assert not {"fetch", "detect", "decode"} & {thread.name for thread in {*threading.enumerate()} - before}
    finally:
        gc.enable()


def test_a_changed_reader_is_looked_through_again(folder):
    add_clip(folder)
    reader = "from prelabel.media.pyav import PyAVReader\n\nclass Mine(PyAVReader):\n    '''One.'''\n"
    (folder / "reads.py").write_text(reader)
    section = {"use": "reads.py:Mine"}
    run_whole(assembly_of(folder, reader=section))
    before = num_batches(folder)
    assert [task.status for task in run_whole(assembly_of(folder, reader=section)).tasks] == ["already done"]
    (folder / "reads.py").write_text(reader + "    threads = 1\n")
    assert [task.status for task in run_whole(assembly_of(folder, reader=section)).tasks] == ["done"]
    assert before < num_batches(folder)


def test_other_footage_under_a_known_name_gets_a_row_of_its_own_size(folder):
    add_clip(folder)
    run_whole(assembly_of(folder))
    write_grey_clip(folder / "clips" / "clip.mp4", 128, 96, 6)
    report = run_whole(assembly_of(folder))
    assert not report.failed
    (unit,) = json.loads((folder / "out" / "clip.labels.json").read_text())["data_units"].values()
    assert (unit["width"], unit["height"], unit["data_duration"]) == (128, 96, pytest.approx(6 / 25))


def test_a_persons_labels_on_other_footage_are_not_carried_over(folder):
    add_clip(folder)
    run_whole(assembly_of(folder))
    labels = folder / "out" / "clip.labels.json"
    row = json.loads(labels.read_text())
    (unit,) = row["data_units"].values()
    unit["labels"]["3"]["objects"][0]["manualAnnotation"] = True
    labels.write_text(json.dumps(row))
    write_grey_clip(folder / "clips" / "clip.mp4", 128, 96, 6)
    report = run_whole(assembly_of(folder))
    assert "96 x 64" in report.failed[0].reason
    assert "128 x 96" in report.failed[0].reason
    assert json.loads(labels.read_text()) == row


def test_pictures_are_read_as_pictures_whichever_video_reader_is_named(folder):
    from PIL import Image

    from tests.make_media import draw_number

    add_clip(folder)
    Image.fromarray(draw_number(5)).save(folder / "clips" / "p.png")
    report = run_whole(assembly_of(folder, reader={"use": "pyav", "threads": 1}))
    assert not report.failed
    assert json.loads((folder / "out" / "p.labels.json").read_text())["data_type"] == "image"


def test_previews_are_drawn_of_what_this_run_labelled_only(folder):
    add_clip(folder)
    add_clip(folder, "later.mp4")
    source = {"preview": "sheet"}
    run_whole(assembly_of(folder, source=source), limit=1)
    first = folder / "out" / "clip.preview.jpg"
    drawn_at = first.stat().st_mtime_ns
    run_whole(assembly_of(folder, source=source))
    assert (folder / "out" / "later.preview.jpg").exists()
    assert first.stat().st_mtime_ns == drawn_at
    (folder / "clips" / "later.mp4").write_bytes(b"")
    first.unlink()
    (folder / "clips" / "clip.mp4").write_bytes(b"")
    assert len(run_whole(assembly_of(folder, source=source)).failed) == 2
    assert not first.exists()


def test_a_task_report_names_the_files_of_the_task(folder):
    add_clip(folder)
    (task,) = run_whole(assembly_of(folder)).tasks
    assert [Path(output).name for output in task.outputs] == ["clip.detections.parquet", "clip.labels.json"]


def test_what_annotators_have_left_to_do_is_said(folder):
    add_clip(folder)
    attribute = {"id": "1.1", "name": "Occluded", "type": "text", "required": True, "featureNodeHash": "att00001"}
    thing = object_json("thing", 1, attributes=[attribute])
    (folder / "ontology.json").write_text(json.dumps({"objects": [thing], "classifications": []}))
    report = run_whole(assembly_of(folder, source={"ontology": str(folder / "ontology.json")}))
    assert any("Occluded" in warning for warning in report.warnings)
    assert any("other" in warning for warning in report.warnings)


def test_a_ledger_that_cannot_be_written_ends_the_run_with_the_reason(folder):
    add_clip(folder)
    assembly = assembly_of(folder)
    prepare(assembly)
    with closing(sqlite3.connect(assembly.store.ledger.path)) as other:
        other.execute("DROP TABLE tasks")
    with pytest.raises(MachineError, match=r"ledger\.sqlite"):
        run_tasks(assembly, NullProgress(), StopSignal())


def test_titles_do_not_change_when_more_files_match_a_glob(folder):
    add_clip(folder, "day 1/clip.mp4")
    source = {"path": str(folder / "clips" / "**" / "*.mp4")}
    run_whole(assembly_of(folder, source=source))
    add_clip(folder, "day 2/clip.mp4")
    report = run_whole(assembly_of(folder, source=source))
    assert [(task.title, task.status) for task in report.tasks] == [
        ("day 1/clip.mp4", "already done"),
        ("day 2/clip.mp4", "done"),
    ]


def test_a_glob_that_matches_nothing_any_more_is_no_error_while_watching(folder):
    clip = add_clip(folder)
    source = FolderSource(folder / "clips" / "*.mp4", folder / "out")
    clip.unlink()
    assert (list(source.tasks()), source.count()) == ([], 0)


def test_a_sink_of_ones_own_gets_a_file_once_for_each_config(folder):
    add_clip(folder)
    (folder / "sinks.py").write_text(
        "class Lists:\n"
        "    def __init__(self, path): self.path = path\n"
        "    def write(self, task, info, detections):\n"
        "        with open(self.path, 'a') as file: print(task.key, len(detections), file=file)\n"
    )
    sink = {"use": "sinks.py:Lists", "path": str(folder / "list")}
    statuses = [run_whole(assembly_of(folder, sink=sink)).tasks[0].status for _ in range(2)]
    assert statuses == ["done", "already done"]
    run_whole(assembly_of(folder, sink=sink, labels={"conf": 0.9}))
    (first, num_boxes), again = map(str.split, (folder / "list").read_text().splitlines())
    assert (first, again) == ("clip.mp4", ["clip.mp4", "0"])
    assert int(num_boxes) > 0


def test_what_a_sink_of_ones_own_raises_is_said_to_be_the_sinks(folder):
    add_clip(folder)
    (folder / "full.py").write_text(
        "class Full:\n    def write(self, task, info, detections): raise RuntimeError('no space left')\n"
    )
    report = run_whole(assembly_of(folder, sink={"use": "full.py:Full"}))
    assert [task.reason for task in report.failed] == ["clip.mp4: the sink raised RuntimeError: no space left"]


def test_hidden_files_are_taken_only_by_name(folder):
    add_clip(folder)
    hidden = [add_clip(folder, "._clip.mp4"), add_clip(folder, ".Trash/old.mp4")]
    for path in (folder / "clips", folder / "clips" / "**" / "*.mp4"):
        assert [task.title for task in FolderSource(path, folder / "out").tasks()] == ["clip.mp4"]
    assert [task.title for task in FolderSource(hidden[0], folder / "out").tasks()] == ["._clip.mp4"]


@pytest.mark.parametrize("path", ["clips", "clips/**/*.mp4", "clips/clip.mp4"])
@pytest.mark.parametrize("output", ["clips", ".", "clips/out", "elsewhere"])
def test_outputs_may_lie_below_beside_or_above_the_media_and_are_not_taken_for_media(folder, path, output):
    add_clip(folder)
    (folder / output).mkdir(exist_ok=True)
    for name in ("clip.preview.mp4", "clip.preview.jpg"):
        (folder / output / name).touch()
    assert [task.title for task in FolderSource(folder / path, folder / output).tasks()] == ["clip.mp4"]


def test_a_preview_is_taken_where_it_is_asked_for_by_name(folder):
    preview = add_clip(folder, "clip.preview.mp4")
    assert [task.title for task in FolderSource(preview, folder / "clips").tasks()] == ["clip.preview.mp4"]


def test_files_are_listed_in_order_and_again_for_the_next_pass(folder):
    for name in ("b.mp4", "a/c.mp4", "a.mp4"):
        add_clip(folder, name)
    (folder / "clips" / "link.mp4").symlink_to(folder / "out" / "old.mp4")
    source = FolderSource(folder / "clips", folder / "out")
    assert source.count() == 3
    assert [task.title for task in source.tasks()] == ["a/c.mp4", "a.mp4", "b.mp4"]
    (folder / "clips" / "b.mp4").unlink()
    assert [task.title for task in source.tasks()] == ["a/c.mp4", "a.mp4"]


def test_a_file_is_not_said_to_have_gone_down_a_pathway(folder):
    add_clip(folder)
    assert run_whole(assembly_of(folder, pathway="Annotate 1")).tasks[0].pathway is None


@pytest.mark.parametrize("name", ["best.weights", "best.pt"])
def test_a_signed_address_of_weights_is_in_no_message(folder, name):
    add_clip(folder)
    values = {
        "source": {"path": str(folder / "clips"), "output": str(folder / "out")},
        "detector": {"weights": f"https://host.invalid/{name}?sig=secret"},
    }
    with pytest.raises((ConfigError, WeightsError)) as refused:
        prepare(assemble(check_config(values, "test"), folder))
    assert "secret" not in str(refused.value)


def test_a_lower_threshold_needs_no_second_look_where_the_detector_gives_low_boxes_too(folder):
    detector = DETECTOR.replace("import Detections", "import Detections, ModelTraits").replace(
        "self.score, self.fail_on = log, conf, fail_on",
        "self.score, self.fail_on = log, 0.5, fail_on\n        self.traits = ModelTraits(conf=conf, raw_conf=0.05)",
    )
    (folder / "mine.py").write_text(detector)
    add_clip(folder)
    assert run_whole(assembly_of(folder, detector={"conf": 0.6})).instances == {}
    before = num_batches(folder)
    assert run_whole(assembly_of(folder, detector={"conf": 0.4})).instances == {"thing": NUM_FRAMES}
    assert num_batches(folder) == before


def test_a_range_past_the_end_fails_the_task_with_its_length(folder):
    add_clip(folder)
    (task,) = run_whole(assembly_of(folder, reader={"frame_ranges": [[500, 600]]})).tasks
    assert (task.status, f"none of its {NUM_FRAMES} frames" in task.reason) == ("failed", True)


@pytest.mark.needs_cuda
def test_a_gpu_decodes_and_detects_the_demo_as_well_as_a_cpu(tmp_path):
    values = {"source": {"use": "demo", "output": str(tmp_path)}, "detector": {"weights": "demo", "device": "cuda"}}
    assembly = assemble(check_config(values, "test"), Path())
    report = complete(assembly, run_tasks(assembly, NullProgress(), StopSignal()), NullProgress())
    (task,) = report.tasks
    assert task.status == "done", task.reason
    assert task.reader.startswith(("decord", "torchcodec"))
    assert report.score is not None
    assert report.score.map_50_95 == pytest.approx(0.729, abs=0.03)  # a CPU's
