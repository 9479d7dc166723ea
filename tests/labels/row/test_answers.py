"""Answers on label rows: as the SDK writes them, known again, and nobody else's touched."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from encord.objects import Classification as SdkClassification
from encord.objects.frames import Range

from prelabel.data.classification import find_classification
from prelabel.errors import LabelError
from prelabel.labels.answers import Answer, PlacedAnswer
from prelabel.labels.row.answers import find_own_answers, remove_own_answers, write_answers
from tests.answering import ANIMALS
from tests.labelling import MEDIA, NOW, VIDEO, load_in_sdk, new_row

LATER = datetime(2025, 1, 1, tzinfo=UTC)


def placed(name="Animal", says=("Cat > Tabby",), confidence=0.87654321, frames=(0, 39)):
    classification = find_classification(ANIMALS, name)
    choices = tuple(classification.find(said) for said in says)
    return classification, PlacedAnswer(Answer(choices, confidence), *frames)


def written(row, *answers, name="Animal", now=NOW):
    return write_answers(row, answers, find_classification(ANIMALS, name), now=now)


def row_with(*answers, name="Animal", info=VIDEO):
    return written(new_row(info, ANIMALS), *answers, name=name).row


def sdk_row(row, name, says, key, frames, info):
    """Answers as one would with the SDK alone."""
    label_row = load_in_sdk(row, info, ANIMALS)
    kind = label_row.ontology_structure.get_child_by_title(name, type_=SdkClassification)
    instance = kind.create_instance()
    instance._classification_hash = key
    for answer in says(kind):
        instance.set_answer(answer)
    for answer in instance.get_all_static_answers():
        answer.is_manual_annotation = False
    instance.set_for_frames(
        Range(*frames), confidence=0.87654, manual_annotation=False, created_at=NOW, last_edited_at=NOW
    )
    label_row.add_classification_instance(instance)
    return label_row.to_encord_dict()


SAYS = {
    "radio": ("Animal", ("Dog",), lambda kind: [kind.get_child_by_title("Dog")]),
    "nested radio": (
        "Animal",
        ("Siamese",),
        lambda kind: [kind.get_child_by_title("Cat"), kind.get_child_by_title("Siamese")],
    ),
    "checklist": (
        "Colours",
        ("Red", "Blue"),
        lambda kind: [[kind.get_child_by_title("Red"), kind.get_child_by_title("Blue")]],
    ),
    "text": ("Caption", ("a cat on a mat",), lambda _: ["a cat on a mat"]),
    "global": ("Scene", ("Indoors",), lambda kind: [kind.get_child_by_title("Indoors")]),
}


@pytest.mark.parametrize("says", SAYS)
@pytest.mark.parametrize("media", MEDIA)
def test_an_answer_is_written_as_the_sdk_writes_it(says, media):
    name, said, in_sdk = SAYS[says]
    info = MEDIA[media]
    frames = (0, 0 if says == "global" else info.num_frames - 1)
    _, answer = placed(name, said, frames=frames)
    row = row_with(answer, name=name, info=info)
    (key,) = row["classification_answers"]
    assert row == sdk_row(new_row(info, ANIMALS), name, in_sdk, key, frames, info)


@pytest.mark.parametrize("says", SAYS)
def test_what_the_sdk_loads_and_writes_again_is_still_known_as_own(says):
    name, said, _ = SAYS[says]
    _, answer = placed(name, said)
    row = row_with(answer, name=name)
    again = json.loads(json.dumps(load_in_sdk(row, VIDEO, ANIMALS).to_encord_dict()))
    assert find_own_answers(again).keys() == row["classification_answers"].keys()
    assert remove_own_answers(again)["classification_answers"] == {}


def test_writing_twice_is_writing_once():
    _, answer = placed()
    row = row_with(answer)
    again = written(row, answer, now=LATER)
    assert again.row == row
    assert again.num_instances == 1


def test_another_answer_takes_the_earlier_one_s_place():
    row = row_with(placed()[1])
    again = written(row, placed(says=("Dog",))[1])
    (entry,) = again.row["classification_answers"].values()
    assert entry["classifications"][0]["answers"][0]["name"] == "Dog"
    assert written(row).row["classification_answers"] == {}


def test_answers_of_another_classification_stay():
    row = row_with(placed()[1])
    both = written(row, placed("Caption", ("a cat",))[1], name="Caption").row
    assert len(both["classification_answers"]) == 2
    assert len(written(both, name="Caption").row["classification_answers"]) == 1


@pytest.mark.parametrize(
    "edit",
    [
        lambda entry: entry.update(manualAnnotation=True),
        lambda entry: entry.update(range=[[0, 20]]),
        lambda entry: entry.update(confidence=0.5),
        lambda entry: entry["classifications"][0]["answers"][0].update(featureHash="optDog00"),
        lambda entry: entry["classifications"].pop(0),
        lambda entry: entry.update(spaces={"a": {}}),
        lambda entry: entry.update(range=None),
    ],
)
def test_an_instance_that_a_person_changed_stays(edit):
    _, answer = placed()
    row = json.loads(json.dumps(row_with(answer)))
    edit(next(iter(row["classification_answers"].values())))
    again = written(row, answer, now=LATER)
    assert again.row == row
    assert again.num_instances == 0


def test_a_person_s_answer_on_other_frames_leaves_room():
    person = json.loads(json.dumps(row_with(placed(frames=(0, 9))[1])))
    next(iter(person["classification_answers"].values()))["manualAnnotation"] = True
    again = written(person, placed(frames=(5, 5))[1], placed(frames=(10, 39))[1])
    assert again.num_instances == 1
    load_in_sdk(again.row, VIDEO, ANIMALS)


def test_a_person_s_copy_on_another_row_is_not_ours():
    row = json.loads(json.dumps(row_with(placed()[1])))
    other = new_row(VIDEO, ANIMALS, title="other.mp4")
    other["classification_answers"] = row["classification_answers"]
    assert find_own_answers(other) == {}


def test_a_row_of_another_kind_is_named():
    row = new_row(VIDEO, ANIMALS) | {"data_type": "audio"}
    with pytest.raises(LabelError, match=r"clip\.mp4.*got 'audio'"):
        written(row, placed()[1])


@pytest.mark.parametrize(
    ("frames", "is_left_out"), [((0, 9), False), ((0, 10), True), ((20, 30), True), ((21, 30), False)]
)
def test_an_answer_is_left_out_if_a_person_answered_on_its_first_or_last_frame(frames, is_left_out):
    _, theirs = placed(frames=(10, 20))
    row = row_with(theirs)
    (entry,) = row["classification_answers"].values()
    entry["manualAnnotation"] = True
    _, ours = placed(frames=frames)
    again = written(row, ours)
    assert again.num_instances == int(not is_left_out)
