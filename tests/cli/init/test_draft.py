from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from prelabel.assembly.assemble import assemble
from prelabel.cli.commands import write_config
from prelabel.cli.init.draft import config_for_media, config_for_project
from prelabel.config.load import WORDS_WEIGHTS, load_config, load_configs
from prelabel.config.sections import Config, LabelsSection, ReaderSection
from prelabel.encord.connection import connect
from prelabel.encord.project import EncordProject
from prelabel.encord.source import EncordSection
from prelabel.errors import AccountError, ConfigError
from prelabel.files.folder_source import FolderSection
from prelabel.run.checks import run_checks
from prelabel.testing.encord_server import AGENT, EncordServer
from prelabel.testing.encord_server.ontologies import editor, ontology_object
from prelabel.testing.encord_server.records import Project

PATHWAYS = {"Skip it": "Complete", "To people": "Annotate 1"}


@pytest.fixture
def connected(encord_server: EncordServer, encord_environment: None):
    def connect_to(project: Project) -> EncordProject:
        return connect(project.uuid, encord_server.url)

    return connect_to


PATH = Path("prelabel.yaml")


def for_folder(path: str = "clips", **model: object) -> str:
    return config_for_media([Path(path)], {"detector": model}, PATH)


def for_project(project: EncordProject, stage: str | None = None, **model: object) -> str:
    return config_for_project(project, {"detector": model} if model else {}, PATH, stage=stage)


def load(text: str, folder: Path) -> Config:
    path = folder / "prelabel.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def wrong_checks(config: Config, folder: Path) -> list[str]:
    return [check.detail for check in run_checks(assemble(config, folder)) if not check.passed]


def entries(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()]


OF_CLASSIFIERS = {"classification", "answers"}


def all_keys(*sections: type[BaseModel]) -> set[str]:
    return {key for section in sections for key in section.model_fields} - OF_CLASSIFIERS


def unmentioned(text: str, keys: set[str]) -> set[str]:
    return {key for key in keys if not any(line.lstrip("# ").startswith(f"{key}:") for line in text.splitlines())}


def test_a_folder_config_loads_with_what_was_asked(tmp_path: Path) -> None:
    config = load(for_folder("my clips/*.mp4", weights="yolo26s"), tmp_path)
    assert isinstance(config.source, FolderSection)
    assert config.source.path == Path("my clips/*.mp4")
    assert config.detector.use == "ultralytics"
    assert config.detector.options["weights"] == "yolo26s"


def test_a_folder_config_says_what_every_key_means() -> None:
    text = for_folder("clips")
    assert unmentioned(text, all_keys(FolderSection, ReaderSection, LabelsSection) | {"frames"}) == set()
    assert max(map(len, text.splitlines())) <= 120


def test_a_folder_config_lists_the_classes_and_the_licence() -> None:
    text = for_folder("clips", weights="yolo11n")
    assert "person, bicycle, car" in text
    assert "AGPL-3.0" in text


def test_a_card_of_torchvision_gives_a_torchvision_detector(tmp_path: Path) -> None:
    config = load(for_folder("clips", weights="ssdlite320_mobilenet_v3_large"), tmp_path)
    assert config.detector.use == "torchvision"
    assert "imgsz" not in config.detector.options


@pytest.mark.parametrize(
    "weights", ["runs/best.pt", "https://host.example/best.onnx#sha256=" + 64 * "0", "no: # 'x'.pt"]
)
def test_weights_without_a_card_go_to_ultralytics_as_they_are(weights: str, tmp_path: Path) -> None:
    config = load(for_folder("clips", weights=weights), tmp_path)
    assert (config.detector.use, config.detector.options["weights"]) == ("ultralytics", weights)


def test_a_misspelt_model_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'yolo11n'"):
        for_folder("clips", weights="yolo1n")


def test_torchvision_weights_without_a_card_are_told_what_the_card_must_say() -> None:
    with pytest.raises(ConfigError, match="builder"):
        for_folder("clips", weights="mine.pth")


def test_a_project_config_loads_and_names_the_only_stage(
    encord_server: EncordServer, connected, tmp_path: Path
) -> None:
    project = encord_server.world.add_project()
    config = load(for_project(connected(project)), tmp_path)
    assert isinstance(config.source, EncordSection)
    assert (config.source.project_hash, config.source.stage) == (project.uuid, AGENT)
    assert config.source.domain == encord_server.url
    assert config.pathway == "Annotate 1"
    assert config.labels.classes["person"] == "Pedestrian"
    assert config.labels.classes["truck"] == "Vehicle"


def test_a_project_config_marks_what_it_guessed_and_lists_the_rest(encord_server: EncordServer, connected) -> None:
    ontology = encord_server.world.add_ontology(editor([ontology_object("Person"), ontology_object("Vehicle")]))
    lines = entries(for_project(connected(encord_server.world.add_project(ontology=ontology))))
    assert "person: Person" in lines
    assert any(line.startswith("car: Vehicle ") and line.endswith("# a guess: check") for line in lines)
    assert "# banana: null" in lines


def test_a_project_config_says_what_every_key_means(encord_server: EncordServer, connected) -> None:
    text = for_project(connected(encord_server.world.add_project()))
    assert unmentioned(text, all_keys(EncordSection, ReaderSection, LabelsSection) | {"frames", "pathway"}) == set()


def test_a_project_config_lists_objects_with_their_shapes(encord_server: EncordServer, connected) -> None:
    text = for_project(connected(encord_server.world.add_project()))
    assert "Pedestrian (bounding box)" in text
    assert "Road sign (polygon: from a model with masks, else the box as one)" in text


@pytest.mark.parametrize(
    ("shapes", "weights"),
    [(["polygon", "bitmask"], "yolo11n-seg"), (["polygon", "bounding_box"], "yolo11n"), (["skeleton"], "yolo11n")],
)
def test_an_ontology_of_masks_gets_a_model_of_masks(encord_server: EncordServer, connected, shapes, weights) -> None:
    objects = [ontology_object(name, shape=shape) for name, shape in zip(("Person", "Car"), shapes, strict=False)]
    project = encord_server.world.add_project(ontology=encord_server.world.add_ontology(editor(objects)))
    assert f"weights: {weights} " in for_project(connected(project))


def test_the_pathway_to_annotators_is_proposed_among_several(encord_server: EncordServer, connected) -> None:
    lines = entries(for_project(connected(encord_server.world.add_project(pathways=PATHWAYS))))
    assert "#   'Skip it', to stage 'Complete'" in lines
    assert any(line.startswith("pathway: To people") and "a guess: check" in line for line in lines)


STAGES = {"First": "AGENT", "Second": "AGENT", "Annotate 1": "ANNOTATION", "Complete": "DONE"}


def test_of_several_agent_stages_one_may_be_named(encord_server: EncordServer, connected) -> None:
    project = connected(encord_server.world.add_project(stages=STAGES, pathways=PATHWAYS))
    text = for_project(project, stage="Second")
    assert "agent stages of this project: 'First', 'Second'" in text
    assert "stage: Second" in text


def test_several_agent_stages_become_a_list_with_a_pathway_each(
    encord_server: EncordServer, connected, tmp_path: Path
) -> None:
    ontology = encord_server.world.add_ontology(editor([ontology_object("Ball")]))
    made = encord_server.world.add_project(ontology=ontology, stages=STAGES, pathways=PATHWAYS)
    text = for_project(connected(made), weights="demo")
    (tmp_path / "prelabel.yaml").write_text(text)
    first, second = load_configs(tmp_path / "prelabel.yaml")
    assert [(one.source.stage, one.pathway) for one in (first, second)] == [
        ("First", "To people"),
        ("Second", "To people"),
    ]
    assert [one.detector.options["weights"] for one in (first, second)] == ["demo", "demo"]
    assert wrong_checks(first, tmp_path) == wrong_checks(second, tmp_path) == []


def test_a_project_without_an_agent_stage_says_what_to_add(encord_server: EncordServer, connected) -> None:
    stages = {"Annotate 1": "ANNOTATION", "Complete": "DONE"}
    with pytest.raises(AccountError, match="no agent stage: add one"):
        for_project(connected(encord_server.world.add_project(stages=stages)))


@pytest.mark.parametrize("given", ["", "crate,lift truck"])
def test_a_project_config_by_words_names_each_object(
    encord_server: EncordServer, encord_environment: None, tmp_path: Path, given: str
) -> None:
    objects = [ontology_object("Pallet: 'x'"), ontology_object("Lane", "polyline"), ontology_object("Lift truck")]
    project = encord_server.world.add_project(ontology=encord_server.world.add_ontology(editor(objects)))
    path = tmp_path / "new.yaml"
    assert write_config([], project.uuid, shorthands={"words": given}, output=path) == 0
    config = load_config(path)
    assert (config.detector.use, config.detector.options["weights"]) == ("transformers", WORDS_WEIGHTS)
    assert config.labels.nms_iou == 0.7
    if given:
        assert config.detector.options["words"] == ["crate", "lift truck"]
        assert config.labels.prompts == {}
    else:
        assert "words" not in config.detector.options
        assert config.labels.prompts == {"Pallet: 'x'": ("Pallet: 'x'",), "Lift truck": ("Lift truck",)}


def test_an_ontology_that_meets_no_class_leaves_the_map_empty(
    encord_server: EncordServer, connected, tmp_path: Path
) -> None:
    ontology = encord_server.world.add_ontology(editor([ontology_object("Crack")]))
    text = for_project(connected(encord_server.world.add_project(ontology=ontology)))
    assert "map those that you want" in text
    assert load(text, tmp_path).labels.classes == {}


def test_weights_whose_classes_are_not_known_leave_the_map_to_the_user(
    encord_server: EncordServer, connected, tmp_path: Path
) -> None:
    text = for_project(connected(encord_server.world.add_project()), weights="runs/best.pt")
    assert "which classes runs/best.pt has: prelabel check prelabel.yaml" in text
    assert load(text, tmp_path).labels.classes == {}


def test_titles_cannot_leave_their_comments(encord_server: EncordServer, connected, tmp_path: Path) -> None:
    evil = "Roads\nreader: {stride: 7}\n#\x00\u2028🚗"
    ontology = encord_server.world.add_ontology(editor([ontology_object("Car: # 'x'\n- y"), ontology_object(evil)]))
    project = encord_server.world.add_project(evil, ontology=ontology, pathways={evil: "Annotate 1"})
    config = load(for_project(connected(project)), tmp_path)
    assert config.reader.stride == 1
    assert config.pathway == evil
