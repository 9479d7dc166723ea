"""The real SDK at the test server: label rows are listed, created, saved, and refused."""

from __future__ import annotations

from datetime import timedelta

import pytest
from encord import EncordUserClient
from encord.exceptions import (
    AnswerDictionaryError,
    CorruptedLabelError,
    FeatureDoesNotExistError,
    InvalidArgumentsError,
    PayloadTooLargeError,
    ResourceExistsError,
)
from encord.http.constants import RequestsSettings
from encord.objects import Object
from encord.objects.coordinates import BoundingBoxCoordinates

from prelabel.testing.encord_server import AGENT
from tests.encord_fixtures import NUM_FRAMES, ConnectAs, Platform


def test_rows_are_created_got_and_saved_in_bundles(platform: Platform) -> None:
    platform.add_clips(2)
    for _ in ("create", "get"):
        rows = platform.sdk.list_label_rows_v2()
        with platform.sdk.create_bundle() as bundle:
            for row in rows:
                row.initialise_labels(bundle=bundle)
        with platform.sdk.create_bundle() as bundle:
            for row in rows:
                row.add_object_instance(platform.box([1]))
                row.save(bundle=bundle)
    assert [len(row.objects()) for row in platform.project.rows.values()] == [2, 2, 2]
    assert [len(platform.server.calls_of(f"{verb}_label_rows")) for verb in ("create", "get", "save")] == [1, 1, 2]


def test_rows_are_listed_by_title_stage_and_time(platform: Platform) -> None:
    platform.add_clips(2)
    row = platform.initialised_row()

    def listed(**filters: object) -> list[str]:
        return [row.data_title for row in platform.sdk.list_label_rows_v2(**filters)]

    assert listed(data_title_eq="1.mp4") == ["1.mp4"]
    assert listed(data_title_like="_.mp4") == ["0.mp4", "1.mp4"]
    assert listed(workflow_graph_node_title_eq=AGENT) == ["clip.mp4", "0.mp4", "1.mp4"]
    assert listed(workflow_graph_node_title_like="Annotate%") == []
    assert listed(label_hashes=[row.label_hash]) == ["clip.mp4"]
    assert listed(edited_after=row.last_edited_at - timedelta(seconds=1)) == ["clip.mp4"]
    assert listed(edited_before=row.last_edited_at - timedelta(seconds=1)) == []


def test_saved_row_reads_back_equal(platform: Platform) -> None:
    row = platform.initialised_row()
    row.add_object_instance(platform.box([0, 1, 5]))
    row.add_classification_instance(platform.wet_weather())
    row.save()

    sent, read = row.to_encord_dict(), platform.initialised_row().to_encord_dict()
    assert without_fillings(read["data_units"]) == without_fillings(sent["data_units"])
    assert without_fillings(read["object_answers"]) == without_fillings(sent["object_answers"])
    assert without_fillings(read["classification_answers"]) == without_fillings(sent["classification_answers"])
    (save,) = platform.server.world.saves
    assert without_fillings(save.document["data_units"]) == without_fillings(sent["data_units"])


def without_fillings(node: object) -> object:
    """Without what the platform fills in: who, the running number, and the link of the moment."""
    if isinstance(node, dict):
        filled = {"createdBy", "lastEditedBy", "objectNumber", "data_link"}
        return {key: without_fillings(value) for key, value in node.items() if key not in filled}
    return [without_fillings(value) for value in node] if isinstance(node, list) else node


@pytest.mark.filterwarnings("ignore:save_label_row is deprecated")
def test_whole_row_is_replaced_by_a_dictionary(platform: Platform) -> None:
    row = platform.initialised_row()
    row.add_object_instance(platform.box([0]))
    row.save()
    stale = platform.initialised_row().to_encord_dict()
    row.add_object_instance(platform.box([3]))
    row.save()
    edited = platform.row().last_edited_at

    platform.sdk.save_label_row(row.label_hash, stale)
    assert [frame for frame, _ in platform.project.row(platform.clip).objects()] == [0]
    assert platform.row().last_edited_at > edited
    assert len(platform.server.world.saves) == 3


def test_filtered_read_leaves_out_what_was_not_asked_for(platform: Platform) -> None:
    row = platform.initialised_row()
    row.add_object_instance(platform.box([0], "Pedestrian"))
    row.add_object_instance(platform.box([0], "Vehicle"))
    row.save()
    vehicle = platform.sdk.ontology_structure.get_child_by_title("Vehicle", type_=Object)
    filtered = platform.row()
    filtered.initialise_labels(include_object_feature_hashes={vehicle.feature_node_hash})
    assert [found.object_name for found in filtered.get_object_instances()] == ["Vehicle"]


def test_authors_are_told_apart(platform: Platform, encord_client_as: ConnectAs) -> None:
    row = platform.initialised_row()
    row.add_object_instance(platform.box([0]))
    row.save()
    annas = encord_client_as("anna@example.com").get_project(platform.project.uuid).list_label_rows_v2()[0]
    annas.initialise_labels()
    annas.add_object_instance(platform.box([1]))
    annas.save()
    authors = [entry["createdBy"] for _, entry in platform.project.row(platform.clip).objects()]
    assert authors == ["agent@example.com", "anna@example.com"]


def test_row_of_another_branch_is_a_row_of_its_own(platform: Platform) -> None:
    for branch in ("main", "model-a"):
        row = platform.row(branch)
        row.initialise_labels()
        assert row.branch_name == branch
    assert len({row.label_hash for row in platform.sdk.list_label_rows_v2(include_all_label_branches=True)}) == 2
    assert list(platform.sdk.list_branches()) == ["main", "model-a"]


def test_labels_are_copied_to_a_branch(platform: Platform) -> None:
    row = platform.initialised_row()
    row.add_object_instance(platform.box([2]))
    row.save()
    copied = [platform.sdk.copy_labels_to_branch("model-a", overwrite=again) for again in (False, False, True)]
    assert copied == [1, 0, 1]
    assert [frame for frame, _ in platform.project.row(platform.clip, "model-a").objects()] == [2]


def test_classifications_are_read_in_bulk(platform: Platform) -> None:
    row = platform.initialised_row()
    row.add_classification_instance(platform.wet_weather())
    row.save()
    (entry,) = platform.sdk.get_label_classifications([row.label_hash])
    (answer,) = entry.classification_answers.values()
    assert (answer.classifications[0].name, answer.created_by) == ("Weather", "agent@example.com")


def test_creating_a_row_twice_is_refused(platform: Platform) -> None:
    first, second = platform.row(), platform.row()
    first.initialise_labels()
    with pytest.raises(ResourceExistsError):
        second.initialise_labels()


def change_frame(document: dict) -> None:
    (unit,) = document["data_units"].values()
    unit["labels"][str(NUM_FRAMES)] = unit["labels"].pop("0")


def drop_answers(document: dict) -> None:
    document["object_answers"] = {}


def change_feature(document: dict) -> None:
    (unit,) = document["data_units"].values()
    unit["labels"]["0"]["objects"][0]["featureHash"] = "AAAAAAAA"


def put_nan(document: dict) -> None:
    (unit,) = document["data_units"].values()
    unit["labels"]["0"]["objects"][0]["boundingBox"]["x"] = float("nan")


@pytest.mark.filterwarnings("ignore:save_label_row is deprecated")
@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (change_frame, CorruptedLabelError),
        (drop_answers, AnswerDictionaryError),
        (change_feature, FeatureDoesNotExistError),
        (put_nan, InvalidArgumentsError),
    ],
)
def test_labels_that_cannot_be_are_refused(platform: Platform, spoil, error: type[Exception]) -> None:
    row = platform.initialised_row()
    row.add_object_instance(platform.box([0]))
    document = row.to_encord_dict()
    spoil(document)
    with pytest.raises(error):
        platform.sdk.save_label_row(row.label_hash, document)
    assert platform.project.row(platform.clip).objects() == []


def test_box_outside_the_picture_makes_the_row_invalid_or_is_refused(platform: Platform) -> None:
    row = platform.initialised_row()
    instance = platform.box([0])
    outside = BoundingBoxCoordinates(height=0.1, width=0.2, top_left_x=0.9, top_left_y=0.4)
    instance.set_for_frames(outside, frames=[1])
    row.add_object_instance(instance)
    with pytest.raises(CorruptedLabelError, match="outside the picture"):
        row.save(validate_before_saving=True)
    row.save()
    assert not platform.row().is_valid
    assert "outside the picture" in platform.row().get_validation_errors()[0]


def test_body_past_the_limit_is_refused(platform: Platform, encord_key: str) -> None:
    impatient = EncordUserClient.create_with_ssh_private_key(
        encord_key, domain=platform.server.url, requests_settings=RequestsSettings(max_retries=0)
    )
    (row,) = impatient.get_project(platform.project.uuid).list_label_rows_v2()
    row.initialise_labels()
    platform.server.settings.max_body_bytes = 500
    with pytest.raises(PayloadTooLargeError, match="exceeds the limit of 500"):
        row.save()
