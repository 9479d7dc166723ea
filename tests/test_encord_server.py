"""The real SDK at the test server: the workflow, and who may take part in it."""

from __future__ import annotations

import os

import pytest
import requests
from encord import EncordUserClient
from encord.configs import SshConfig
from encord.exceptions import (
    AuthenticationError,
    AuthorisationError,
    InvalidArgumentsError,
    ResourceNotFoundError,
)
from encord.workflow.stages.agent import AgentTask

from prelabel.testing.encord_server import AGENT, ANNOTATE, COMPLETE, REVIEW
from prelabel.testing.encord_server.signing import KeyPair
from tests.encord_fixtures import NUM_FRAMES, ConnectAs, Platform, connect


def test_task_goes_the_whole_way(platform: Platform) -> None:
    task = platform.task()
    (row,) = platform.sdk.list_label_rows_v2(data_hashes=[task.data_hash], branch_name=task.label_branch_name)
    assert (row.label_hash, row.number_of_frames) == (None, NUM_FRAMES)
    assert requests.get(platform.item().get_signed_url(), timeout=50).content == platform.clip.item.path.read_bytes()
    row.initialise_labels()
    row.add_object_instance(platform.box([0, 7]))
    row.save()
    task.proceed(pathway_name="Annotate 1")

    stored = platform.project.row(platform.clip)
    assert [(frame, entry["confidence"], entry["createdBy"]) for frame, entry in stored.objects()] == [
        (0, 0.875, "agent@example.com"),
        (7, 0.875, "agent@example.com"),
    ]
    assert platform.project.titles_at(ANNOTATE) == ["clip.mp4"]
    assert [call.operation for call in platform.server.calls] == [
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


def test_project_shows_workflow_users_and_datasets(platform: Platform) -> None:
    assert [stage.title for stage in platform.sdk.workflow.stages] == [AGENT, ANNOTATE, REVIEW, COMPLETE]
    assert [path.name for path in platform.stage.pathways] == ["Annotate 1", "Straight to review", "Nothing to label"]
    assert [project.title for project in platform.client.list_projects()] == ["Road users"]
    assert [dataset.title for dataset in platform.sdk.list_datasets()] == ["Footage"]
    assert [user.user_email for user in platform.sdk.list_users()] == ["agent@example.com"]
    assert platform.sdk.get_project().title == "Road users"


def test_tasks_come_in_pages_by_priority(platform: Platform) -> None:
    platform.add_clips(6)
    platform.server.settings.page_size = 3
    urgent = platform.project.tasks_at(AGENT)[4].data.data_hash
    (row,) = platform.sdk.list_label_rows_v2(data_hashes=[urgent])
    row.set_priority(1.0)

    assert [task.data_title for task in platform.stage.get_tasks()] == [
        "3.mp4",
        "clip.mp4",
        "0.mp4",
        "1.mp4",
        "2.mp4",
        "4.mp4",
        "5.mp4",
    ]
    assert len(platform.server.calls_of("list_tasks")) == 3
    assert [task.data_title for task in platform.stage.get_tasks(data_title="2.m")] == ["2.mp4"]
    assert [str(task.data_hash) for task in platform.stage.get_tasks(data_hash=urgent)] == [urgent]


@pytest.mark.parametrize(("stable", "num_seen"), [(False, 4), (True, 7)])
def test_moving_tasks_while_listing_skips_some_with_offset_tokens(
    platform: Platform, stable: bool, num_seen: int
) -> None:
    platform.add_clips(6)
    platform.server.settings.page_size = 3
    platform.server.settings.stable_page_tokens = stable
    seen = 0
    for task in platform.stage.get_tasks():
        task.proceed(pathway_name="Annotate 1")
        seen += 1
    assert (seen, len(platform.project.tasks_at(AGENT))) == (num_seen, 7 - num_seen)


def test_task_proceeds_by_pathway_uuid(platform: Platform) -> None:
    pathway = platform.stage.pathways[2]
    platform.task().proceed(pathway_uuid=pathway.uuid)
    (move,) = platform.server.world.moves
    assert (move.destination.title, move.pathway, move.user) == (COMPLETE, str(pathway.uuid), "agent@example.com")


def test_task_can_be_moved_to_any_stage(platform: Platform) -> None:
    platform.task().move(destination_stage_uuid=platform.sdk.workflow.get_stage(name=REVIEW).uuid)
    assert len(platform.project.tasks_at(REVIEW)) == 1


def test_annotators_and_reviewers_move_tasks_on(platform: Platform) -> None:
    platform.task().proceed(pathway_name="Annotate 1")
    for stage in (ANNOTATE, REVIEW):
        (task,) = platform.sdk.workflow.get_stage(name=stage).get_tasks()
        task.submit() if stage == ANNOTATE else task.approve()
    (task,) = platform.sdk.workflow.get_stage(name=COMPLETE).get_tasks()
    assert task.data_title == "clip.mp4"


def test_workflow_is_completed_and_reopened(platform: Platform) -> None:
    row = platform.initialised_row()
    row.workflow_complete()
    assert platform.row().workflow_graph_node.title == COMPLETE
    row.workflow_reopen()
    assert platform.row().workflow_graph_node.title == ANNOTATE


def test_stale_task_is_refused(platform: Platform) -> None:
    task = platform.task()
    task.proceed(pathway_name="Annotate 1")
    with pytest.raises(InvalidArgumentsError, match="not at stage"):
        task.proceed(pathway_name="Annotate 1")


def test_unknown_pathway_is_refused(platform: Platform) -> None:
    with pytest.raises(InvalidArgumentsError, match="no pathway"):
        platform.task().proceed(pathway_name="Annotate 7")


def test_one_stale_task_refuses_the_whole_bundle(platform: Platform) -> None:
    platform.add_clips(2)
    tasks = list(platform.stage.get_tasks())
    tasks[1].proceed(pathway_name="Annotate 1")
    with pytest.raises(InvalidArgumentsError, match="not at stage"):
        proceed_together(platform, tasks)
    assert len(platform.project.tasks_at(AGENT)) == 2


def proceed_together(platform: Platform, tasks: list[AgentTask]) -> None:
    with platform.sdk.create_bundle() as bundle:
        for task in tasks:
            task.proceed(pathway_name="Annotate 1", bundle=bundle)


def test_issue_is_kept(platform: Platform) -> None:
    platform.task().issues.add_file_issue("the file is damaged", issue_tags=[])
    (issue,) = platform.project.issues
    assert (issue.comment, issue.anchor["dataUuid"]) == ("the file is damaged", platform.clip.data_hash)


@pytest.mark.usefixtures("encord_environment")
def test_key_and_address_come_from_the_environment(platform: Platform) -> None:
    client = EncordUserClient.create_with_ssh_private_key(domain=os.environ["ENCORD_DOMAIN"])
    assert client.get_project(platform.project.uuid).title == "Road users"


def test_unknown_key_is_refused(platform: Platform) -> None:
    stranger = connect(platform.server, KeyPair.make().private_text)
    with pytest.raises(AuthenticationError):
        stranger.get_project(platform.project.uuid)
    platform.server.users.by_key.clear()
    with pytest.raises(AuthenticationError):
        platform.row()


def test_v2_signature_over_something_else_is_refused(platform: Platform, encord_key: str) -> None:
    config = SshConfig.from_ssh_private_key(encord_key, domain=platform.server.url)
    url = f"{platform.server.url}/v2/public/projects/{platform.project.uuid}/priorities"
    signed = config.define_headers_v2(requests.Request("POST", url, json={"priorities": []}).prepare()).headers
    headers = {name: value for name, value in signed.items() if name != "Content-Length"}
    assert requests.post(url, data='{"priorities": []}', headers=headers, timeout=50).status_code == 200
    assert requests.post(url, data='{"priorities": [0]}', headers=headers, timeout=50).status_code == 401
    assert requests.post(url + "?a", data='{"priorities": []}', headers=headers, timeout=50).status_code == 401
    assert [reason.partition(": ")[2] for reason in platform.server.refused] == [
        "Content-Digest is not that of the body",
        "the signature does not fit the request",
    ]


def test_legacy_signature_over_something_else_is_refused(platform: Platform, encord_key: str) -> None:
    config = SshConfig.from_ssh_private_key(encord_key, domain=platform.server.url)
    headers = config.define_headers(platform.project.uuid, "project", data="{}")
    answer = requests.post(f"{platform.server.url}/public", data='{"a": 1}', headers=headers, timeout=50)
    assert (answer.status_code, answer.json()["response"]) == (200, ["AUTHENTICATION_ERROR"])
    assert platform.server.refused == ["POST /public: the signature does not fit the request"]


def test_bearer_token_is_accepted(platform: Platform) -> None:
    platform.server.users.by_token["secret"] = "robot@example.com"
    client = EncordUserClient.create_with_bearer_token("secret", domain=platform.server.url)
    assert client.get_project(platform.project.uuid).title == "Road users"


def test_project_of_others_is_closed_and_unknown_is_not_found(platform: Platform, encord_client_as: ConnectAs) -> None:
    platform.project.members = {"agent@example.com"}
    with pytest.raises(AuthorisationError):
        encord_client_as("anna@example.com").get_project(platform.project.uuid)
    with pytest.raises(ResourceNotFoundError):
        platform.client.get_project("00000000-0000-0000-0000-000000000001")
