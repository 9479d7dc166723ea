"""Random people on random rows: whatever they did, before us or to what we wrote, is kept bit for bit."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
from encord.objects import LabelRowV2, Object
from hypothesis import given, settings
from hypothesis import strategies as st

from prelabel.labels.row.own import find_own
from prelabel.labels.row.write import write_detections
from tests.labelling import (
    MEDIA,
    NOW,
    SHAPES,
    coordinates,
    detections,
    load_in_sdk,
    map_of_shapes,
    new_row,
    objects_in,
    write_with_sdk,
)

SPAN = st.tuples(st.integers(0, 21), st.integers(1, 20))
FOUND = st.lists(
    st.tuples(st.integers(0, 39), SPAN, SPAN, st.integers(0, 100), st.integers(0, 3)), max_size=8, unique=True
)
DRAWN = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.lists(st.integers(0, 39), min_size=1, max_size=4, unique=True),
        st.sampled_from(["", "Yes", "No"]),
        st.sampled_from(["", "some text", "ünï\u2028"]),
        st.booleans(),
    ),
    max_size=5,
)
BOOL = st.booleans()
WEATHER = st.lists(st.integers(0, 39), max_size=3, unique=True)
FEW = settings(max_examples=40)


def as_detections(values, num_frames):
    rows = [
        (frame % num_frames, (x, y, x + w / 2, y + h / 3), confidence / 100, class_id)
        for frame, (x, w), (y, h), confidence, class_id in values
    ]
    return detections(*sorted({(row[0], row[3], row[1]): row for row in rows}.values(), key=lambda row: row[0]))


def as_tracks(found):
    """Returns the detections with those of a class linked, one a frame, and the rest left single."""
    places = list(zip(found.frame_index.tolist(), found.class_id.tolist(), strict=True))
    linked = [place not in places[:n] for n, place in enumerate(places)]
    return replace(found, track_id=np.where(linked, found.class_id, -1))


def row_of_people(info, drawn, weather):
    """Returns a row on which the SDK alone has put objects, tracks, nested and dynamic answers, and classifications."""
    label_row = load_in_sdk(new_row(info), info)
    for class_id, frames, occluded, note, moving in drawn:
        draw_object(label_row, info, SHAPES[class_id], sorted({frame % info.num_frames for frame in frames}))
        set_answers(label_row.get_object_instances()[-1], occluded, note, moving)
    (kind,) = label_row.ontology_structure.classifications
    for frame in sorted({frame % info.num_frames for frame in weather}):
        instance = kind.create_instance()
        instance.set_for_frames(frame)
        instance.set_answer(kind.attributes[0].options[1])
        label_row.add_classification_instance(instance)
    # The SDK orders objects by their first frame when it loads them: loaded once, they stay as they are.
    return load_in_sdk(label_row.to_encord_dict(), info).to_encord_dict()


def draw_object(label_row: LabelRowV2, info, shape, frames) -> None:
    instance = label_row.ontology_structure.get_child_by_title(shape, type_=Object).create_instance()
    for frame in frames:
        (size,) = info.sizes(np.array([frame])).tolist()
        place = coordinates(shape, (10_000, 20_000 + frame, 40_000, 60_000), size)
        instance.set_for_frames(place, frames=frame, manual_annotation=bool(frame % 2), confidence=0.123456789)
    label_row.add_object_instance(instance)


def set_answers(instance, occluded, note, moving) -> None:
    attributes = {attribute.title: attribute for attribute in instance.ontology_item.attributes}
    if occluded:
        option = attributes["Occluded"].options["No" in occluded]
        instance.set_answer(option, attribute=attributes["Occluded"])
        if occluded == "Yes":
            instance.set_answer("behind", attribute=option.attributes[0])
    if note:
        instance.set_answer(note, attribute=attributes["Note"])
    if moving:
        frame = instance.get_annotations()[0].frame
        instance.set_answer(attributes["Moving"].options[0], attribute=attributes["Moving"], frames=frame)


def move(row, unit, frame, label) -> None:
    for form in {"boundingBox", "rotatableBoundingBox"} & set(label):
        label[form]["x"] += 0.001
    if "polygon" in label:
        label["polygon"]["0"]["x"] += 0.001
        label["polygons"][0][0][0] += 0.001
    if "bitmask" in label:
        label["bitmask"]["rleString"] = "0" + label["bitmask"]["rleString"]


def track(row, unit, frame, label) -> None:
    """On to another frame, or another picture; where there is none, by hand in place."""
    if row["data_type"] == "video":
        labels = row["data_units"][unit]["labels"]
        labels.setdefault(str(frame + 40), {"objects": [], "classifications": []})["objects"].append(label)
        return
    others = [data_unit["labels"] for key, data_unit in row["data_units"].items() if key != unit]
    if others:
        others[0]["objects"].append(copy.deepcopy(label))
    else:
        confirm(row, unit, frame, label)


def answer(row, unit, frame, label) -> None:
    row["object_answers"][label["objectHash"]]["classifications"] = [{"name": "Note", "answers": "seen"}]


def act(row, unit, frame, label) -> None:
    key = label["objectHash"]
    row["object_actions"][key] = {"objectHash": key, "actions": [{"name": "Moving"}]}


def confirm(row, unit, frame, label) -> None:
    label["manualAnnotation"] = True


def reclass(row, unit, frame, label) -> None:
    label["featureHash"] = "another0"


EDITS = st.lists(
    st.tuples(st.sampled_from([move, track, answer, act, confirm, reclass]), st.integers(0, 7)), max_size=6
)


def edit_ours(row, edits):
    """Edits some of our instances as people would, each once; returns their hashes."""
    ours = find_own(row)
    placed = [place for place in objects_in(row) if place[2]["objectHash"] in ours]
    theirs = set()
    for edit, number in edits if placed else ():
        unit, frame, label = placed[number % len(placed)]
        if label["objectHash"] not in theirs:
            theirs.add(label["objectHash"])
            edit(row, unit, frame, label)
    return theirs


def write(row, found, info):
    return write_detections(row, found, info, map_of_shapes(), now=NOW)


def as_text(row, hashes):
    return sorted(
        (unit, frame, json.dumps(label)) for unit, frame, label in objects_in(row) if label["objectHash"] in hashes
    )


@pytest.mark.parametrize("kind", MEDIA)
@given(first=FOUND, second=FOUND, edits=EDITS, drawn=DRAWN, weather=WEATHER, linked=st.tuples(BOOL, BOOL))
@FEW
def test_only_people_s_work_stays_on_a_row(kind, first, second, edits, drawn, weather, linked):
    info = MEDIA[kind]
    people = row_of_people(info, drawn, weather)
    before, found = (
        as_tracks(each) if in_tracks else each
        for each, in_tracks in zip(
            (as_detections(values, info.num_frames) for values in (first, second)), linked, strict=True
        )
    )
    row = json.loads(json.dumps(write(people, before, info).row))
    kept = edit_ours(row, edits) | set(people["object_answers"])

    written = write(row, found, info)

    assert as_text(written.row, kept) == as_text(row, kept)
    for part in ("object_answers", "object_actions"):
        assert {key: written.row[part].get(key) for key in kept} == {key: row[part].get(key) for key in kept}
    assert written.row["classification_answers"] == row["classification_answers"]
    new = {label["objectHash"] for _, _, label in objects_in(written.row)} - kept
    assert new == set(find_own(written.row))
    assert set(written.row["object_answers"]) == new | kept
    assert len(new) == written.num_instances <= len(set(found.instance.tolist()))
    assert write(json.loads(json.dumps(written.row)), found, info).row == written.row


@pytest.mark.parametrize("kind", MEDIA)
@given(found=FOUND, drawn=DRAWN, weather=WEATHER, linked=BOOL)
@FEW
def test_beside_peoples_labels_the_row_equals_the_sdks(kind, found, drawn, weather, linked):
    info = MEDIA[kind]
    people = row_of_people(info, drawn, weather)
    filtered = as_detections(found, info.num_frames)
    filtered = as_tracks(filtered) if linked else filtered
    written = write(people, filtered, info).row
    ours = [key for key in written["object_answers"] if key not in people["object_answers"]]
    assert written == write_with_sdk(people, filtered, info, ours)
