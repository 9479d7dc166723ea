"""The functions of configs/own_agents.py, each run from configs/agent.yaml."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from encord.objects import Object
from encord.objects.coordinates import BitmaskCoordinates, PolygonCoordinates

from prelabel.cli.commands import run_config
from prelabel.testing.encord_server import ANNOTATE, REVIEW
from tests.encord_fixtures import Platform

pytestmark = pytest.mark.filterwarnings("ignore:save_label_row is deprecated:DeprecationWarning")

CONFIG = Path(__file__).parents[3] / "configs" / "agent.yaml"


def run(platform: Platform, folder: Path, *settings: str) -> None:
    given = (f"source.project_hash={platform.project.uuid}", f"source.output={folder / 'out'}", *settings)
    assert run_config(CONFIG, given) == 0


def test_by_title(site: Platform, tmp_path: Path) -> None:
    run(site, tmp_path, "agent.begins=cl")
    assert site.project.titles_at(REVIEW) == ["clip.mp4"]


def test_caption(site: Platform, tmp_path: Path) -> None:
    run(site, tmp_path, "agent={use: own_agents.py:caption}")
    (answer,) = site.project.row(site.clip).classification_answers.values()
    said = answer["classifications"][0]["answers"]
    assert said.startswith(("dark, mostly ", "bright, mostly "))
    assert answer["manualAnnotation"] is False
    assert site.project.titles_at(ANNOTATE) == ["clip.mp4"]


def test_from_twin(site: Platform, tmp_path: Path) -> None:
    world = site.server.world
    twin = world.add_project("Twin", ontology=site.project.ontology)
    world.add_task(twin.stage(ANNOTATE), site.clip)
    theirs = site.client.get_project(twin.uuid).list_label_rows_v2()[0]
    theirs.initialise_labels()
    theirs.add_object_instance(site.box([0, 3]))
    theirs.save()
    run(site, tmp_path, f"agent={{use: own_agents.py:from_twin, twin_project: {twin.uuid}}}")
    ours = [
        (frame, entry["boundingBox"], entry["confidence"]) for frame, entry in site.project.row(site.clip).objects()
    ]
    box = {"h": 0.1, "w": 0.2, "x": 0.3, "y": 0.4}
    assert ours == [(0, box, 0.875), (3, box, 0.875)]


def test_masks_to_polygons(site: Platform, tmp_path: Path) -> None:
    row = site.initialised_row()
    mask = np.zeros((row.height, row.width), bool)
    mask[10:20, 16:32] = True
    instance = row.ontology_structure.get_child_by_title("Mask", type_=Object).create_instance()
    instance.set_for_frames(BitmaskCoordinates(mask), frames=2, manual_annotation=False)
    row.add_object_instance(instance)
    row.save()
    run(site, tmp_path, "agent={use: own_agents.py:masks_to_polygons, objects: {Mask: Outline}}")
    after = site.initialised_row()
    (outline,) = after.get_object_instances()
    (annotation,) = outline.get_annotations()
    assert (outline.object_name, annotation.frame) == ("Outline", 2)
    assert isinstance(annotation.coordinates, PolygonCoordinates)
    corners = {(round(p.x * row.width), round(p.y * row.height)) for p in annotation.coordinates.values}
    assert corners == {(16, 10), (32, 10), (32, 20), (16, 20)}
