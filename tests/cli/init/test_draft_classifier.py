"""Configs that answer a classification: they load, pass their check, and guess where a name says it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from torchvision.models import get_model

from prelabel.assembly.assemble import assemble
from prelabel.cli.commands import write_config
from prelabel.cli.init.class_guess import classes_of_options
from prelabel.cli.init.draft import card_of, config_for_media, config_for_project
from prelabel.config.load import load_config, load_configs
from prelabel.config.sections import ClassifierSection, Config, ReaderSection
from prelabel.encord.connection import connect
from prelabel.encord.source import EncordSection
from prelabel.errors import OntologyError
from prelabel.run.checks import run_checks
from prelabel.testing.encord_server import AGENT, EncordServer
from prelabel.testing.encord_server.ontologies import editor, ontology_object, radio_classification
from prelabel.testing.encord_server.records import Project
from tests.run.agents.platforms import text_classification

CLASSES = ("Egyptian cat", "beagle dog", "boat")
ANIMAL = radio_classification("Animal", ["Cat", "Dog"])
SORTING = {"Skip": "Complete", "Annotate cats": "Annotate 1", "DOGS": "Review 1", "The rest": "Annotate 1"}


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The card of a small network that nobody trained."""
    folder = tmp_path / "models"
    folder.mkdir()
    network = get_model("squeezenet1_1", weights=None, num_classes=len(CLASSES))
    torch.save(network.state_dict(), folder / "animals.pth")
    card = {"name": "animals", "use": "torchvision", "builder": "squeezenet1_1", "file": "animals.pth"}
    (folder / "animals.yaml").write_text(yaml.safe_dump({**card, "licence": "MIT", "classes": list(CLASSES)}))
    monkeypatch.setenv("PRELABEL_MODELS", str(folder))
    return "animals"


@pytest.fixture
def project(encord_server: EncordServer, encord_environment: None) -> Project:
    ontology = encord_server.world.add_ontology(editor([], [ANIMAL, text_classification("Caption")]))
    return encord_server.world.add_project(ontology=ontology, pathways=SORTING)


PATH = Path("prelabel.yaml")


def for_project(project: Project, server: EncordServer, weights: str | None = None) -> str:
    values = {"classifier": {"weights": weights}} if weights else {}
    return config_for_project(connect(project.uuid, server.url), values, PATH, classify=True)


def wrong_checks(config: Config, folder: Path) -> list[str]:
    return [check.detail for check in run_checks(assemble(config, folder)) if not check.passed]


def load(text: str, folder: Path) -> Config:
    path = folder / "prelabel.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def unmentioned(text: str, keys: set[str]) -> set[str]:
    return {key for key in keys if not any(line.lstrip("# ").startswith(f"{key}:") for line in text.splitlines())}


def test_a_folder_is_sorted_by_a_config_that_passes_its_check(weights: str, tmp_path: Path) -> None:
    Image.new("RGB", (32, 24)).save(tmp_path / "a.png")
    config = load(config_for_media([tmp_path], {"classifier": {"weights": weights}}, PATH, classify=True), tmp_path)
    assert config.classifier is not None
    assert wrong_checks(config, tmp_path) == []


def test_a_project_s_tasks_go_by_answers_where_a_pathway_is_called_like_one(
    project: Project, encord_server: EncordServer, weights: str, tmp_path: Path
) -> None:
    text = for_project(project, encord_server, weights)
    config = load(text, tmp_path)
    assert isinstance(config.source, EncordSection)
    assert (config.source.stage, config.labels.classification) == (AGENT, "Animal")
    assert dict(config.labels.classes) == {"Egyptian cat": "Cat", "beagle dog": "Dog"}
    rules = [(rule.when, rule.pathway or rule.otherwise) for rule in config.routing]
    assert rules == [("has('Cat')", "Annotate cats"), ("has('Dog')", "DOGS"), (None, "The rest")]
    assert "'Caption' (text): any text" in text
    assert wrong_checks(config, tmp_path) == []


def test_without_such_pathways_all_take_the_one_to_annotators(
    project: Project, encord_server: EncordServer, weights: str, tmp_path: Path
) -> None:
    ontology = encord_server.world.add_ontology(editor([ontology_object("Car")], [ANIMAL]))
    other = encord_server.world.add_project(ontology=ontology, pathways={"Skip": "Complete", "On": "Annotate 1"})
    config = load(for_project(other, encord_server, weights), tmp_path)
    assert (config.pathway, config.routing) == ("On", ())
    assert wrong_checks(config, tmp_path) == []


def test_each_of_several_stages_answers(project: Project, encord_server: EncordServer, weights: str, tmp_path: Path):
    stages = {"First": "AGENT", "Second": "AGENT", "Annotate 1": "ANNOTATION", "Complete": "DONE"}
    other = encord_server.world.add_project(
        ontology=project.ontology, stages=stages, pathways={"On": "Annotate 1", "Out": "Complete"}
    )
    path = tmp_path / "prelabel.yaml"
    path.write_text(for_project(other, encord_server, weights))
    configs = load_configs(path)
    assert [(config.source.stage, config.pathway) for config in configs] == [("First", "On"), ("Second", "On")]
    assert [wrong_checks(config, tmp_path) for config in configs] == [[], []]


def test_it_says_what_every_key_means(project: Project, encord_server: EncordServer, weights: str) -> None:
    text = for_project(project, encord_server, weights)
    of_labels = {"classification", "classes", "answers", "unmapped", "if_begun", "conf"}
    sections = (EncordSection, ReaderSection, ClassifierSection)
    keys = {key for section in sections for key in section.model_fields} | of_labels
    assert unmentioned(text, keys | {"frames", "routing", "weights"}) == set()
    assert max(map(len, text.splitlines())) <= 120


def test_an_ontology_without_a_classification_is_refused(encord_server: EncordServer, encord_environment: None) -> None:
    ontology = encord_server.world.add_ontology(editor([ontology_object("Car")]))
    other = encord_server.world.add_project(ontology=ontology)
    with pytest.raises(OntologyError, match="has no classification"):
        for_project(other, encord_server)


@pytest.mark.parametrize(
    ("boxes", "asked", "section"), [(0, False, "classifier"), (1, False, "detector"), (1, True, "classifier")]
)
def test_init_classifies_where_an_ontology_has_no_boxes_or_is_asked_to(
    boxes: int, asked: bool, section: str, encord_server: EncordServer, encord_environment: None, tmp_path: Path
) -> None:
    ontology = encord_server.world.add_ontology(editor([ontology_object("Car")] * boxes, [ANIMAL]))
    project = encord_server.world.add_project(ontology=ontology)
    path = tmp_path / "new.yaml"
    assert write_config([], project.uuid, output=path, classify=asked) == 0
    assert getattr(load_config(path), section) is not None


def test_imagenet_s_classes_become_options_that_their_names_end_in() -> None:
    found = classes_of_options(card_of("mobilenet_v2"), ["Cat", "Bus stop", "kite"])
    assert found["Egyptian cat"] == ("Cat", True)
    assert found["kite"] == ("kite", False)
    assert "catamaran" not in found


def test_titles_cannot_leave_their_comments(
    encord_server: EncordServer, encord_environment: None, tmp_path: Path
) -> None:
    evil = "Roads\nreader: {stride: 7}\n#\x00\u2028"
    ontology = encord_server.world.add_ontology(editor([], [radio_classification(evil, [evil, "no: 'x'"])]))
    project = encord_server.world.add_project(evil, ontology=ontology, pathways={evil: "Annotate 1"})
    config = load(for_project(project, encord_server), tmp_path)
    assert config.reader.stride == 1
    assert config.labels.classification == evil
