"""The label row: equal to what the SDK writes, our own instances known again, nobody else's touched."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from datetime import timedelta

import numpy as np
import orjson
import pytest
from encord.http.query_methods import QueryMethods
from encord.http.request import Request
from encord.objects.bitmask import BitmaskCoordinates
from encord.orm.label_row import LabelRow as LabelRowRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from prelabel.data.boxes import corners_on_grid
from prelabel.data.label_map import build_label_map
from prelabel.errors import LabelError, RowTooLargeError
from prelabel.labels.row.own import find_own, remove_own
from prelabel.labels.row.shapes import box_geometry
from prelabel.labels.row.size import check_row_size, json_pieces, row_num_bytes, save_request
from prelabel.labels.row.write import write_detections
from tests.labelling import (
    IMAGE_GROUP,
    MEDIA,
    NOW,
    VIDEO,
    detections,
    load_in_sdk,
    map_of_shapes,
    new_row,
    objects_in,
    ontology_of_shapes,
    write_with_sdk,
)

ONE_OF_EACH = [
    (0, (1, 2, 30, 31), 0.5, 0),
    (0, (4, 4, 9, 9), 0.61, 1),
    (0, (0, 0, 32, 32), 1, 2),
    (0, (3, 5, 8, 7), 0, 3),
]


def tracks(num_frames):
    """Returns a track of each shape, not on every frame, each in one that another lacks, and a box of no track."""
    rows = [
        (f, (x1, y1, x2 - f % 3, y2), confidence, n)
        for f in range(num_frames)
        for n, (_, (x1, y1, x2, y2), confidence, _) in enumerate(ONE_OF_EACH)
        if f % 4 != n
    ]
    rows.append((rows[-1][0], (1, 1, 3, 3), 0.5, 0))
    return detections(*rows, track_id=[10 - row[3] for row in rows[:-1]] + [-1])


def write(row, found, info, now=NOW):
    return write_detections(row, found, info, map_of_shapes(), now=now)


@pytest.mark.parametrize("kind", MEDIA)
def test_row_equals_what_the_sdk_writes_for_the_same_detections(kind):
    info = MEDIA[kind]
    rows = [(f, box, confidence, n) for f in range(min(info.num_frames, 12)) for _, box, confidence, n in ONE_OF_EACH]
    found = detections(*rows)
    written = write(new_row(info), found, info).row
    assert written == write_with_sdk(new_row(info), found, info, list(written["object_answers"]))


@pytest.mark.parametrize("kind", ["video", "img_group"])
def test_row_of_tracks_equals_what_the_sdk_writes_for_them(kind):
    info = MEDIA[kind]
    found = tracks(min(info.num_frames, 12))
    written = write(new_row(info), found, info)
    assert (written.num_instances, len(written.row["object_answers"])) == (5, 5)
    assert written.row == write_with_sdk(new_row(info), found, info, list(written.row["object_answers"]))
    assert load_in_sdk(json.loads(json.dumps(written.row)), info).to_encord_dict() == written.row


@pytest.mark.parametrize("kind", MEDIA)
def test_sdk_loads_the_row_and_writes_it_back_the_same(kind):
    written = write(new_row(MEDIA[kind]), detections(*ONE_OF_EACH), MEDIA[kind]).row
    assert load_in_sdk(json.loads(json.dumps(written)), MEDIA[kind]).to_encord_dict() == written


def test_sdk_finds_each_box_where_it_was_put():
    found = detections((3, (6.4, 4.8, 32, 24), 0.75, 0), (7, (0, 0, 64, 48), 0.25, 0))
    label_row = load_in_sdk(write(new_row(VIDEO), found, VIDEO).row, VIDEO)
    seen = {
        annotation.frame: (annotation.coordinates.to_dict(), annotation.confidence, annotation.manual_annotation)
        for instance in label_row.get_object_instances()
        for annotation in instance.get_annotations()
    }
    assert seen == {
        3: ({"h": 0.4, "w": 0.4, "x": 0.1, "y": 0.1}, 0.75, False),
        7: ({"h": 1.0, "w": 1.0, "x": 0.0, "y": 0.0}, 0.25, False),
    }


def test_boxes_of_a_picture_go_to_its_own_unit_by_sequence():
    row = new_row(IMAGE_GROUP)
    row["data_units"] = dict(reversed(row["data_units"].items()))
    written = write(row, detections((2, (5, 7, 25, 35), 0.5, 3)), IMAGE_GROUP).row
    ((unit, frame, label),) = objects_in(written)
    assert frame == 2
    assert written["data_units"][unit]["data_sequence"] == "2"
    assert (label["bitmask"]["width"], label["bitmask"]["height"]) == (50, 70)


@given(st.data())
@settings(max_examples=300)
def test_bitmask_of_a_rectangle_equals_the_sdks_run_lengths(data):
    width, height = data.draw(st.integers(1, 50)), data.draw(st.integers(1, 20))
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    right, bottom = data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height))
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = True
    box = corners_on_grid(np.array([[left, top, right, bottom]]), np.array([width, height]))[0].tolist()
    assert box_geometry("bitmask", tuple(box), width, height) == {"bitmask": BitmaskCoordinates(mask).to_dict()}


def test_box_thinner_than_a_pixel_still_sets_one():
    assert box_geometry("bitmask", (99_999, 99_999, 100_000, 100_000), 4, 4)["bitmask"]["rleString"] == "?1"


def test_width_never_carries_a_box_past_the_frame():
    found = detections(*((0, (64 - w, 48 - w, 64, 48), 0.5, 0) for w in np.linspace(0.01, 30, 400)))
    for _, _, label in objects_in(write(new_row(VIDEO), found, VIDEO).row):
        box = label["boundingBox"]
        assert round(box["x"] + box["w"], 9) <= 1
        assert round(box["y"] + box["h"], 9) <= 1


def test_writing_twice_is_the_same_as_writing_once():
    found = detections(*ONE_OF_EACH, (5, (1, 1, 9, 9), 0.5, 0))
    once = write(new_row(VIDEO), found, VIDEO)
    row = json.loads(json.dumps(once.row))
    for number, answer in enumerate(row["object_answers"].values()):
        answer["objectNumber"] = number
    twice = write(row, found, VIDEO, now=NOW + timedelta(days=1))
    assert twice.row == row
    assert twice.num_instances == 5


def test_another_run_replaces_exactly_what_the_first_wrote():
    first = write(new_row(VIDEO), detections(*ONE_OF_EACH, (9, (1, 1, 5, 5), 0.5, 0)), VIDEO).row
    found = detections((4, (1, 1, 5, 5), 0.5, 0))
    assert write(first, found, VIDEO).row == write(new_row(VIDEO), found, VIDEO).row


def test_no_detections_leave_the_row_as_it_was_before_ours():
    row = new_row(VIDEO)
    assert remove_own(write(row, detections(*ONE_OF_EACH), VIDEO).row) == row
    assert write(write(row, detections(*ONE_OF_EACH), VIDEO).row, detections(), VIDEO).row == row


def test_given_row_is_not_changed():
    row = write(new_row(VIDEO), detections(*ONE_OF_EACH), VIDEO).row
    before = copy.deepcopy(row)
    write(row, detections((0, (2, 2, 8, 8), 0.5, 0)), VIDEO)
    assert row == before


def test_numbers_that_come_back_as_integers_are_still_known():
    row = write(new_row(VIDEO), detections((0, (0, 0, 64, 48), 1, 0), (1, (0, 0, 64, 48), 1, 1)), VIDEO).row
    as_javascript_sends_it = json.loads(json.dumps(row).replace("1.0", "1").replace("0.0", "0"))
    assert len(find_own(as_javascript_sends_it)) == 2


@pytest.mark.parametrize("form", ["polygon", "polygons"])
def test_polygon_is_known_by_either_of_its_forms(form):
    row = write(new_row(VIDEO), detections((0, (1, 1, 9, 9), 0.5, 2)), VIDEO).row
    ((_, _, label),) = objects_in(row)
    del label[form]
    assert len(find_own(row)) == 1


def change_label(**values):
    def change(row):
        objects_in(row)[0][2].update(values)

    return change


def track_on(row):
    (unit,) = row["data_units"].values()
    unit["labels"]["8"] = copy.deepcopy(unit["labels"]["0"])


def answer(row):
    next(iter(row["object_answers"].values()))["classifications"].append({"name": "Occluded"})


def act(row):
    key = next(iter(row["object_answers"]))
    row["object_actions"][key] = {"objectHash": key, "actions": [{"name": "Moving"}]}


@pytest.mark.parametrize(
    "edit",
    [
        change_label(boundingBox={"h": 0.4, "w": 0.4, "x": 0.1, "y": 0.10001}),
        change_label(featureHash="obj00002"),
        change_label(manualAnnotation=True),
        change_label(confidence=1.0),
        change_label(isDeleted=True),
        change_label(boundingBox=None, polygon={"0": {"x": 0.1, "y": 0.1}}),
        change_label(boundingBox={"h": "0.4", "w": None}),
        track_on,
        answer,
        act,
    ],
    ids=["moved", "re-classed", "confirmed", "scored", "deleted", "redrawn", "garbled", "tracked", "answered", "acted"],
)
def test_instance_that_a_person_edited_is_theirs(edit):
    row = write(new_row(VIDEO), detections((0, (6.4, 4.8, 32, 24), 0.75, 0)), VIDEO).row
    edit(row)
    assert find_own(row) == {}
    assert remove_own(row) == row


def test_box_that_a_person_moved_is_not_written_a_second_time():
    found = detections((0, (6.4, 4.8, 32, 24), 0.75, 0), (1, (6.4, 4.8, 32, 24), 0.75, 0))
    row = write(new_row(VIDEO), found, VIDEO).row
    objects_in(row)[0][2]["boundingBox"]["x"] = 0.2
    again = write(row, found, VIDEO)
    assert again.row == row
    assert again.num_instances == 1


def test_answers_that_outlive_their_object_are_not_taken_over():
    found = detections((0, (6.4, 4.8, 32, 24), 0.75, 0))
    row = write(new_row(VIDEO), found, VIDEO).row
    (orphan,) = row["object_answers"]
    row["object_answers"][orphan]["classifications"] = [{"name": "Occluded"}]
    (unit,) = row["data_units"].values()
    unit["labels"] = {}
    again = write(row, found, VIDEO)
    assert again.row["object_answers"][orphan]["classifications"] == [{"name": "Occluded"}]
    assert [label["objectHash"] for _, _, label in objects_in(again.row)] != [orphan]
    assert write(again.row, found, VIDEO).row == again.row


def test_equal_boxes_on_one_frame_get_hashes_of_their_own_and_are_known_again():
    found = detections(*[(0, (1, 1, 9, 9), 0.5, 0)] * 4)
    row = write(new_row(VIDEO), found, VIDEO).row
    assert len(find_own(row)) == 4
    assert write(row, found, VIDEO).row == row
    with pytest.raises(LabelError, match="is there 4 times"):
        write(new_row(VIDEO), detections(*[(0, (1, 1, 9, 9), 0.5, 0)] * 5), VIDEO)


def edit_one_box(row):
    objects_in(row)[7][2]["boundingBox"]["x"] += 0.01


def take_one_box_away(row):
    (unit,) = row["data_units"].values()
    unit["labels"]["5"]["objects"] = []


def carry_on(row):
    (unit,) = row["data_units"].values()
    unit["labels"]["30"] = copy.deepcopy(unit["labels"]["5"])


def reclass(row):
    for _, _, label in objects_in(row):
        label["featureHash"] = "obj00002"


@pytest.mark.parametrize("edit", [edit_one_box, take_one_box_away, carry_on, reclass, answer, act])
def test_track_that_a_person_touched_anywhere_is_theirs_as_a_whole_and_not_written_beside(edit):
    found = detections(*[(f, (f, 4, 20 + f, 30), 0.75, 0) for f in range(12)], track_id=1)
    row = write(new_row(VIDEO), found, VIDEO).row
    assert [len(placed) for placed in find_own(row).values()] == [12]
    edit(row)
    again = write(row, found, VIDEO)
    assert again.row == row
    assert again.num_instances == 0


def test_tracks_and_boxes_replace_each_other():
    boxes = detections(*[(f, (f, 4, 20 + f, 30), 0.75, 0) for f in range(12)])
    track = replace(boxes, track_id=np.ones(12, np.int64))
    as_boxes, as_track = write(new_row(VIDEO), boxes, VIDEO), write(new_row(VIDEO), track, VIDEO)
    assert (as_boxes.num_instances, as_track.num_instances) == (12, 1)
    assert write(as_boxes.row, track, VIDEO).row == as_track.row
    assert write(as_track.row, boxes, VIDEO).row == as_boxes.row


def test_writing_tracks_twice_is_writing_them_once_whatever_the_order_of_the_frames():
    row = write(new_row(VIDEO), tracks(12), VIDEO).row
    (unit,) = row["data_units"].values()
    unit["labels"] = dict(sorted(unit["labels"].items()))  # as text: 0, 1, 10, 11, 2, …
    assert write(row, tracks(12), VIDEO, now=NOW + timedelta(days=1)).row == row


def test_track_of_one_box_bears_the_mark_of_a_box():
    box = detections((3, (1, 1, 9, 9), 0.5, 0))
    assert (
        write(new_row(VIDEO), box, VIDEO).row == write(new_row(VIDEO), replace(box, track_id=np.array([4])), VIDEO).row
    )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(3, (1, 1, 9, 9), 0.5, 0), (3, (2, 2, 9, 9), 0.5, 0)], "frame 3: got two boxes of one track"),
        ([(3, (1, 1, 9, 9), 0.5, 0), (4, (1, 1, 9, 9), 0.5, 1)], "got a track that is 'bounding_box' and 'rotatable"),
    ],
)
def test_tracks_that_cannot_be_one_instance_are_refused(rows, message):
    with pytest.raises(LabelError, match=message):
        write(new_row(VIDEO), detections(*rows, track_id=1), VIDEO)


@pytest.mark.parametrize(
    ("found", "info", "message"),
    [
        (detections((40, (1, 1, 9, 9), 0.5, 0)), VIDEO, "expected 0 to 39"),
        (detections((0, (1, 1, 65, 9), 0.5, 0)), VIDEO, "outside its frame"),
        (detections((0, (1, 1, 1, 9), 0.5, 0)), VIDEO, "without an area"),
    ],
)
def test_detections_that_are_not_shaped_are_refused(found, info, message):
    with pytest.raises(LabelError, match=message):
        write(new_row(info), found, info)


def test_picture_that_the_row_lacks_is_refused():
    row = new_row(IMAGE_GROUP)
    row["data_units"].popitem()
    with pytest.raises(LabelError, match="got a box on frame 2, the row has 2 frames"):
        write(row, detections((2, (1, 1, 9, 9), 0.5, 0)), IMAGE_GROUP)


def test_other_kinds_of_data_are_refused_by_name():
    with pytest.raises(LabelError, match="got 'dicom', expected video, image or img_group"):
        write({**new_row(VIDEO), "data_type": "dicom"}, detections(), VIDEO)


def test_class_without_an_object_is_refused():
    label_map = build_label_map(["car", "polygon"], ontology_of_shapes(), {})
    with pytest.raises(LabelError, match="'car' is mapped to no object"):
        write_detections(new_row(VIDEO), detections((0, (1, 1, 9, 9), 0.5, 0)), VIDEO, label_map, now=NOW)


def test_request_is_the_one_that_the_sdk_sends():
    row = write(new_row(VIDEO, title="clip ü.mp4"), detections(*ONE_OF_EACH), VIDEO).row
    payload = LabelRowRecord(row)
    payload["validate_before_saving"] = True
    request = Request(QueryMethods.POST, LabelRowRecord.__name__.lower(), row["label_hash"], 1, 1, payload)
    body = orjson.dumps(save_request(row))
    assert json.loads(body) == json.loads(request.data)
    assert row_num_bytes(row) == len(body)


def test_row_past_the_limit_is_refused_with_what_would_fit():
    rows = [(f, (1, 1, 9 + n / 10, 9), 0.01 * n, 0) for f in range(0, 40, 2) for n in range(1, 100)]
    found = detections(*rows)
    row = write(new_row(VIDEO), found, VIDEO).row
    limit = row_num_bytes(row) * 2 // 5
    with pytest.raises(RowTooLargeError) as caught:
        check_row_size(row, limit)
    text = str(caught.value)
    assert "labels.conf=0.61 (780 of 1,980 instances)" in text
    assert "reader.stride=6" in text
    fitting = (
        found.where(found.confidence >= np.float32(0.61)),
        found.where(found.frame_index % 6 == 0),
    )
    for some in fitting:
        check_row_size(write(new_row(VIDEO), some, VIDEO).row, limit)


def test_row_of_tracks_past_the_limit_is_refused_with_what_fits_by_whole_tracks():
    rows = [(f, (n, 1, n + 9, 9), 0.01 * n if f % 4 else 0, 0) for f in range(0, 40, 2) for n in range(1, 50)]
    found = detections(*rows, track_id=[int(row[1][0]) for row in rows])
    row = write(new_row(VIDEO), found, VIDEO).row
    limit = row_num_bytes(row) * 2 // 5
    with pytest.raises(RowTooLargeError) as caught:
        check_row_size(row, limit)
    assert "labels.conf=0.31 (19 of 49 instances)" in str(caught.value)
    assert "reader.stride=6" in str(caught.value)
    for some in (found.where(found.track_id >= 31), found.where(found.frame_index % 6 == 0)):
        check_row_size(write(new_row(VIDEO), some, VIDEO).row, limit)


def filled(every: int, num_frames: int = 40):
    """Returns ten tracks of a box a frame, of which all were filled in but on every so-many-th frame."""
    rows = [(f, (n, 1, n + 9, 9), 0.05 * n, 0) for f in range(num_frames) for n in range(1, 11)]
    found = detections(*rows, track_id=[int(row[1][0]) for row in rows])
    interpolated = found.frame_index % every != 0
    return replace(found, confidence=np.where(interpolated, 0, found.confidence), interpolated=interpolated)


def test_a_box_that_was_filled_in_is_marked_as_the_editor_marks_one():
    row = write(new_row(VIDEO), filled(4, num_frames=5), VIDEO).row
    confidences = [label["confidence"] for _, frame, label in objects_in(row) if frame in (0, 1)]
    assert sorted(confidences) == pytest.approx([0.05 * n for n in range(1, 11)] + [0.99] * 10)
    assert find_own(row).keys() == row["object_answers"].keys()


def test_row_of_filled_in_boxes_past_the_limit_is_refused_with_what_fits():
    found = filled(4)
    row = write(new_row(VIDEO), found, VIDEO).row
    limit = row_num_bytes(row) * 2 // 5
    with pytest.raises(RowTooLargeError) as caught:
        check_row_size(row, limit)
    assert "labels.conf=0.36 (3 of 10 instances) or labels.keyframes.between=empty" in str(caught.value)
    for some in (found.where(found.track_id >= 8), found.where(~found.interpolated)):
        check_row_size(write(new_row(VIDEO), some, VIDEO).row, limit)


def test_size_says_if_other_people_s_labels_are_too_large():
    row = write(new_row(VIDEO), detections(*ONE_OF_EACH), VIDEO).row
    with pytest.raises(RowTooLargeError, match="are not prelabel's"):
        check_row_size(row, 500)


def test_row_within_the_limit_passes():
    row = write(new_row(VIDEO), detections(*ONE_OF_EACH), VIDEO).row
    check_row_size(row, row_num_bytes(row))


def test_text_of_a_row_comes_in_pieces_of_a_frame_each():
    labels = {str(frame): {"objects": [{"value": "\u00e4"}], "classifications": []} for frame in range(1000)}
    row = {"data_units": {"u": {"labels": labels, "width": 4}}, "object_answers": {"a": {}}, "is_valid": True}
    pieces = list(json_pieces(row))
    assert json.loads(b"".join(pieces)) == row
    assert max(map(len, pieces)) < 200
