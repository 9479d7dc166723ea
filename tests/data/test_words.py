"""Which words a detector gets, from the config and the ontology."""

from __future__ import annotations

import pytest

from prelabel.data.ontology import Ontology
from prelabel.data.words import words_to_find
from prelabel.errors import ConfigError, OntologyError
from prelabel.testing.encord_server.ontologies import editor, ontology_object


def ontology(*objects: dict) -> Ontology:
    return Ontology.from_structure(editor(list(objects)), "Warehouse")


PALLET, FORKLIFT = ontology_object("Pallet"), ontology_object("Forklift", featureNodeHash="abcd1234")


def test_without_prompts_the_words_are_the_objects_that_fit_a_box() -> None:
    objects = [PALLET, ontology_object("Lane", "polyline"), FORKLIFT, ontology_object("Pallet", "polygon")]
    assert words_to_find({}, ontology(*objects)) == ("Pallet", "Forklift")


@pytest.mark.parametrize("key", ["Forklift", "forklift", "abcd1234"])
def test_prompts_replace_the_name_of_their_object(key: str) -> None:
    words = words_to_find({key: ["lift truck", "forklift truck"]}, ontology(PALLET, FORKLIFT))
    assert words == ("Pallet", "lift truck", "forklift truck")


def test_an_object_without_words_is_left_out() -> None:
    assert words_to_find({"Pallet": []}, ontology(PALLET, FORKLIFT)) == ("Forklift",)
    with pytest.raises(ConfigError, match="leaves out all objects"):
        words_to_find({"Pallet": [], "Forklift": []}, ontology(PALLET, FORKLIFT))


def test_without_an_ontology_the_words_are_those_of_the_prompts() -> None:
    assert words_to_find({"Forklift": ["lift truck"], "Pallet": ["pallet"]}, None) == ("lift truck", "pallet")
    with pytest.raises(ConfigError, match="there is no ontology to take them from: add words: "):
        words_to_find({}, None)


def test_an_ontology_without_objects_says_so() -> None:
    with pytest.raises(OntologyError, match="'Warehouse' has no object of shape bounding_box"):
        words_to_find({}, ontology(ontology_object("Lane", "polyline")))


def test_a_prompt_for_an_unknown_object_suggests_the_nearest_one() -> None:
    with pytest.raises(OntologyError, match=r"labels\.prompts: 'Forklfit' .*did you mean 'Forklift'"):
        words_to_find({"Forklfit": ["lift truck"]}, ontology(PALLET, FORKLIFT))


def test_a_word_cannot_stand_for_an_object_and_be_the_name_of_another() -> None:
    with pytest.raises(OntologyError, match="'Pallet' stands for 'Pallet' and for 'Forklift'"):
        words_to_find({"Forklift": ["Pallet"]}, ontology(PALLET, FORKLIFT))


def test_case_tells_objects_apart_that_differ_in_nothing_else() -> None:
    objects = ontology(ontology_object("Car"), ontology_object("car", featureNodeHash="abcd1234"))
    assert words_to_find({"car": []}, objects) == ("Car",)
