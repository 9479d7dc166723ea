from __future__ import annotations

import copy
import json
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from encord.http.querier import Querier

import prelabel
from prelabel import VideoDetections, VideoInfo
from prelabel.encord.project import EncordProject, EncordTask
from prelabel.encord.sink import EncordSink
from prelabel.encord.source import EncordSource
from prelabel.errors import LabelError, RowTooLargeError, SaveError, TakenError
from prelabel.labels.row.write import write_detections
from prelabel.store.source import RowOptions
from prelabel.testing.encord_server import (
    AGENT,
    ANNOTATE,
    LostAnswer,
    MalformedJson,
    Refusal,
    ResetInsideBody,
    Status,
)
from prelabel.testing.encord_server.faults import CarryOut
from prelabel.testing.encord_server.records import DataUnit, Json, LabelRow
from prelabel.testing.encord_server.wire import Answer
from tests.builders import video_detections
from tests.encord.test_source import pictures, replace_clip
from tests.encord_fixtures import NUM_FRAMES, ConnectAs, Platform
from tests.reach import encord_source, map_of_roads, reach

pytestmark = [
    pytest.mark.usefixtures("encord_environment"),
    pytest.mark.filterwarnings("ignore:save_label_row is deprecated:DeprecationWarning"),
]

INFO = VideoInfo(width=96, height=64, num_frames=NUM_FRAMES, average_fps=30.0)
RECORD = {"model": "yolo11n", "weights_sha256": "ab" * 32, "config_sha256": None}
FOUND = video_detections(
    [
        (0, (9.6, 6.4, 19.2, 32.0), 0.9, 0),
        (0, (48.0, 6.4, 67.2, 32.0), 0.75, 1),
        (7, (9.6, 6.4, 19.2, 32.0), 0.5, 0),
    ]
)


@dataclass
class Way:
    """A task at the stage and the way of its labels to the platform."""

    platform: Platform
    project: EncordProject
    source: EncordSource
    sink: EncordSink

    def task(self) -> EncordTask:
        (task,) = self.source.tasks()
        assert isinstance(task, EncordTask)
        return task

    def write(self, detections: VideoDetections = FOUND, info: VideoInfo = INFO) -> None:
        self.sink.write(self.task(), info, detections)

    def row(self, data: DataUnit | None = None, branch: str = "main") -> LabelRow:
        row = self.platform.project.row(data or self.platform.clip, branch)
        assert row is not None
        return row

    def saves(self) -> int:
        return len(self.platform.server.world.saves)


@pytest.fixture
def way(platform: Platform, tmp_path: Path) -> Way:
    project = reach(platform)
    sink = EncordSink(project, map_of_roads(project), RowOptions(50_000_000))
    return Way(platform, project, encord_source(platform, tmp_path), sink)


def boxes(row: LabelRow) -> list[tuple[int, str, float, float]]:
    return [(frame, found["name"], found["confidence"], found["boundingBox"]["x"]) for frame, found in row.objects()]


def content(row: LabelRow) -> Json:
    return copy.deepcopy(
        {
            "labels": row.labels,
            "object_answers": row.object_answers,
            "classification_answers": row.classification_answers,
            "object_actions": row.object_actions,
        }
    )


def test_labels_arrive_as_a_model_s(way: Way) -> None:
    way.write()
    assert boxes(way.row()) == [
        (0, "Pedestrian", 0.9, 0.1),
        (0, "Vehicle", 0.75, 0.5),
        (7, "Pedestrian", 0.5, 0.1),
    ]
    assert {found["manualAnnotation"] for _, found in way.row().objects()} == {False}
    assert way.saves() == 1
    assert '"validate_before_saving":true' in way.platform.server.world.saves[0].request_body.decode()


def test_what_was_saved_loads_in_the_sdk(way: Way) -> None:
    way.write()
    row = way.platform.initialised_row()
    found = [(i.object_name, a.frame, a.confidence) for i in row.get_object_instances() for a in i.get_annotations()]
    assert sorted(found) == [("Pedestrian", 0, 0.9), ("Pedestrian", 7, 0.5), ("Vehicle", 0, 0.75)]


def test_row_without_detections_is_made_and_empty(way: Way) -> None:
    way.write(video_detections([]))
    assert way.row().objects() == []
    assert way.saves() == 1


def test_labels_go_to_the_task_s_branch(way: Way) -> None:
    (waiting,) = way.platform.project.tasks_at(AGENT)
    way.platform.server.world.move_task(waiting, way.platform.project.stage(ANNOTATE), user="owner@example.com")
    way.platform.server.world.add_task(way.platform.project.stage(AGENT), way.platform.clip, branch="second look")
    way.write()
    assert way.platform.project.row(way.platform.clip) is None
    assert len(way.row(branch="second look").objects()) == 3


def test_people_s_labels_stay_bit_for_bit(way: Way, encord_client_as: ConnectAs) -> None:
    people = encord_client_as("anna@example.com").get_project(way.platform.project.uuid)
    anna = replace(way.platform, sdk=people)
    row = anna.initialised_row()
    row.add_object_instance(anna.box([0, 7, 8]))
    row.add_classification_instance(anna.wet_weather())
    row.save()
    before = content(way.row())

    way.write()
    way.write(FOUND.where(np.array([True, False, False])))
    way.write(video_detections([]))
    assert content(way.row()) == before


def test_labels_of_archived_objects_stay_though_a_plain_read_leaves_them_out(way: Way) -> None:
    row = way.platform.initialised_row()
    row.add_object_instance(way.platform.box([0], name="Vehicle"))
    row.save()
    before = content(way.row())
    for entry in way.platform.project.ontology.editor["objects"]:
        entry["archived"] = entry["name"] == "Vehicle"
    assert way.platform.initialised_row().get_object_instances() == []

    way.write(video_detections([]))
    assert content(way.row()) == before


def test_rerun_replaces_exactly_its_own(way: Way, encord_client_as: ConnectAs) -> None:
    way.write()
    people = encord_client_as("anna@example.com").get_project(way.platform.project.uuid)
    anna = replace(way.platform, sdk=people)
    row = anna.initialised_row()
    row.add_object_instance(anna.box([3]))
    row.save()
    (anna_s,) = [found for frame, found in way.row().objects() if frame == 3]
    kept = copy.deepcopy(anna_s)

    way.write(FOUND.where(np.array([False, True, True])))
    assert [(frame, name) for frame, name, *_ in boxes(way.row())] == [
        (0, "Vehicle"),
        (3, "Pedestrian"),
        (7, "Pedestrian"),
    ]
    assert [found for frame, found in way.row().objects() if frame == 3] == [kept]
    assert set(way.row().object_answers) == {found["objectHash"] for _, found in way.row().objects()}


def test_writing_twice_is_writing_once(way: Way) -> None:
    way.write()
    once = content(way.row())
    way.write()
    assert content(way.row()) == once
    assert way.saves() == 1  # what stands there already is not sent again


@pytest.mark.parametrize(
    "fault",
    [LostAnswer(carried_out=True), LostAnswer(carried_out=False), MalformedJson(), ResetInsideBody(20), Status(504)],
    ids=["lost", "cut", "malformed", "reset", "504"],
)
@pytest.mark.parametrize("operation", ["create_label_rows", "save_label_rows", "list_label_rows", "list_tasks"])
def test_passing_trouble_ends_in_the_same_labels(way: Way, operation: str, fault: LostAnswer) -> None:
    task = way.task()
    way.platform.server.faults.add(operation, fault)
    way.sink.write(task, INFO, FOUND)
    assert len(way.row().objects()) == 3
    assert len(way.platform.project.rows) == 1


def test_row_that_another_worker_makes_meanwhile_is_used(way: Way) -> None:
    task = way.task()
    way.platform.server.faults.add("create_label_rows", Refusal("RESOURCE_EXISTS_ERROR"))
    way.sink.write(task, INFO, FOUND)
    assert len(way.row().objects()) == 3


def test_task_that_was_moved_meanwhile_is_not_written_to(way: Way) -> None:
    task = way.task()
    (waiting,) = way.platform.project.tasks_at(AGENT)
    way.platform.server.world.move_task(waiting, way.platform.project.stage(ANNOTATE), user="anna@example.com")
    with pytest.raises(TakenError, match=r"clip\.mp4: no longer waits at stage .*; nothing was saved"):
        way.sink.write(task, INFO, FOUND)
    assert way.platform.project.rows == {}


def test_row_too_large_is_refused_before_it_is_sent(way: Way) -> None:
    sink = EncordSink(way.project, map_of_roads(way.project), RowOptions(1500))
    with pytest.raises(RowTooLargeError, match=r"got 0\.00 MB, expected 0\.00 MB at most"):
        sink.write(way.task(), INFO, FOUND)
    assert way.platform.server.calls_of("save_label_rows") == []


def test_row_too_large_for_the_platform_says_so(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urllib3.util.retry.time.sleep", lambda seconds: None)  # the SDK's own 9 s
    way.platform.server.faults.add("save_label_rows", Status(413, message="40 MB at most"), times=4)
    with pytest.raises(RowTooLargeError, match=r"saving its labels: .*40 MB at most"):
        way.write()


def test_a_frame_past_the_end_is_refused_first(way: Way) -> None:
    past = video_detections([(NUM_FRAMES, (0, 0, 9, 9), 0.5, 0)])
    with pytest.raises(LabelError, match=f"a box on frame {NUM_FRAMES}, the platform has frames 0 to {NUM_FRAMES - 1}"):
        way.write(past, replace(INFO, num_frames=NUM_FRAMES + 1))
    assert way.platform.project.rows == {}


def test_refusal_of_the_platform_is_told(way: Way) -> None:
    way.platform.server.faults.add("save_label_rows", Refusal("OPERATION_NOT_ALLOWED"))
    with pytest.raises(SaveError, match=r"clip\.mp4: saving its labels: the platform refused: .*not allowed"):
        way.write()
    way.platform.server.faults.add("save_label_rows", Refusal("FEATURE_DOES_NOT_EXIST_ERROR"))
    with pytest.raises(SaveError, match="if the ontology has changed since this run began, start"):
        way.write()


def test_row_that_is_not_valid_is_left_alone_with_its_reasons(way: Way) -> None:
    way.write()
    way.row().validation_errors = ["object abc is twice at 7"]
    with pytest.raises(LabelError, match=r"not valid .*: object abc is twice at 7: mend it"):
        way.write(video_detections([]))
    assert way.saves() == 1


def test_model_is_on_record_beside_what_others_noted(way: Way) -> None:
    sink = EncordSink(way.project, map_of_roads(way.project), RowOptions(50_000_000, model_record=RECORD))
    sink.write(way.task(), INFO, FOUND)
    noted = way.platform.clip.item.client_metadata
    assert noted["camera"] == 1
    assert noted["prelabel"] == {
        "model": "yolo11n",
        "weights_sha256": "ab" * 32,
        "prelabel": prelabel.__version__,
        "project": way.platform.project.uuid,
        "branch": "main",
        "time": noted["prelabel"]["time"],
        "instances": 3,
    }
    assert sink.warnings == []


def test_record_that_cannot_be_kept_is_a_warning(way: Way) -> None:
    sink = EncordSink(way.project, map_of_roads(way.project), RowOptions(50_000_000, model_record=RECORD))
    way.platform.server.faults.add("update_item", Status(403, message="no"))
    sink.write(way.task(), INFO, FOUND)
    assert len(way.row().objects()) == 3
    (warning,) = sink.warnings
    assert warning.startswith("clip.mp4: noting the model in the client metadata: the key's user may not do this")


def test_no_record_makes_no_call(way: Way) -> None:
    way.write()
    assert way.platform.server.calls_of("update_item") == way.platform.server.calls_of("get_item") == []


def test_image_group_is_labelled_picture_by_picture(way: Way, tmp_path: Path) -> None:
    group = way.platform.server.world.add_image_group(pictures(tmp_path, ["b.png", "a.png", "c.png"]))
    replace_clip(way.platform, group)
    info = VideoInfo(width=32, height=24, num_frames=3, frame_sizes=((32, 24),) * 3)
    way.write(video_detections([(0, (8, 0, 16, 12), 0.5, 0), (2, (16, 0, 32, 12), 0.75, 1)]), info)
    assert boxes(way.row(group)) == [(0, "Pedestrian", 0.5, 0.25), (2, "Vehicle", 0.75, 0.5)]
    by_picture = {
        group.pictures[n].item.name: len(labels["objects"]) for n, labels in enumerate(way.row(group).labels.values())
    }
    assert by_picture == {"b.png": 1, "a.png": 0, "c.png": 1}


def test_image_sequence_is_labelled_picture_by_picture(way: Way, encord_clip: Path) -> None:
    sequence = way.platform.server.world.add_image_sequence(encord_clip)
    replace_clip(way.platform, sequence)
    way.write()
    assert [(frame, name) for frame, name, *_ in boxes(way.row(sequence))] == [
        (0, "Pedestrian"),
        (0, "Vehicle"),
        (7, "Pedestrian"),
    ]


def test_image_is_labelled(way: Way, tmp_path: Path) -> None:
    image = way.platform.server.world.add_image(*pictures(tmp_path, ["still.png"]))
    replace_clip(way.platform, image)
    way.write(video_detections([(0, (8, 0, 16, 12), 0.5, 0)]), VideoInfo(width=32, height=24, num_frames=1))
    assert boxes(way.row(image)) == [(0, "Pedestrian", 0.5, 0.25)]


def test_sdk_with_other_private_parts_writes_the_same(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    way.write()
    expected = boxes(way.row())
    way.write(video_detections([]))
    request = Querier._request
    monkeypatch.setattr(Querier, "_request", lambda *args, payload: request(*args, payload=payload))
    way.write()
    assert boxes(way.row()) == expected


def test_the_window_between_reading_and_saving_holds_no_other_call(way: Way) -> None:
    way.write()
    way.platform.server.calls.clear()
    way.write(FOUND.where(np.array([True, True, False])))
    assert [call.operation for call in way.platform.server.calls] == [
        "list_tasks",
        "list_label_rows",
        "list_tasks",
        "list_tasks",
        "list_label_rows",
        "get_label_rows",
        "save_label_rows",
    ]


class Anna:
    """Draws a box on the clip's row whenever she is asked to."""

    def __init__(self, way: Way, connect_as: ConnectAs) -> None:
        people = connect_as("anna@example.com").get_project(way.platform.project.uuid)
        self.platform, self.drawn = replace(way.platform, sdk=people), 0

    def draw(self) -> None:
        row = self.platform.initialised_row()
        row.add_object_instance(self.platform.box([self.drawn]))
        row.save()
        self.drawn += 1


def while_merging(way: Way, monkeypatch: pytest.MonkeyPatch, times: int, act: Callable[[], None]) -> None:
    """Lets somebody act between the read of a row and its save, the first `times` that labels are put on it."""
    monkeypatch.setattr("prelabel.encord.sink.FRESH_SECONDS", 0.0)
    left = iter(range(times))

    def writes_slowly(*args: object, **kwargs: object) -> object:
        written = write_detections(*args, **kwargs)
        if next(left, None) is not None:
            act()
        return written

    monkeypatch.setattr("prelabel.encord.sink.write_detections", writes_slowly)


def test_what_is_saved_while_labels_are_put_on_a_row_is_kept(
    way: Way, monkeypatch: pytest.MonkeyPatch, encord_client_as: ConnectAs
) -> None:
    way.write()
    anna = Anna(way, encord_client_as)
    while_merging(way, monkeypatch, 2, anna.draw)
    way.write(FOUND.where(np.array([True, True, False])))
    assert anna.drawn == 2
    assert len(way.row().objects()) == 2 + 2
    assert way.saves() == 4


def test_a_row_that_is_saved_without_end_is_tried_again_later(
    way: Way, monkeypatch: pytest.MonkeyPatch, encord_client_as: ConnectAs
) -> None:
    anna = Anna(way, encord_client_as)
    while_merging(way, monkeypatch, 99, anna.draw)
    with pytest.raises(
        SaveError, match=r"clip\.mp4: somebody else saved its label row 5 times .*: nothing was saved"
    ) as raised:
        way.write()
    assert raised.value.retryable
    assert way.saves() == anna.drawn == 5


def test_what_is_saved_while_a_save_waits_for_its_next_try_is_kept(way: Way, encord_client_as: ConnectAs) -> None:
    way.write()
    anna = Anna(way, encord_client_as)

    class AnnaIsQuicker:
        def __call__(self, carry_out: CarryOut, stopping: threading.Event) -> Answer:
            threading.Thread(target=anna.draw).start()
            while anna.drawn == 0 and not stopping.wait(0.01):
                pass
            return Status(504)(carry_out, stopping)

    way.platform.server.faults.add("save_label_rows", AnnaIsQuicker())
    way.write(FOUND.where(np.array([True, True, False])))
    assert len(way.row().objects()) == 2 + 1


def test_many_labels_take_seconds(way: Way) -> None:
    num = 5_000
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 40, (num, 2)).astype(np.float32)
    frames = np.sort(rng.integers(0, NUM_FRAMES, num))
    found = VideoDetections(
        frame_index=frames,
        xyxy=np.hstack([corner, corner + rng.uniform(4, 20, (num, 2)).astype(np.float32)]),
        confidence=rng.uniform(0.3, 1, num).astype(np.float32),
        class_id=np.zeros(num, np.int64),
        track_id=np.full(num, -1, np.int64),
    )
    way.write(found)
    way.write(found)
    assert len(way.row().objects()) == num


def test_no_link_and_no_label_is_logged(way: Way, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    way.platform.server.faults.add("save_label_rows", MalformedJson())
    with way.task().open():
        way.write()
    assert "sig=" not in caplog.text
    assert json.dumps(way.row().objects()[0][1]["objectHash"]) not in caplog.text
