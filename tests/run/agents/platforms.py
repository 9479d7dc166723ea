"""A platform with everything that the example functions need, and a way to run one on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from encord.objects import Classification, LabelRowV2

from prelabel.testing.encord_server import AGENT, COMPLETE, EncordServer
from prelabel.testing.encord_server.ontologies import editor, feature_hash, ontology_object, radio_classification
from tests.encord_fixtures import Platform

PATHWAYS = {"Annotate 1": "Annotate 1", "Night team": "Review 1", "Nothing to label": COMPLETE}


def text_classification(name: str) -> dict[str, Any]:
    attribute = {"name": name, "type": "text", "required": False, "dynamic": False}
    return {
        "featureNodeHash": feature_hash(name, "classification"),
        "attributes": [attribute | {"featureNodeHash": feature_hash(name, "text")}],
    }


def populate(server: EncordServer, client: Any, clip: Path) -> Platform:
    """Returns a project of boxes, masks, outlines, a radio and a text, with a clip of that name at its agent stage."""
    ontology = server.world.add_ontology(
        editor(
            [ontology_object("Pedestrian"), ontology_object("Mask", "bitmask"), ontology_object("Outline", "polygon")],
            [radio_classification("Weather", ["Dry", "Wet"]), text_classification("Caption")],
        )
    )
    project = server.world.add_project(ontology=ontology, pathways=PATHWAYS)
    unit = server.world.add_video(clip, title="clip.mp4", client_metadata={"city": "Oslo"})
    server.world.add_task(project.stage(AGENT), unit)
    return Platform(server, project, unit, client, client.get_project(project.uuid))


def write_config(platform: Platform, folder: Path, code: str, agent: str = "agent: {use: my_agent.py:handle}") -> Path:
    (folder / "my_agent.py").write_text(code)
    path = folder / "config.yaml"
    path.write_text(
        f"source: {{stage: {AGENT}, project_hash: {platform.project.uuid}, output: {folder / 'out'}}}\n"
        f"retries: {{attempts: 1}}\n{agent}\n"
    )
    return path


def report_of(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "out" / "report.json").read_text())
    return report


def reasons(folder: Path) -> str:
    return "\n".join(task["reason"] for task in report_of(folder)["tasks"] if task["status"] == "failed")


def add_caption(label_row: LabelRowV2, text: str) -> None:
    instance = label_row.ontology_structure.get_child_by_title("Caption", type_=Classification).create_instance()
    instance.set_answer(text)
    instance.set_for_frames(0)
    label_row.add_classification_instance(instance)
