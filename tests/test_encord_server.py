"""The real SDK drives the test server through all that an agent does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import requests
from encord import EncordUserClient
from encord.configs import SshConfig
from encord.exceptions import (
    AnswerDictionaryError,
    AuthenticationError,
    AuthorisationError,
    CorruptedLabelError,
    FeatureDoesNotExistError,
    InvalidArgumentsError,
    PayloadTooLargeError,
    ResourceExistsError,
    ResourceNotFoundError,
)
from encord.http.constants import RequestsSettings
from encord.objects import Classification, ClassificationInstance, LabelRowV2, Object, ObjectInstance
from encord.objects.coordinates import BoundingBoxCoordinates
from encord.project import Project as SdkProject
from encord.storage import StorageItem as SdkStorageItem
from encord.workflow.stages.agent import AgentStage, AgentTask
from PIL import Image

from tests.encord_server import AGENT, ANNOTATE, COMPLETE, REVIEW, EncordServer
from tests.encord_server.fixtures import ConnectAs, connect
from tests.encord_server.records import DataUnit, Project
from tests.encord_server.signing import KeyPair
from tests.media import Recipe, write_clip

NUM_FRAMES = 12


@dataclass
class Scene:
    """A project with one video at the agent stage, seen from the server's side and from the SDK's."""

    server: EncordServer
    project: Project
    clip: DataUnit
    sdk: SdkProject
    client: EncordUserClient

    @property
    def stage(self) -> AgentStage:
        return self.sdk.workflow.get_stage(name=AGENT, type_=AgentStage)

    def task(self) -> AgentTask:
        return next(iter(self.stage.get_tasks()))

    def row(self, branch: str = "main") -> LabelRowV2:
        (row,) = self.sdk.list_label_rows_v2(data_hashes=[self.clip.data_hash], branch_name=branch)
        return row

    def initialised_row(self) -> LabelRowV2:
        row = self.row()
        row.initialise_labels()
        return row

    def item(self) -> SdkStorageItem:
        return self.client.get_storage_item(self.clip.item.uuid, sign_url=True)


@pytest.fixture(scope="module")
def clip_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips"), "clip", Recipe(num_frames=NUM_FRAMES))


@pytest.fixture
def scene(encord_server: EncordServer, encord_client: EncordUserClient, clip_path: Path) -> Scene:
    world = encord_server.world
    project = world.add_project()
    clip = world.add_video(clip_path, title="clip.mp4", client_metadata={"camera": 1})
    world.add_task(project.stage(AGENT), clip)
    return Scene(encord_server, project, clip, encord_client.get_project(project.uuid), encord_client)


def box_of(scene: Scene, frames: list[int], name: str = "Pedestrian") -> ObjectInstance:
    feature = scene.sdk.ontology_structure.get_child_by_title(name, type_=Object)
    instance = feature.create_instance()
    box = BoundingBoxCoordinates(height=0.1, width=0.2, top_left_x=0.3, top_left_y=0.4)
    instance.set_for_frames(box, frames=frames, confidence=0.875, manual_annotation=False)
    return instance


def wet_weather(scene: Scene) -> ClassificationInstance:
    weather = scene.sdk.ontology_structure.get_child_by_title("Weather", type_=Classification)
    instance = weather.create_instance()
    instance.set_answer(weather.get_child_by_title("Wet"))
    instance.set_for_frames(frames=0)
    return instance


def test_task_goes_the_whole_way(scene: Scene) -> None:
    task = scene.task()
    (row,) = scene.sdk.list_label_rows_v2(data_hashes=[task.data_hash], branch_name=task.label_branch_name)
    assert (row.label_hash, row.number_of_frames) == (None, NUM_FRAMES)
    assert requests.get(scene.item().get_signed_url(), timeout=5).content == scene.clip.item.path.read_bytes()
    row.initialise_labels()
    row.add_object_instance(box_of(scene, [0, 7]))
    row.save()
    task.proceed(pathway_name="Annotate 1")

    stored = scene.project.row(scene.clip)
    assert [(frame, entry["confidence"], entry["createdBy"]) for frame, entry in stored.objects()] == [
        (0, 0.875, "agent@example.com"),
        (7, 0.875, "agent@example.com"),
    ]
    assert [task.data.title for task in scene.project.tasks_at(ANNOTATE)] == ["clip.mp4"]
    assert [call.operation for call in scene.server.calls] == [
        "get_project",
        "get_ontology",
        "list_tasks",
        "list_label_rows",
        "get_item",
        "download",
        "create_label_rows",
        "save_label_rows",
        "act_on_tasks",
    ]


def test_project_shows_workflow_users_and_datasets(scene: Scene) -> None:
    assert [stage.title for stage in scene.sdk.workflow.stages] == [AGENT, ANNOTATE, REVIEW, COMPLETE]
    assert [path.name for path in scene.stage.pathways] == ["Annotate 1", "Straight to review", "Nothing to label"]
    assert [project.title for project in scene.client.list_projects()] == ["Road users"]
    assert [dataset.title for dataset in scene.sdk.list_datasets()] == ["Footage"]
    assert [user.user_email for user in scene.sdk.list_users()] == ["agent@example.com"]
    assert scene.sdk.get_project().title == "Road users"


def test_tasks_come_in_pages_by_priority(scene: Scene, clip_path: Path) -> None:
    add_clips(scene, clip_path, 6)
    scene.server.settings.page_size = 3
    urgent = scene.project.tasks_at(AGENT)[4].data.data_hash
    (row,) = scene.sdk.list_label_rows_v2(data_hashes=[urgent])
    row.set_priority(1.0)

    assert [task.data_title for task in scene.stage.get_tasks()] == [
        "3.mp4",
        "clip.mp4",
        "0.mp4",
        "1.mp4",
        "2.mp4",
        "4.mp4",
        "5.mp4",
    ]
    assert len(scene.server.calls_of("list_tasks")) == 3
    assert [task.data_title for task in scene.stage.get_tasks(data_title="2.m")] == ["2.mp4"]
    assert [str(task.data_hash) for task in scene.stage.get_tasks(data_hash=urgent)] == [urgent]


@pytest.mark.parametrize(("stable", "num_seen"), [(False, 4), (True, 7)])
def test_moving_tasks_while_listing_skips_some_with_offset_tokens(
    scene: Scene, clip_path: Path, stable: bool, num_seen: int
) -> None:
    add_clips(scene, clip_path, 6)
    scene.server.settings.page_size = 3
    scene.server.settings.stable_page_tokens = stable
    seen = 0
    for task in scene.stage.get_tasks():
        task.proceed(pathway_name="Annotate 1")
        seen += 1
    assert (seen, len(scene.project.tasks_at(AGENT))) == (num_seen, 7 - num_seen)


def add_clips(scene: Scene, path: Path, count: int) -> None:
    for number in range(count):
        clip = scene.server.world.add_video(path, title=f"{number}.mp4", facts=scene.clip.item.facts)
        scene.server.world.add_task(scene.project.stage(AGENT), clip)


def test_task_proceeds_by_pathway_uuid(scene: Scene) -> None:
    pathway = scene.stage.pathways[2]
    scene.task().proceed(pathway_uuid=pathway.uuid)
    (move,) = scene.server.world.moves
    assert (move.destination.title, move.pathway, move.user) == (COMPLETE, str(pathway.uuid), "agent@example.com")


def test_task_can_be_moved_to_any_stage(scene: Scene) -> None:
    scene.task().move(destination_stage_uuid=scene.sdk.workflow.get_stage(name=REVIEW).uuid)
    assert len(scene.project.tasks_at(REVIEW)) == 1


def test_annotators_and_reviewers_move_tasks_on(scene: Scene) -> None:
    scene.task().proceed(pathway_name="Annotate 1")
    for stage in (ANNOTATE, REVIEW):
        (task,) = scene.sdk.workflow.get_stage(name=stage).get_tasks()
        task.submit() if stage == ANNOTATE else task.approve()
    (task,) = scene.sdk.workflow.get_stage(name=COMPLETE).get_tasks()
    assert task.data_title == "clip.mp4"


def test_stale_task_is_refused(scene: Scene) -> None:
    task = scene.task()
    task.proceed(pathway_name="Annotate 1")
    with pytest.raises(InvalidArgumentsError, match="not at stage"):
        task.proceed(pathway_name="Annotate 1")


def test_unknown_pathway_is_refused(scene: Scene) -> None:
    with pytest.raises(InvalidArgumentsError, match="no pathway"):
        scene.task().proceed(pathway_name="Annotate 7")


def test_one_stale_task_refuses_the_whole_bundle(scene: Scene, clip_path: Path) -> None:
    add_clips(scene, clip_path, 2)
    tasks = list(scene.stage.get_tasks())
    tasks[1].proceed(pathway_name="Annotate 1")
    with pytest.raises(InvalidArgumentsError, match="not at stage"):
        proceed_together(scene, tasks)
    assert len(scene.project.tasks_at(AGENT)) == 2


def proceed_together(scene: Scene, tasks: list[AgentTask]) -> None:
    with scene.sdk.create_bundle() as bundle:
        for task in tasks:
            task.proceed(pathway_name="Annotate 1", bundle=bundle)


def test_rows_are_created_got_and_saved_in_bundles(scene: Scene, clip_path: Path) -> None:
    add_clips(scene, clip_path, 2)
    for _ in ("create", "get"):
        rows = scene.sdk.list_label_rows_v2()
        with scene.sdk.create_bundle() as bundle:
            for row in rows:
                row.initialise_labels(bundle=bundle)
        with scene.sdk.create_bundle() as bundle:
            for row in rows:
                row.add_object_instance(box_of(scene, [1]))
                row.save(bundle=bundle)
    assert [len(row.objects()) for row in scene.project.rows.values()] == [2, 2, 2]
    assert [len(scene.server.calls_of(f"{verb}_label_rows")) for verb in ("create", "get", "save")] == [1, 1, 2]


def test_saved_row_reads_back_equal(scene: Scene) -> None:
    row = scene.initialised_row()
    row.add_object_instance(box_of(scene, [0, 1, 5]))
    row.add_classification_instance(wet_weather(scene))
    row.save()

    sent, read = row.to_encord_dict(), scene.initialised_row().to_encord_dict()
    assert without_fillings(read["data_units"]) == without_fillings(sent["data_units"])
    assert without_fillings(read["object_answers"]) == without_fillings(sent["object_answers"])
    assert without_fillings(read["classification_answers"]) == without_fillings(sent["classification_answers"])
    (document,) = scene.server.world.saved_documents(row.label_hash)
    assert without_fillings(document["data_units"]) == without_fillings(sent["data_units"])


def without_fillings(node: object) -> object:
    """Without what the platform fills in: who, the running number, and the link of the moment."""
    if isinstance(node, dict):
        filled = {"createdBy", "lastEditedBy", "objectNumber", "data_link"}
        return {key: without_fillings(value) for key, value in node.items() if key not in filled}
    return [without_fillings(value) for value in node] if isinstance(node, list) else node


@pytest.mark.filterwarnings("ignore:save_label_row is deprecated")
def test_whole_row_is_replaced_by_a_dictionary(scene: Scene) -> None:
    row = scene.initialised_row()
    row.add_object_instance(box_of(scene, [0]))
    row.save()
    stale = scene.initialised_row().to_encord_dict()
    row.add_object_instance(box_of(scene, [3]))
    row.save()
    edited = scene.row().last_edited_at

    scene.sdk.save_label_row(row.label_hash, stale)
    assert [frame for frame, _ in scene.project.row(scene.clip).objects()] == [0]
    assert scene.row().last_edited_at > edited
    assert len(scene.server.world.saves) == 3


def test_filtered_read_leaves_out_what_was_not_asked_for(scene: Scene) -> None:
    row = scene.initialised_row()
    row.add_object_instance(box_of(scene, [0], "Pedestrian"))
    row.add_object_instance(box_of(scene, [0], "Vehicle"))
    row.save()
    vehicle = scene.sdk.ontology_structure.get_child_by_title("Vehicle", type_=Object)
    filtered = scene.row()
    filtered.initialise_labels(include_object_feature_hashes={vehicle.feature_node_hash})
    assert [found.object_name for found in filtered.get_object_instances()] == ["Vehicle"]


def test_row_of_another_branch_is_a_row_of_its_own(scene: Scene) -> None:
    for branch in ("main", "model-a"):
        row = scene.row(branch)
        row.initialise_labels()
        assert row.branch_name == branch
    assert len({row.label_hash for row in scene.sdk.list_label_rows_v2(include_all_label_branches=True)}) == 2
    assert list(scene.sdk.list_branches()) == ["main", "model-a"]


def test_labels_are_copied_to_a_branch(scene: Scene) -> None:
    row = scene.initialised_row()
    row.add_object_instance(box_of(scene, [2]))
    row.save()
    assert [scene.sdk.copy_labels_to_branch("model-a", overwrite=again) for again in (False, False, True)] == [1, 0, 1]
    assert [frame for frame, _ in scene.project.row(scene.clip, "model-a").objects()] == [2]


def test_classifications_are_read_in_bulk(scene: Scene) -> None:
    row = scene.initialised_row()
    row.add_classification_instance(wet_weather(scene))
    row.save()
    (entry,) = scene.sdk.get_label_classifications([row.label_hash])
    (answer,) = entry.classification_answers.values()
    assert (answer.classifications[0].name, answer.created_by) == ("Weather", "agent@example.com")


def test_workflow_is_completed_and_reopened(scene: Scene) -> None:
    row = scene.initialised_row()
    row.workflow_complete()
    assert scene.row().workflow_graph_node.title == COMPLETE
    row.workflow_reopen()
    assert scene.row().workflow_graph_node.title == ANNOTATE


def test_creating_a_row_twice_is_refused(scene: Scene) -> None:
    first, second = scene.row(), scene.row()
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
def test_labels_that_cannot_be_are_refused(scene: Scene, spoil, error: type[Exception]) -> None:
    row = scene.initialised_row()
    row.add_object_instance(box_of(scene, [0]))
    document = row.to_encord_dict()
    spoil(document)
    with pytest.raises(error):
        scene.sdk.save_label_row(row.label_hash, document)
    assert scene.project.row(scene.clip).objects() == []


def test_box_outside_the_picture_makes_the_row_invalid_or_is_refused(scene: Scene) -> None:
    row = scene.initialised_row()
    instance = box_of(scene, [0])
    outside = BoundingBoxCoordinates(height=0.1, width=0.2, top_left_x=0.9, top_left_y=0.4)
    instance.set_for_frames(outside, frames=[1])
    row.add_object_instance(instance)
    with pytest.raises(CorruptedLabelError, match="outside the picture"):
        row.save(validate_before_saving=True)
    row.save()
    assert not scene.row().is_valid
    assert "outside the picture" in scene.row().get_validation_errors()[0]


def test_body_past_the_limit_is_refused(scene: Scene, encord_key: str) -> None:
    impatient = EncordUserClient.create_with_ssh_private_key(
        encord_key, domain=scene.server.url, requests_settings=RequestsSettings(max_retries=0)
    )
    (row,) = impatient.get_project(scene.project.uuid).list_label_rows_v2()
    row.initialise_labels()
    scene.server.settings.max_body_bytes = 500
    with pytest.raises(PayloadTooLargeError, match="exceeds the limit of 500"):
        row.save()


def test_storage_items_come_in_the_order_asked_for(scene: Scene, clip_path: Path) -> None:
    add_clips(scene, clip_path, 2)
    uuids = [task.data.item.uuid for task in scene.project.tasks_at(AGENT)][::-1]
    items = scene.client.get_storage_items(uuids, sign_url=True)
    assert [str(item.uuid) for item in items] == uuids
    assert items[0].file_size == clip_path.stat().st_size


def test_client_metadata_is_updated(scene: Scene) -> None:
    item = scene.item()
    assert item.client_metadata == {"camera": 1}
    item.update(client_metadata={"camera": 1, "model": "yolo11n"})
    assert scene.clip.item.client_metadata == {"camera": 1, "model": "yolo11n"}
    (row,) = scene.sdk.list_label_rows_v2(include_client_metadata=True)
    assert row.client_metadata == {"camera": 1, "model": "yolo11n"}


def test_image_group_has_a_link_for_each_picture(scene: Scene, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        Image.fromarray(np.full((8, 10 + number, 3), number, np.uint8)).save(path)
    group = scene.server.world.add_image_group(paths, title="three pictures")
    scene.server.world.add_task(scene.project.stage(AGENT), group)
    (row,) = scene.sdk.list_label_rows_v2(data_hashes=[group.data_hash])
    row.initialise_labels(include_signed_url=True)
    row.add_object_instance(box_of(scene, [2]))
    row.save()

    assert row.data_link is None
    links = [row.get_frame_view(number).data_link for number in range(3)]
    assert [requests.get(link, timeout=5).content for link in links] == [path.read_bytes() for path in paths]
    assert [frame for frame, _ in scene.project.row(group).objects()] == [2]
    children = row.get_storage_item().get_child_items(get_signed_urls=True)
    assert [(child.width, child.get_signed_url() is not None) for child in children] == [
        (10, True),
        (11, True),
        (12, True),
    ]


def test_image_and_sequence_and_other_kinds_are_listed(scene: Scene, clip_path: Path, tmp_path: Path) -> None:
    picture, paper = tmp_path / "a.png", tmp_path / "a.pdf"
    Image.new("RGB", (9, 7)).save(picture)
    paper.write_bytes(b"%PDF")
    world = scene.server.world
    units = [world.add_image(picture), world.add_image_sequence(clip_path), world.add_other(paper, "pdf")]
    for unit in units:
        world.add_task(scene.project.stage(AGENT), unit)
    rows = scene.sdk.list_label_rows_v2(data_hashes=[unit.data_hash for unit in units])
    for row in rows:
        row.initialise_labels()
        row.save()
    assert [(row.data_type.value, row.number_of_frames) for row in rows] == [
        ("image", 1),
        ("img_group", NUM_FRAMES),
        ("pdf", 1),
    ]
    sequence = rows[1].get_storage_item()
    assert requests.get(sequence.get_signed_url(), timeout=5).content == clip_path.read_bytes()


def test_issue_is_kept(scene: Scene) -> None:
    scene.task().issues.add_file_issue("the file is damaged", issue_tags=[])
    (issue,) = scene.project.issues
    assert (issue.comment, issue.anchor["dataUuid"]) == ("the file is damaged", scene.clip.data_hash)


def test_unknown_key_is_refused(scene: Scene) -> None:
    stranger = connect(scene.server, KeyPair.make().private_text)
    with pytest.raises(AuthenticationError):
        stranger.get_project(scene.project.uuid)
    scene.server.users.by_key.clear()
    with pytest.raises(AuthenticationError):
        scene.row()


def test_v2_signature_over_something_else_is_refused(scene: Scene, encord_key: str) -> None:
    config = SshConfig.from_ssh_private_key(encord_key, domain=scene.server.url)
    url = f"{scene.server.url}/v2/public/projects/{scene.project.uuid}/priorities"
    signed = config.define_headers_v2(requests.Request("POST", url, json={"priorities": []}).prepare()).headers
    headers = {name: value for name, value in signed.items() if name != "Content-Length"}
    assert requests.post(url, data='{"priorities": []}', headers=headers, timeout=5).status_code == 200
    assert requests.post(url, data='{"priorities": [0]}', headers=headers, timeout=5).status_code == 401
    assert requests.post(url + "?a", data='{"priorities": []}', headers=headers, timeout=5).status_code == 401
    assert [reason.partition(": ")[2] for reason in scene.server.refused] == [
        "Content-Digest is not that of the body",
        "the signature does not fit the request",
    ]


def test_legacy_signature_over_something_else_is_refused(scene: Scene, encord_key: str) -> None:
    config = SshConfig.from_ssh_private_key(encord_key, domain=scene.server.url)
    headers = config.define_headers(scene.project.uuid, "project", data="{}")
    answer = requests.post(f"{scene.server.url}/public", data='{"a": 1}', headers=headers, timeout=5)
    assert (answer.status_code, answer.json()["response"]) == (200, ["AUTHENTICATION_ERROR"])
    assert scene.server.refused == ["POST /public: the signature does not fit the request"]


def test_bearer_token_is_accepted(scene: Scene) -> None:
    scene.server.users.by_token["secret"] = "robot@example.com"
    client = EncordUserClient.create_with_bearer_token("secret", domain=scene.server.url)
    assert client.get_project(scene.project.uuid).title == "Road users"


def test_project_of_others_is_closed_and_unknown_is_not_found(scene: Scene, encord_client_as: ConnectAs) -> None:
    scene.project.members = {"agent@example.com"}
    with pytest.raises(AuthorisationError):
        encord_client_as("anna@example.com").get_project(scene.project.uuid)
    with pytest.raises(ResourceNotFoundError):
        scene.client.get_project("00000000-0000-0000-0000-000000000001")


def test_authors_are_told_apart(scene: Scene, encord_client_as: ConnectAs) -> None:
    row = scene.initialised_row()
    row.add_object_instance(box_of(scene, [0]))
    row.save()
    annas = encord_client_as("anna@example.com").get_project(scene.project.uuid).list_label_rows_v2()[0]
    annas.initialise_labels()
    annas.add_object_instance(box_of(scene, [1]))
    annas.save()
    authors = [entry["createdBy"] for _, entry in scene.project.row(scene.clip).objects()]
    assert authors == ["agent@example.com", "anna@example.com"]


def test_link_answers_ranges_and_refuses_head(scene: Scene) -> None:
    link, content = scene.item().get_signed_url(), scene.clip.item.path.read_bytes()
    part = requests.get(link, headers={"Range": "bytes=100-"}, timeout=5)
    assert (part.status_code, part.content) == (206, content[100:])
    assert part.headers["Content-Range"] == f"bytes 100-{len(content) - 1}/{len(content)}"
    assert requests.get(link, headers={"Range": f"bytes={len(content)}-"}, timeout=5).status_code == 416
    stale = requests.get(link, headers={"Range": "bytes=100-", "If-Range": '"old"'}, timeout=5)
    assert (stale.status_code, stale.content) == (200, content)
    assert requests.head(link, timeout=5).status_code == 403
    assert [(download.status, download.num_bytes) for download in scene.server.world.downloads][:1] == [
        (206, len(content) - 100)
    ]


def test_expired_and_altered_links_are_refused(scene: Scene) -> None:
    scene.server.settings.item_link_lifetime_seconds = 60
    link = scene.item().get_signed_url()
    (signed,) = scene.server.world.links
    assert signed.expires_at - signed.at == timedelta(seconds=60)
    assert requests.get(link.replace("expires=1", "expires=2"), timeout=5).status_code == 403
    scene.server.world.clock.advance(61)
    expired = requests.get(link, timeout=5)
    assert (expired.status_code, b"Request has expired" in expired.content) == (403, True)
    fresh = scene.item().get_signed_url()
    assert requests.get(fresh, timeout=5).status_code == 200
    scene.server.links.expire_all()
    assert requests.get(fresh, timeout=5).status_code == 403
