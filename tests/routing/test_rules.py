"""Which pathway a task takes, and how urgent it is."""

from __future__ import annotations

import numpy as np
import pytest

from prelabel.config.base import make_router
from prelabel.config.load import check_config
from prelabel.data.label_map import build_label_map
from prelabel.data.ontology import Ontology
from prelabel.errors import ConfigError, OntologyError
from prelabel.routing.facts import Facts
from prelabel.routing.rules import Router, read_router
from tests.labelling import VIDEO, detections

LABEL_MAP = build_label_map(["person", "car", "truck"], Ontology.from_classes(["Vehicle", "Person"]), {
    "person": "Person", "car": "Vehicle", "truck": "Vehicle",
})  # fmt: skip
BOX = (1, 1, 20, 20)


def facts(*class_ids: int) -> Facts:
    rows = [(frame, BOX, 0.5, class_id) for frame, class_id in enumerate(class_ids)]
    return Facts.of_labels("clip.mp4", VIDEO, detections(*rows, inferred_frames=range(10)), LABEL_MAP, {"city": "Oslo"})


def test_the_first_rule_that_holds_wins() -> None:
    router = read_router([("count == 0", "Empty"), ("has(Person)", "People"), ("count > 1", "Busy"), (None, "Rest")])
    assert [router.pathway(facts(*found)) for found in ((), (0, 1), (1, 2), (1,))] == [
        "Empty",
        "People",
        "Busy",
        "Rest",
    ]
    assert router.pathways == ("Empty", "People", "Busy", "Rest")


def test_classes_are_the_ontology_s_objects() -> None:
    assert facts(1, 2, 0).count("count", ["Vehicle"]) == 2
    router = read_router([("has(car)", "A"), (None, "B")])
    with pytest.raises(OntologyError, match=r"routing: 'has\(car\)': no class 'car': known: Person, Vehicle"):
        router.check_classes([category.name for category in LABEL_MAP.categories])


def test_a_priority_names_its_key_when_its_class_is_not_there() -> None:
    router = read_router([(None, "B")], "count(Persn) / 10")
    with pytest.raises(OntologyError, match=r"priority: .*did you mean 'Person'"):
        router.check_classes(["Person"])


def test_a_track_is_one_instance_of_many_boxes() -> None:
    track = detections(*[(frame, BOX, 0.5, 0) for frame in range(4)], track_id=7)
    found = Facts.of_labels("clip.mp4", VIDEO, track, LABEL_MAP, {})
    assert [found.count(what, []) for what in ("count", "boxes", "frame_share")] == [1, 4, 1.0]


def test_filled_in_boxes_have_no_confidence() -> None:
    rows = [(0, BOX, 0.5, 0), (1, BOX, 0.0, 0), (2, BOX, 0.5, 0)]
    track = detections(*rows, track_id=7)
    track.interpolated[1] = True
    found = Facts.of_labels("clip.mp4", VIDEO, track, LABEL_MAP, {})
    assert found.confidence_at("min", []) == 0.5
    assert np.isnan(found.confidence[1])


def router_of(**sections: object) -> Router:
    config = check_config({"source": {"path": "clips"}, "detector": {"weights": "demo"}, **sections}, "test.yaml")
    return make_router(config.routing, config.pathway, config.priority)


def test_a_mapping_takes_the_first_class_that_was_found() -> None:
    router = router_of(routing={"Vehicle": "Cars", "Person": "People", "otherwise": "Rest"})
    assert [router.pathway(facts(*found)) for found in ((0,), (0, 1), ())] == ["People", "Cars", "Rest"]


@pytest.mark.parametrize(("text", "priority"), [("1 - confidence.mean", 0.5), ("count", 1.0), ("-count", 0.0)])
def test_a_priority_is_cut_to_what_the_platform_takes(text: str, priority: float) -> None:
    assert read_router([(None, "A")], text).priority_of(facts(0, 1)) == priority


def test_a_priority_of_nothing_stays_as_it_is() -> None:
    assert read_router([(None, "A")], "1 - confidence.mean").priority_of(facts()) is None
    assert read_router([(None, "A")]).priority_of(facts(0)) is None


def test_rules_and_priority_come_from_the_config() -> None:
    rules = [{"when": "count == 0", "pathway": "Empty"}, {"otherwise": "Annotate 1"}]
    router = router_of(routing=rules, priority=0.25)
    assert list(map(str, router.rules)) == ["count == 0 → Empty", "otherwise → Annotate 1"]
    assert router.priority_of(facts()) == 0.25


@pytest.mark.parametrize(
    ("sections", "complaint"),
    [
        ({"routing": [{"when": "cuont > 3", "pathway": "A"}, {"otherwise": "B"}]}, "routing.0: 'cuont > 3', column 1"),
        ({"routing": [{"when": "count > 3", "pathway": "A"}]}, "routing: otherwise is missing"),
        ({"routing": []}, "routing: otherwise is missing"),
        ({"routing": [{"otherwise": "B"}, {"when": "count > 3", "pathway": "A"}]}, "routing: otherwise is rule 1 of 2"),
        ({"routing": [{"when": "count > 3"}, {"otherwise": "B"}]}, "routing.0: got when; expected when and pathway"),
        ({"routing": [{"wen": "count > 3", "pathway": "A"}, {"otherwise": "B"}]}, "did you mean 'when'?"),
        ({"routing": {"Car": "A"}}, "routing: otherwise is missing"),
        (
            {"routing": {"Car": ["A"], "otherwise": "B"}},
            "routing: Car: got ['A'], expected the name or uuid of a pathway",
        ),
        ({"routing": {"Car": "A", "otherwise": "B"}, "pathway": "A"}, "both say where tasks go"),
        ({"priority": "has(Car)"}, "priority: 'has(Car)', column 1: is true or false, expected a number"),
        ({"priority": True}, "priority: got True"),
    ],
)
def test_a_mistake_is_named_with_its_key(sections: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        router_of(**sections)
    assert complaint in str(caught.value)
