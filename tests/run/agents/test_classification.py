"""Pre-classification, the whole way: pictures, groups and videos in, answers and pathways out."""

from __future__ import annotations

import csv
import json
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from prelabel.assembly.assemble import Assembly, assemble
from prelabel.cli.commands import run_config
from prelabel.config.load import check_config, load_config
from prelabel.data.frames import Media, VideoInfo
from prelabel.errors import SetupError
from prelabel.reports.run_page import page_of
from prelabel.run.agents.classification import ClassificationAgent
from prelabel.run.checks import prepare, run_checks
from prelabel.run.work import FetchedTask
from prelabel.runtime.interrupts import StopSignal
from prelabel.runtime.progress import NullProgress
from prelabel.store.labelled import ClassRecord
from prelabel.testing.encord_server import AGENT, ANNOTATE, COMPLETE, LostAnswer, Status
from prelabel.testing.encord_server.ontologies import editor, radio_classification
from tests.kept import write_grey_clip
from tests.running import run, run_whole

RED, BLUE, GREY = (250, 10, 10), (10, 10, 250), (128, 128, 128)
SECTIONS: dict[str, Any] = {
    "classifier": {"use": "tests.answering:ColourClassifier", "conf": 0.6},
    "labels": {"classification": "Colour", "classes": {"red": "Warm", "blue": "Cold"}},
    "routing": {"Warm": "Annotate 1", "otherwise": "Annotate 2"},
    "retries": {"wait_seconds": 0},
}
pytestmark = pytest.mark.filterwarnings("ignore:save_label_row is deprecated:DeprecationWarning")


def paint(path: Path, colour: tuple[int, int, int], size=(40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def assembly_of(source: dict[str, Any], dry_run: bool = False, **sections: Any) -> Assembly:
    return assemble(check_config({"source": source, **SECTIONS, **sections}, "test.yaml"), Path(), dry_run)


@pytest.fixture
def photos(tmp_path: Path) -> dict[str, Any]:
    """A folder source: two red pictures, a blue one, a grey one, and a grey video."""
    for name, colour in {"a.png": RED, "b.png": RED, "c/blue.png": BLUE, "grey.png": GREY}.items():
        paint(tmp_path / "photos" / name, colour)
    write_grey_clip(tmp_path / "photos" / "video.mp4", 64, 48, 20)
    return {"path": str(tmp_path / "photos"), "output": str(tmp_path / "out")}


def table(output: str) -> list[dict[str, str]]:
    with (Path(output) / "classifications.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_is_classified_without_an_account(photos):
    report = run_whole(assembly_of(photos))
    assert report.instances == {"Warm": 2, "Cold": 1}
    assert report.pathways == {"Annotate 2": 3, "Annotate 1": 2}
    rows = {row["task"]: (row["answer"], row["pathway"], row["likeliest_class"]) for row in table(photos["output"])}
    assert rows["a.png"] == ("Warm", "Annotate 1", "red")
    assert rows["c/blue.png"] == ("Cold", "Annotate 2", "blue")
    assert rows["video.mp4"][:2] == ("", "Annotate 2")
    row = json.loads((Path(photos["output"]) / "a.labels.json").read_text())
    (entry,) = row["classification_answers"].values()
    assert (entry["confidence"], entry["manualAnnotation"], entry["range"]) == (
        pytest.approx(250 / 255, abs=1e-5),
        False,
        [[0, 0]],
    )
    kept = json.loads((Path(photos["output"]) / "report.json").read_text())
    assert (kept["instances"], kept["limit"]) != ({}, "")


def test_a_task_that_is_begun_is_told_by_title_and_key(photos):
    begun = []

    class Notes(NullProgress):
        def begin(self, title, num_frames, task_id="", worker=""):
            begun.append((title, num_frames, task_id))

    run(assembly_of(photos), progress=Notes())
    titles = ["a.png", "b.png", "c/blue.png", "grey.png"]
    assert sorted(begun) == [*((title, 1, title) for title in titles), ("video.mp4", 8, "video.mp4")]


def test_a_second_run_looks_at_nothing_again_and_a_new_threshold_at_no_picture(photos):
    first = assembly_of(photos)
    run_whole(first)
    again = assembly_of(photos)
    assert {task.status for task in run_whole(again).tasks} == {"already done"}
    assert again.classification.classifier.batch_sizes == []
    lower = assembly_of(photos, classifier={**SECTIONS["classifier"], "conf": 0.4})
    report = run_whole(lower)
    assert lower.classification.classifier.batch_sizes == []
    assert sum(report.instances.values()) == 5
    assert len(table(photos["output"])) == 5


def test_a_run_uses_the_probabilities_of_the_dry_run_before_it(photos):
    tried = run_whole(assembly_of(photos, dry_run=True))
    again = assembly_of(photos)
    assert run_whole(again).instances == tried.instances
    assert again.classification.classifier.batch_sizes == []


def test_a_run_with_a_limit_keeps_the_answers_of_earlier_ones_in_the_table(photos):
    run_whole(assembly_of(photos))
    paint(Path(photos["path"]) / "0.png", RED)
    run_whole(assembly_of(photos), limit=1)
    rows = {row["task"]: row["pathway"] for row in table(photos["output"])}
    assert (len(rows), rows["0.png"], rows["c/blue.png"]) == (6, "Annotate 1", "Annotate 2")


def test_a_picture_that_is_none_costs_itself_only(photos):
    (Path(photos["path"]) / "bad.png").write_bytes(b"no picture")
    report = run_whole(assembly_of(photos))
    assert [task.title for task in report.failed] == ["bad.png"]
    assert report.instances == {"Warm": 2, "Cold": 1}


def test_pictures_of_all_tasks_share_batches(photos):
    for number in range(20):
        paint(Path(photos["path"]) / f"more{number}.png", RED, (30 + number, 20))
    assembly = assembly_of(photos)
    run_whole(assembly)
    sizes = assembly.classification.classifier.batch_sizes
    assert sum(sizes) == 4 + 8 + 20
    assert set(sizes[:-1]) == {4}


class NotesItsSecondBatch:
    class_names = ("red", "blue")

    def __init__(self) -> None:
        self.has_begun, self.second = False, threading.Event()

    def classify(self, images: Sequence[Any]) -> np.ndarray:
        if self.has_begun:
            self.second.set()
        self.has_begun = True
        return np.full((len(images), 2), 0.5, np.float32)


def test_the_classifier_goes_on_while_what_it_found_is_kept(photos):
    assembly = assembly_of(photos, classifier={**SECTIONS["classifier"], "batch_size": 1})
    assembly.classification.__dict__["classifier"] = classifier = NotesItsSecondBatch()
    agent = ClassificationAgent(assembly, NullProgress(), StopSignal())
    media = [(task, Media("images", (task.path,))) for task in assembly.source.tasks() if task.title.endswith(".png")]
    before = {*threading.enumerate()}  # other tests may have left some
    inferred = agent.infer([FetchedTask(task, pictures, ExitStack(), 0.0) for task, pictures in media])
    assert next(inferred).key == "a.png"
    assert classifier.second.wait(50)
    inferred.close()
    assert not {*threading.enumerate()} - before


def test_a_video_may_be_answered_frame_by_frame(photos):
    labels = {**SECTIONS["labels"], "answers": "per_frame"}
    run_whole(
        assembly_of(photos, labels=labels, classifier={**SECTIONS["classifier"], "conf": 0.45, "frames_per_video": 5})
    )
    rows = [row for row in table(photos["output"]) if row["task"] == "video.mp4"]
    assert [row["first_frame"] for row in rows] == ["2", "6", "10", "14", "18"]
    row = json.loads((Path(photos["output"]) / "video.labels.json").read_text())
    assert sorted(entry["range"] for entry in row["classification_answers"].values()) == [
        [[frame, frame]] for frame in (2, 6, 10, 14, 18)
    ]


# On the platform


@pytest.fixture
def stage(encord_server, encord_client, encord_environment, tmp_path, encord_clip):
    """Returns a project's source section; adds tasks: two pictures, a group, a video."""
    world = encord_server.world
    ontology = world.add_ontology(editor([], [radio_classification("Colour", ["Warm", "Cold"])]), title="Colours")
    project = world.add_project(
        ontology=ontology,
        pathways={"Annotate 1": ANNOTATE, "Annotate 2": "Review"},
        stages={AGENT: "AGENT", ANNOTATE: "ANNOTATION", "Review": "REVIEW", "Complete": "DONE"},
    )
    pictures = [paint(tmp_path / f"{n}.png", colour) for n, colour in enumerate((RED, BLUE, RED, RED))]
    units = [world.add_image(path) for path in pictures[:2]]
    units += [world.add_image_group(pictures[2:]), world.add_video(encord_clip, title="clip.mp4")]
    for unit in units:
        world.add_task(project.stage(AGENT), unit)
    return project, {"use": "encord", "project_hash": project.uuid, "stage": AGENT, "output": str(tmp_path / "out")}


def answers_by_title(encord_client, project) -> dict[str, list[tuple[str, float, bool]]]:
    """Returns what the unmodified SDK reads back."""
    found = {}
    for row in encord_client.get_project(project.uuid).list_label_rows_v2():
        row.initialise_labels()
        found[row.data_title] = [
            (instance.get_answer().label, round(instance.confidence, 2), instance.manual_annotation)
            for instance in row.get_classification_instances()
        ]
    return found


def test_every_kind_of_task_is_answered_and_goes_down_its_pathway(stage, encord_client):
    project, source = stage
    report = run_whole(assembly_of(source))
    assert sorted(task.status for task in report.tasks) == ["done"] * 4
    found = answers_by_title(encord_client, project)
    assert found["0.png"] == [("Warm", 0.98, False)]
    assert found["1.png"] == [("Cold", 0.98, False)]
    assert found["group"] == [("Warm", 0.98, False)]
    assert project.titles_at(ANNOTATE) == ["0.png", "group"]
    assert project.tasks_at(AGENT) == []


def test_videos_may_be_kept_from_the_pathways_of_pictures(stage):
    project, source = stage
    rules = [{"when": 'kind == "video"', "pathway": "Annotate 1"}, {"otherwise": "Annotate 2"}]
    assert not run(assembly_of(source, routing=rules)).failed
    assert project.titles_at(ANNOTATE) == ["clip.mp4"]


def test_passing_faults_lose_and_double_nothing(stage, encord_server, encord_client):
    project, source = stage
    encord_server.faults.add("create_label_rows", LostAnswer(carried_out=True), skip=1)
    encord_server.faults.add("act_on_tasks", LostAnswer(carried_out=True), skip=1)
    encord_server.faults.add("get_item", Status(503), skip=1)
    assert not run_whole(assembly_of(source)).failed
    found = answers_by_title(encord_client, project)
    assert [len(found[title]) for title in ("0.png", "1.png", "group")] == [1, 1, 1]
    assert len(encord_server.world.moves) == 4


def test_a_dry_run_changes_nothing_and_tells_the_pathways(stage, encord_server):
    _, source = stage
    report = run_whole(dry := assembly_of(source, dry_run=True))
    assert report.pathways["Annotate 1"] == 2
    assert encord_server.world.moves == []
    assert len(table(str(dry.output))) == 4


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"routing": {"Warm": "Annotate 9", "otherwise": "Annotate 2"}}, r"no pathway 'Annotate 9'.*Annotate 1"),
        ({"routing": {"Wram": "Annotate 1", "otherwise": "Annotate 2"}}, r"no class 'Wram': did you mean 'Warm'"),
        ({"labels": {"classification": "Shade"}}, r"ontology 'Colours' has no 'Shade': .*Colour"),
        ({"labels": {"classes": {"red": "Hot"}}}, r"'red' is mapped to 'Hot', which is no option of 'Colour'"),
        ({"labels": {"classes": {"rde": "Warm"}}}, r"the classifier has no class 'rde': did you mean 'red'"),
        (
            {"labels": {}},
            r"none of the classifier's classes \(red, green, blue, …\) is mapped to an option of 'Colour'",
        ),
        ({"classifier": {"use": "tests.answering:ANIMALS"}}, r"'ANIMALS' is a Ontology, expected a class"),
        ({"classifier": {"weights": "mobilenet_v3"}}, r"is not a model card \(did you mean 'mobilenet_v2'"),
    ],
)
def test_what_cannot_work_is_told_before_the_first_task(stage, encord_server, change, complaint):
    _, source = stage
    assembly = assembly_of(source, **change)
    with pytest.raises(SetupError, match=complaint):
        prepare(assembly)
    wrong = [check.detail for check in run_checks(assembly_of(source, **change)) if not check.passed]
    assert len([detail for detail in wrong if not detail.startswith("waits for")]) == 1
    assert encord_server.world.moves == []


def test_check_tells_which_option_each_class_becomes(photos):
    checks = {check.name: check.detail for check in run_checks(assembly_of(photos))}
    assert checks["classes"] == (
        "'Colour' of 'Classifier': Warm from red; Cold from blue; 1 class has no option of 'Colour': green"
    )
    alike = assembly_of(photos, labels={"classes": {"red": "red", "blue": "blue"}}, routing={"otherwise": "Annotate 1"})
    (said,) = (check.detail for check in run_checks(alike) if check.name == "classes")
    assert said.startswith("'Class' of 'Classifier': red; blue")
    assert checks["routing"] == "1. has('Warm') → Annotate 1; 2. otherwise → Annotate 2"
    assert checks["weights"].endswith("3 classes, batches of 4; of a video it sees 8 frames")


def test_the_answer_of_a_video_is_the_mean_of_its_frames():
    parts = assembly_of({"path": "."}).classification
    scores = np.array([[0.9, 0.0, 0.0], [0.5, 0.0, 0.0]], np.float32)
    record = ClassRecord(VideoInfo(4, 4, 10, 25.0, 0.4), np.array([2, 7]), scores, "")
    (placed,) = parts.place_answers(record)
    assert (placed.answer.name, placed.first_frame, placed.last_frame) == ("Warm", 0, 9)
    assert placed.answer.confidence == pytest.approx(0.7)


def test_a_page_counts_the_answers(photos: dict[str, Any]) -> None:
    assembly = assembly_of(photos)
    page = page_of(assembly, run_whole(assembly))
    assert {bar.name: bar.value for bar in page.pathways} == {"Annotate 1": 2, "Annotate 2": 3}
    assert {view.task.status for view in page.tasks} == {"done"}
    assert [(bar.name, bar.value) for bar in page.classes] == [("Warm", 2), ("Cold", 1), ("no answer", 2)]
    assert page.classes_title == "Answers"
    captions = {view.task.title: [shown.caption for shown in view.thumbnails] for view in page.tasks}
    assert captions["a.png"] == ["Warm 0.98"]
    assert len(captions["video.mp4"]) == 4
    assert captions["video.mp4"][0].startswith("no answer; likeliest ")
    assert all(shown.source.startswith("data:image/jpeg") for view in page.tasks for shown in view.thumbnails)


@pytest.mark.needs_test_data
@pytest.mark.usefixtures("real_weights")
@pytest.mark.slow
def test_the_ready_config_answers_real_pictures(test_data, tmp_path):
    path = Path(__file__).parents[3] / "configs" / "classify.yaml"
    classes = "labels.classes={moped: Dog, kite: Cat}"  # these pictures show no cat or dog that is sure
    settings = [f"source.path={test_data / 'coco_mini' / 'images'}", f"source.output={tmp_path / 'out'}", classes]
    report = run_whole(assemble(load_config(path, settings), path.parent))
    assert len(report.tasks) == 53
    assert report.failed == []
    moped = next(row for row in table(str(tmp_path / "out")) if row["likeliest_class"] == "moped")
    assert (moped["answer"], moped["pathway"]) == ("Dog", "Annotate dogs")


@pytest.mark.needs_test_data
@pytest.mark.usefixtures("real_weights", "encord_environment")
def test_the_ready_config_sends_a_stage_s_pictures_where_their_answers_say(
    test_data, tmp_path, encord_server, encord_client
):
    world = encord_server.world
    project = world.add_project(
        ontology=world.add_ontology(editor([], [radio_classification("Animal", ["Cat", "Dog"])])),
        stages={AGENT: "AGENT", "Cats": "ANNOTATION", "Dogs": "ANNOTATION", "Others": "ANNOTATION", COMPLETE: "DONE"},
        pathways={"Annotate cats": "Cats", "Annotate dogs": "Dogs", "Other": "Others"},
    )
    for path in sorted((test_data / "coco_mini" / "images").glob("*.jpg"))[
        :4
    ]:  # a vase, a freight car, a kite, a moped
        world.add_task(project.stage(AGENT), world.add_image(path))
    source = f"source={{use: encord, project_hash: {project.uuid}, stage: {AGENT}, output: {tmp_path / 'out'}}}"
    settings = (source, "labels.classes={moped: Dog, kite: Cat, vase: Cat}", "classifier.conf=0.2")
    path = Path(__file__).parents[3] / "configs" / "classify.yaml"
    assert run_config(path, settings) == 0
    found = {
        title: answers[0][0] if answers else "" for title, answers in answers_by_title(encord_client, project).items()
    }
    by_stage = {"Cat": project.titles_at("Cats"), "Dog": project.titles_at("Dogs"), "": project.titles_at("Others")}
    assert by_stage == {kind: sorted(title for title in found if found[title] == kind) for kind in by_stage}
    assert sorted(map(len, by_stage.values())) == [1, 1, 2]
