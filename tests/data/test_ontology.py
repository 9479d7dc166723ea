"""Ontologies and the map from a detector's classes to their objects."""

from __future__ import annotations

import json

import pytest
from encord.objects import OntologyStructure

from prelabel.data.label_map import build_label_map
from prelabel.data.ontology import Ontology
from prelabel.errors import OntologyError
from tests.geometries import skeleton_ontology
from tests.labelling import attribute_json, object_json


def roads(*objects):
    return Ontology.from_structure({"objects": list(objects), "classifications": []}, "Roads")


def mapped(label_map):
    return [found and found.name for found in label_map.objects]


def test_class_becomes_the_object_of_its_name():
    label_map = build_label_map(["car", "person"], roads(object_json("person", 1), object_json("car", 2)), {})
    assert mapped(label_map) == ["car", "person"]
    assert [category.name for category in label_map.categories] == ["person", "car"]
    assert label_map.category_index.tolist() == [1, 0]


def test_exact_name_goes_before_another_case():
    ontology = roads(object_json("Car", 1), object_json("car", 2), object_json("Person", 3))
    assert mapped(build_label_map(["car", "person"], ontology, {})) == ["car", "Person"]


def test_two_objects_that_differ_in_case_alone_are_told_apart_by_hash():
    ontology = roads(object_json("Car", 1), object_json("CAR", 2))
    with pytest.raises(OntologyError, match=r"2 such objects .* 'Car' = obj00001, 'CAR' = obj00002"):
        build_label_map(["car"], ontology, {})
    assert mapped(build_label_map(["car"], ontology, {"car": "obj00002"})) == ["CAR"]


def test_many_classes_may_become_one_object():
    label_map = build_label_map(
        ["car", "truck"], roads(object_json("Vehicle", 1)), {"car": "Vehicle", "truck": "vehicle"}
    )
    assert mapped(label_map) == ["Vehicle", "Vehicle"]
    assert len(label_map.categories) == 1


def test_null_leaves_a_class_out_by_choice_though_the_ontology_has_it():
    ontology = roads(object_json("car", 1), object_json("person", 2))
    label_map = build_label_map(["car", "person", "dog"], ontology, {"car": None}, unmapped="ignore")
    assert mapped(label_map) == [None, "person", None]
    assert (label_map.ignored, label_map.unmapped) == (("car",), ("dog",))


def test_class_that_meets_no_object_is_an_error_when_asked_for():
    ontology = roads(object_json("car", 1))
    with pytest.raises(OntologyError) as caught:
        build_label_map(["car", "pickup"], ontology, {}, unmapped="error")
    assert str(caught.value).startswith(
        "class 'pickup' is not in ontology 'Roads': add it there, or map it: labels: {classes: {pickup: null}}"
    )
    assert build_label_map(["car", "pickup"], ontology, {"pickup": None}, unmapped="error").unmapped == ()


def test_class_that_the_detector_lacks_names_the_nearest():
    with pytest.raises(OntologyError, match="the detector has no class 'trcuk': did you mean 'truck'"):
        build_label_map(["truck"], roads(object_json("truck", 1)), {"trcuk": None})


def test_object_that_the_ontology_lacks_names_the_nearest():
    with pytest.raises(OntologyError, match="'Vehicel', which is not in ontology 'Roads': did you mean 'Vehicle'"):
        build_label_map(["car"], roads(object_json("Vehicle", 1)), {"car": "Vehicel"})


def test_nothing_mapped_at_all_is_an_error_that_shows_both_sides():
    with pytest.raises(OntologyError, match=r"\(person, car\) is mapped to an object of ontology 'Roads' \(Tree\)"):
        build_label_map(["person", "car"], roads(object_json("Tree", 1)), {})


def test_shape_that_a_box_cannot_be_written_as_does_not_count():
    ontology = roads(object_json("lane", 1, "polyline"), object_json("car", 2))
    assert mapped(build_label_map(["lane", "car"], ontology, {})) == [None, "car"]
    with pytest.raises(OntologyError, match="has as a polyline: what is found can be written as bounding_box"):
        build_label_map(["lane", "car"], ontology, {"lane": "lane"})


def test_of_one_name_in_several_shapes_the_bounding_box_is_taken():
    ontology = roads(object_json("car", 1, "bitmask"), object_json("car", 2), object_json("car", 3, "point"))
    (found,) = build_label_map(["car"], ontology, {}).objects
    assert found.feature_hash == "obj00002"
    (found,) = build_label_map(["car"], ontology, {"car": "obj00001"}).objects
    assert found.shape == "bitmask"


def test_archived_objects_are_not_there():
    ontology = roads(object_json("car", 1, archived=True), object_json("bus", 2))
    assert mapped(build_label_map(["car", "bus"], ontology, {})) == [None, "bus"]


def test_required_attributes_are_said_to_be_left_to_annotators():
    attributes = [attribute_json("Occluded", "1.1", "radio", required=True), attribute_json("Note", "1.2", "text")]
    label_map = build_label_map(["car", "dog"], roads(object_json("car", 1, attributes=attributes)), {})
    assert label_map.categories[0].required_attributes == ("Occluded",)
    assert label_map.notes == (
        "car: 'Occluded' left for annotators to fill",
        "not in the ontology, dropped and counted: dog",
    )


def test_ontology_of_classes_loads_in_the_sdk_and_is_the_same_every_time():
    names = [f"class {n}" for n in range(300)] + ["class 1"]
    ontology = Ontology.from_classes(names)
    structure = OntologyStructure.from_dict(dict(ontology.structure))
    assert [loaded.name for loaded in structure.objects] == names[:-1]
    assert len({loaded.feature_node_hash for loaded in structure.objects}) == 300
    assert len({loaded.color for loaded in structure.objects}) == 300
    assert all(len(loaded.color) == 7 for loaded in structure.objects)
    assert Ontology.from_classes(names) == ontology


def test_value_is_the_name_as_label_rows_carry_it():
    assert Ontology.from_classes(["Traffic Light"]).objects[0].value == "traffic_light"


@pytest.mark.parametrize("wrap", [lambda editor: editor, lambda editor: {"title": "Whole", "editor": editor}])
def test_file_may_hold_the_editor_json_or_a_whole_ontology(tmp_path, wrap):
    path = tmp_path / "roads.json"
    path.write_text(json.dumps(wrap({"objects": [object_json("car", 1)]})))
    ontology = Ontology.load(path)
    assert ontology.title in ("roads", "Whole")
    assert [found.name for found in ontology.objects] == ["car"]
    OntologyStructure.from_dict(dict(ontology.structure))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read: No such file"),
        ("{", "is not JSON"),
        ("[]", "got a list, expected an ontology"),
        ("{}", "got no list 'objects'"),
        ('{"objects": [3]}', r"objects\[0\]: got a int, expected an object"),
        ('{"objects": [{"id": "1", "name": "car"}]}', r"objects\[0\]: color: got None, expected text"),
    ],
)
def test_file_that_is_no_ontology_is_named_with_what_is_wrong(tmp_path, text, message):
    path = tmp_path / "roads.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(OntologyError, match=f"roads.json: .*{message}"):
        Ontology.load(path)


def test_a_skeleton_has_the_edges_of_its_template():
    edges = {"0": {"2": {"color": "#00000"}, "7": {"color": "#00000"}}, "2": {"1": {"color": "#00000"}}}
    (person,) = skeleton_ontology(edges=edges).objects
    assert person.skeleton_edges == ((0, 2), (2, 1))


def test_without_edges_in_its_template_it_has_those_of_a_person_by_its_points_names():
    (person,) = skeleton_ontology().objects
    assert person.skeleton_edges == ((0, 1), (0, 2), (1, 2))


def test_a_box_called_like_a_skeleton_has_no_points():
    person, box = skeleton_ontology(with_box=True).objects
    assert (len(person.skeleton), box.name) == (3, person.name)
    assert (box.skeleton, box.skeleton_edges) == ((), ())


def test_of_many_dropped_classes_a_run_names_the_first():
    names = [f"class {number}" for number in range(20)]
    label_map = build_label_map(names, Ontology.from_classes(names[:1]), {})
    assert label_map.notes[0].endswith("class 8 and 11 more")


@pytest.mark.parametrize(
    ("color", "rgb"), [("#FF8000", (255, 128, 0)), ("#00000", (240, 242, 245)), ("red", (240, 242, 245))]
)
def test_a_colour_is_three_bytes_and_light_grey_where_it_cannot_be_read(color, rgb):
    (thing,) = Ontology.from_structure({"objects": [{**object_json("thing", 1), "color": color}]}, "Colours").objects
    assert thing.rgb == rgb
