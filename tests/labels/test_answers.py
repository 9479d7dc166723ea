from __future__ import annotations

import numpy as np
import pytest

from prelabel.data.classification import classifications_of, find_classification, ontology_of_options
from prelabel.errors import OntologyError
from prelabel.labels.answers import answer_thresholds, build_answer_map
from tests.answering import ANIMALS

CLASSES = ("tabby", "siamese", "beagle", "tree")
NAMED = {"tabby": "Cat > Tabby", "siamese": "Siamese", "beagle": "Dog"}


def animal_map(classes=NAMED, class_names=CLASSES, name="Animal", **more):
    return build_answer_map(class_names, find_classification(ANIMALS, name), classes, **more)


def answer_of(probabilities, least=0.5, name="Animal", classes=NAMED, class_names=CLASSES):
    answers = animal_map(classes, class_names, name)
    (scores,) = answers.scores(np.array([probabilities], np.float32))
    answer = answers.answer(scores, answer_thresholds(least, {}, answers))
    return None if answer is None else (answer.name, round(answer.confidence, 4))


def test_every_option_of_every_depth_is_a_choice():
    animal, *_ = classifications_of(ANIMALS)
    assert [choice.path for choice in animal.choices] == ["Cat", "Cat > Tabby", "Cat > Siamese", "Dog", "Dog > Tabby"]
    assert [choice.name for choice in animal.choices] == ["Cat", "Cat > Tabby", "Siamese", "Dog", "Dog > Tabby"]


def test_archived_classifications_and_options_are_passed_over():
    assert [entry.name for entry in classifications_of(ANIMALS)] == ["Animal", "Colours", "Caption", "Scene"]
    assert all(choice.name != "Fish" for choice in classifications_of(ANIMALS)[0].choices)


def test_classes_that_become_one_option_are_added_up():
    assert answer_of([0.3, 0.0, 0.25, 0.1], classes={"tabby": "Cat", "siamese": "Cat", "beagle": "Cat"}) == (
        "Cat",
        0.55,
    )


def test_a_nested_option_is_answered_as_far_down_as_it_is_sure():
    assert answer_of([0.7, 0.1, 0.1, 0.1]) == ("Cat > Tabby", 0.7)
    assert answer_of([0.4, 0.4, 0.1, 0.1]) == ("Cat", 0.8)
    assert answer_of([0.2, 0.2, 0.1, 0.5]) is None


def test_of_a_checklist_every_option_that_is_sure_is_ticked_and_the_least_sure_counts():
    classes = {"tabby": "Red", "siamese": "Red", "beagle": "Blue"}
    assert answer_of([0.4, 0.4, 0.9, 0.0], name="Colours", classes=classes) == ("Blue", 0.9)
    assert answer_of([0.4, 0.8, 0.9, 0.0], name="Colours", classes=classes) == ("Red + Blue", 0.8)


def test_a_text_says_the_class_or_what_it_is_mapped_to():
    assert answer_of([0.0, 0.0, 0.9, 0.1], name="Caption", classes={}) == ("beagle", 0.9)
    assert answer_of([0.0, 0.0, 0.9, 0.1], name="Caption", classes={"beagle": "a dog"}) == ("a dog", 0.9)
    assert answer_of([0.9, 0.0, 0.1, 0.0], name="Caption", classes={"beagle": "a dog"}) is None


def test_a_class_becomes_the_option_of_its_own_name_whatever_the_case():
    answers = animal_map({}, ("CAT", "dog", "tree"))
    assert [choice.name for choice in answers.choices] == ["Cat", "Dog"]
    assert answers.unmapped == ("tree",)
    assert "1 class has no option" in answers.notes[0]


def test_an_option_may_have_a_threshold_of_its_own():
    answers = animal_map({"tabby": "Cat", "siamese": None, "beagle": "Dog"})
    assert answers.ignored == ("siamese",)
    assert answer_thresholds(0.5, {"Dog": 0.9}, answers).tolist() == pytest.approx([0.5, 0.9])
    assert answer_thresholds(0.5, 0.6, answers).tolist() == pytest.approx([0.6, 0.6])
    with pytest.raises(OntologyError, match=r"labels\.conf: no class is mapped to an option 'Dgo': did you mean 'Dog'"):
        answer_thresholds(0.5, {"Dgo": 0.9}, answers)


@pytest.mark.parametrize(
    ("classes", "complaint"),
    [
        ({"tabi": "Cat"}, "the classifier has no class 'tabi': did you mean 'tabby'"),
        ({"tabby": "Cta"}, "'tabby' is mapped to 'Cta', which is no option of 'Animal': did you mean 'Cat'"),
        ({"tabby": "Tabby", "beagle": "Dog"}, "several options 'Tabby': name one of 'Cat > Tabby', 'Dog > Tabby'"),
        (dict.fromkeys(CLASSES[:3]), r"none of the classifier's classes .* is mapped to an option of 'Animal' \(Cat, "),
    ],
)
def test_what_does_not_meet_is_named_with_what_does(classes, complaint):
    with pytest.raises(OntologyError, match=complaint):
        animal_map(classes)


@pytest.mark.timeout(20)
def test_a_thousand_classes_and_options_are_mapped_at_once():
    names = [f"kind {number}" for number in range(1000)]
    answers = build_answer_map(names, find_classification(ontology_of_options("Kind", names), None), {})
    assert answers.links.tolist() == [[number, number] for number in range(1000)]
    probabilities = np.random.default_rng(0).dirichlet(np.ones(1000), 2).astype(np.float32)
    assert answers.scores(probabilities) == pytest.approx(probabilities)


def test_classes_that_meet_nothing_may_be_an_error():
    with pytest.raises(OntologyError, match="class 'tree' is no option of 'Animal'"):
        animal_map({"tabby": "Cat"}, ("tabby", "tree"), unmapped="error")


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        (None, "is missing, and ontology 'Animals' has 4: name one: Animal, Colours, Caption, Scene"),
        ("Anmal", "has no 'Anmal': did you mean 'Animal'"),
        ("Weather", "has no 'Weather'"),
    ],
)
def test_a_classification_that_is_not_there_is_named_with_those_that_are(name, complaint):
    with pytest.raises(OntologyError, match=complaint):
        find_classification(ANIMALS, name)


def test_the_only_classification_needs_no_name():
    ontology = ontology_of_options("Kind", ["a", "b", "a"])
    found = find_classification(ontology, None)
    assert (found.name, [choice.name for choice in found.choices]) == ("Kind", ["a", "b"])
    assert find_classification(ontology, "kind") == find_classification(ontology, found.feature_hash) == found


def test_a_classification_of_another_form_is_named():
    ontology = ontology_of_options("Kind", ["a"])
    ontology.structure["classifications"][0]["attributes"][0].pop("featureNodeHash")
    with pytest.raises(OntologyError, match=r"classifications\[0\]: is not as Encord's editor writes it"):
        classifications_of(ontology)


def test_a_score_at_its_threshold_is_enough():
    assert answer_of([0.5, 0.0, 0.0, 0.0]) == ("Cat > Tabby", 0.5)
    classes = {"tabby": "Red", "beagle": "Blue"}
    assert answer_of([0.5, 0.0, 0.25, 0.0], name="Colours", classes=classes) == ("Red", 0.5)
