"""Open-vocabulary detectors get their words from the config or the ontology."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from prelabel import Detections, FrameBatch, ModelTraits
from prelabel.assembly.assemble import Assembly, assemble
from prelabel.cli.commands import check_config_file, relabel_kept, run_config
from prelabel.config.load import load_config
from prelabel.data.ontology import Ontology
from prelabel.errors import ConfigError, OntologyError
from tests.kept import write_grey_clip


class Finder:
    """Finds each of its words once per frame, in a row."""

    def __init__(self, words: Sequence[str] = ()):
        self.class_names, self.traits = tuple(words), ModelTraits(word_passes=())

    def with_words(self, words: Sequence[str]) -> Finder:
        other = copy.copy(self)
        other.class_names, other.traits = tuple(words), replace(self.traits, word_passes=(tuple(words),))
        return other

    def detect(self, batch: FrameBatch) -> list[Detections]:
        num = len(self.class_names)
        boxes = [(place * 9, 2, place * 9 + 8, 20) for place in range(num)]
        return [Detections(boxes, [0.9] * num, list(range(num))) for _ in batch.frame_indices]


class Fixed(Finder):
    def __init__(self):
        self.class_names = ("person", "car")


class WithClasses(Finder):
    """Has classes of its own, and finds words too."""

    def __init__(self):
        super().__init__(["Pallet", "Forklift"])


def config_file(folder: Path, objects: Sequence[str] | None = ("Forklift", "Pallet"), **sections: object) -> Path:
    write_grey_clip(folder / "clips" / "a.mp4", 96, 64, 2)
    source = {"path": str(folder / "clips"), "output": str(folder / "out")}
    if objects is not None:
        (folder / "ontology.json").write_text(json.dumps(dict(Ontology.from_classes(objects).structure)))
        source["ontology"] = str(folder / "ontology.json")
    values = {"source": source, "detector": {"use": "tests.assembly.test_words:Finder"}, **sections}
    path = folder / "config.yaml"
    path.write_text(json.dumps(values))
    return path


def assembly_of(path: Path) -> Assembly:
    return assemble(load_config(path), path.parent)


def objects_of(folder: Path, **sections: object) -> dict[str, str | None]:
    label_map = assembly_of(config_file(folder, **sections)).detection.label_map
    return {
        name: found.name if found else None
        for name, found in zip(label_map.class_names, label_map.objects, strict=True)
    }


def test_the_names_of_the_ontologys_objects_are_the_words(tmp_path: Path) -> None:
    assert objects_of(tmp_path) == {"Forklift": "Forklift", "Pallet": "Pallet"}


def test_several_words_may_stand_for_one_object(tmp_path: Path) -> None:
    found = objects_of(tmp_path, labels={"prompts": {"Forklift": ["lift truck", "forklift truck"]}})
    assert found == {"lift truck": "Forklift", "forklift truck": "Forklift", "Pallet": "Pallet"}


def test_prompts_replace_the_classes_of_a_model_that_has_some(tmp_path: Path) -> None:
    detector = {"use": "tests.assembly.test_words:WithClasses"}
    assert objects_of(tmp_path, detector=detector) == {"Pallet": "Pallet", "Forklift": "Forklift"}

    found = objects_of(tmp_path, detector=detector, labels={"prompts": {"Forklift": "lift truck"}})

    assert found == {"lift truck": "Forklift", "Pallet": "Pallet"}


def test_without_an_ontology_one_is_made_of_the_words(tmp_path: Path) -> None:
    found = objects_of(tmp_path, objects=None, labels={"prompts": {"Forklift": "lift truck", "Pallet": "pallet"}})
    assert found == {"lift truck": "Forklift", "pallet": "Pallet"}
    with pytest.raises(ConfigError, match="there is no ontology"):
        objects_of(tmp_path, objects=None)


def test_a_given_ontology_replaces_that_of_the_source(tmp_path: Path) -> None:
    config = load_config(config_file(tmp_path))
    assembly = assemble(config, tmp_path, find_ontology=lambda: Ontology.from_classes(["Crate"]))
    assert assembly.detection.label_map.class_names == ("Crate",)


def test_words_of_the_detectors_section_come_first(tmp_path: Path) -> None:
    detector = {"use": "tests.assembly.test_words:Finder", "words": ["lift truck", "box"]}
    labels = {"prompts": {"Forklift": ["lift truck", "forklift truck"]}}
    assert objects_of(tmp_path, detector=detector, labels=labels) == {"lift truck": "Forklift", "box": None}


def test_a_detector_with_fixed_classes_takes_no_prompts(tmp_path: Path) -> None:
    detector = {"use": "tests.assembly.test_words:Fixed"}
    with pytest.raises(ConfigError, match=r"labels\.prompts: this detector has fixed classes \(person, car, …\)"):
        objects_of(tmp_path, detector=detector, labels={"prompts": {"Forklift": ["car"]}})


def test_a_prompt_for_an_unknown_object_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OntologyError, match="did you mean 'Pallet'"):
        objects_of(tmp_path, labels={"prompts": {"Palet": ["pallet"]}})


def test_other_words_are_other_detections_and_another_map_other_labels(tmp_path: Path) -> None:
    def fingerprints(**prompts: Sequence[str]) -> tuple[str, str]:
        parts = assembly_of(config_file(tmp_path, labels={"prompts": prompts})).detection
        return parts.raw_fingerprint, parts.label_fingerprint

    raw, labels = fingerprints(Forklift=["lift truck"], Pallet=["pallet"])
    assert fingerprints(Forklift=["lift truck"], Pallet=["board"])[0] != raw
    remapped = fingerprints(Forklift=["lift truck", "pallet"], Pallet=[])
    assert remapped[0] == raw
    assert remapped[1] != labels


def test_check_names_the_words_and_their_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = config_file(tmp_path, labels={"prompts": {"Forklift": ["lift truck", "forklift truck"]}})
    assert check_config_file(path, ()) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "looks in 1 pass for: lift truck, forklift truck, Pallet; several words may find one thing" in said


def test_relabel_moves_words_to_other_objects_but_knows_no_new_ones(tmp_path: Path) -> None:
    prompts = {"Forklift": ["lift truck"], "Pallet": ["pallet"]}
    assert run_config(config_file(tmp_path, labels={"prompts": prompts})) == 0
    moved = {"Forklift": ["lift truck", "pallet"], "Pallet": []}
    assert relabel_kept(config_file(tmp_path, labels={"prompts": moved}), ()) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["tasks"][0]["instances"] == {"Forklift": 4}
    new = {"Forklift": ["lift truck", "reach truck"]}
    with pytest.raises(ConfigError, match="nothing has looked for 'reach truck' yet: `prelabel run CONFIG` first"):
        relabel_kept(config_file(tmp_path, labels={"prompts": new}), ())
