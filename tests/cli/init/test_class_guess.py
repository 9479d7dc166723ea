from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from prelabel.cli.init.class_guess import COCO_NAMES, Proposal, known_classes, propose_map
from prelabel.data.label_map import build_label_map
from prelabel.data.ontology import Ontology
from prelabel.models.weights import ModelCard, model_folders, read_card
from prelabel.testing.encord_server.ontologies import editor, ontology_object


def ontology(*names: str, **shapes: str) -> Ontology:
    objects = [ontology_object(name) for name in names]
    objects += [ontology_object(name, shape) for name, shape in shapes.items()]
    return Ontology.from_structure(editor(objects), "Roads")


def propose(class_name: str, names: Sequence[str]) -> Proposal | None:
    return propose_map([class_name], ontology(*names))[class_name]


@pytest.mark.parametrize(
    ("class_name", "names", "target"),
    [
        ("car", ["car", "Car"], "car"),
        ("car", ["Van", "Car"], "Car"),
        ("traffic light", ["Traffic_Light"], "Traffic_Light"),
        ("car", ["Cars"], "Cars"),
        ("bus", ["Buses"], "Buses"),
        ("bottles", ["Bottle"], "Bottle"),
        ("berries", ["Berry"], "Berry"),
    ],
)
def test_the_same_name_in_another_spelling_is_taken(class_name: str, names: list[str], target: str) -> None:
    assert propose(class_name, names) == Proposal(target, is_guess=False)


@pytest.mark.parametrize(
    ("class_name", "names", "target"),
    [
        ("person", ["Vehicle", "Pedestrian"], "Pedestrian"),
        ("truck", ["Vehicle", "Pedestrian"], "Vehicle"),
        ("bus", ["Vehicle", "Pedestrian"], "Vehicle"),
        ("tv", ["Television"], "Television"),
        ("motorcycle", ["Motorcylce"], "Motorcylce"),
    ],
)
def test_another_word_or_a_near_spelling_is_a_guess(class_name: str, names: list[str], target: str) -> None:
    assert propose(class_name, names) == Proposal(target, is_guess=True)


@pytest.mark.parametrize(("class_name", "name"), [("cat", "Car"), ("banana", "Vehicle"), ("person", "Parson bird")])
def test_a_name_that_is_another_thing_is_not_proposed(class_name: str, name: str) -> None:
    assert propose(class_name, [name]) is None


def test_shapes_that_cannot_hold_a_box_are_passed_over() -> None:
    assert propose_map(["car"], ontology(Car="polyline", Cars="polygon"))["car"] == Proposal("Cars", is_guess=False)


def test_objects_of_one_name_and_shape_are_told_apart_by_feature_hash() -> None:
    twins = [ontology_object("Car", featureNodeHash=feature_hash) for feature_hash in ("aaaaaaaa", "bbbbbbbb")]
    proposal = propose_map(["car"], Ontology.from_structure(editor(twins), "Twins"))["car"]
    assert proposal == Proposal("aaaaaaaa", is_guess=False)


def test_every_proposal_is_one_that_the_label_map_takes() -> None:
    known = ontology("Pedestrian", "Vehicle", "Animals", "Bag", Plant="polygon", Ball="bitmask")
    proposals = propose_map(COCO_NAMES, known)
    classes = {name: proposal.target for name, proposal in proposals.items() if proposal is not None}
    assert {found.name for found in build_label_map(COCO_NAMES, known, classes).categories} == {
        "Pedestrian", "Vehicle", "Animals", "Bag", "Plant", "Ball",
    }  # fmt: skip


def test_coco_names_are_those_that_ultralytics_ships() -> None:
    spec = find_spec("ultralytics")
    if spec is None or spec.origin is None:
        pytest.skip("ultralytics is not installed")
    shipped = yaml.safe_load((Path(spec.origin).parent / "cfg" / "datasets" / "coco.yaml").read_text(encoding="utf-8"))
    assert tuple(shipped["names"].values()) == COCO_NAMES


def test_classes_come_from_the_card_or_from_what_it_was_scored_on() -> None:
    own = ModelCard(name="a", file="a.pt", licence="MIT", use="ultralytics", classes=("x", "y"))
    unknown = ModelCard(name="a", file="a.pt", licence="MIT", use="ultralytics")
    assert known_classes(own) == ("x", "y")
    assert known_classes(unknown) == known_classes(None) == ()


def test_the_classes_of_every_shipped_detector_are_known() -> None:
    folder = next(folder for folder in model_folders() if (folder / "yolo11n.yaml").is_file())
    cards = [read_card(path) for path in sorted(folder.glob("*.yaml"))]
    assert [card.name for card in cards if not known_classes(card) and "ImageNet" not in (card.score or "")] == []
    assert [known_classes(card) for card in cards if card.name == "keypointrcnn_resnet50_fpn"] == [("person",)]
