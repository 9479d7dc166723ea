from __future__ import annotations

import pytest

from prelabel.encord.project import labels_as_sent
from prelabel.errors import AccountError
from prelabel.testing.encord_server import AGENT, ANNOTATE
from prelabel.testing.encord_server.ontologies import editor, ontology_object
from prelabel.testing.encord_server.records import Pathway, Stage
from tests.encord_fixtures import Platform
from tests.reach import reach

pytestmark = pytest.mark.usefixtures("encord_environment")


def test_stage_is_found_by_title_and_uuid(platform: Platform) -> None:
    project = reach(platform)
    stage = platform.project.stage(AGENT)
    assert str(project.agent_stage(AGENT).uuid) == str(project.agent_stage(stage.uuid.upper()).uuid) == stage.uuid


def test_wrong_stage_lists_those_that_exist(platform: Platform) -> None:
    project = reach(platform)
    with pytest.raises(AccountError, match=f"no stage 'Pre-Labelling Agent': did you mean '{AGENT}'"):
        project.agent_stage("Pre-Labelling Agent")
    with pytest.raises(AccountError, match=f"kind annotation, which only people work at.*'{AGENT}'"):
        project.agent_stage(ANNOTATE)
    platform.project.stages.append(Stage("6f5b7c3e-0000-4000-8000-000000000000", AGENT, "REVIEW"))
    with pytest.raises(AccountError, match=r"has 2 stages .* by its uuid: .*6f5b7c3e"):
        reach(platform).agent_stage(AGENT)


def test_pathway_is_found_by_name_and_uuid_or_those_that_exist_are_listed(platform: Platform) -> None:
    project, kept = reach(platform), platform.project.stage(AGENT).pathways[1]
    stage = project.agent_stage(AGENT)
    assert str(project.pathway(stage, kept.title).uuid) == str(project.pathway(stage, kept.uuid).uuid) == kept.uuid
    with pytest.raises(AccountError, match=r"no pathway 'Annotate': .*'Annotate 1', 'Straight to review'"):
        project.pathway(stage, "Annotate")
    with pytest.raises(AccountError, match=r"is missing: .*'Annotate 1'"):
        project.pathway(stage, None)
    platform.project.stage(AGENT).pathways.append(Pathway(kept.destination_uuid, "Annotate 1", kept.destination_uuid))
    project = reach(platform)
    with pytest.raises(AccountError, match="has 2 'Annotate 1': name one by its uuid"):
        project.pathway(project.agent_stage(AGENT), "Annotate 1")


def test_ontology_leaves_archived_objects_out(platform: Platform) -> None:
    objects = [ontology_object("Person"), ontology_object("Bus", archived=True)]
    platform.project.ontology = platform.server.world.add_ontology(editor(objects), title="Streets")
    ontology = reach(platform).ontology()
    assert (ontology.title, [found.name for found in ontology.objects]) == ("Streets", ["Person"])


def test_a_row_that_was_read_holds_no_labels_and_can_be_given_some(platform: Platform) -> None:
    row = platform.row()
    sent = labels_as_sent(row)
    assert "from_labels_dict" not in vars(row)
    assert not row.is_labelling_initialised
    row.from_labels_dict(sent)
    assert row.to_encord_dict()["data_hash"] == sent["data_hash"] == platform.clip.data_hash
