"""What the real SDK, and a plain download, make of each fault that the test server can inject."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import requests
from encord import EncordUserClient
from encord.exceptions import InvalidArgumentsError, OperationNotAllowed, RateLimitExceededError, RequestException
from encord.project import Project as SdkProject

from prelabel.testing.encord_server import (
    AGENT,
    ANNOTATE,
    Delay,
    EncordServer,
    LostAnswer,
    MalformedJson,
    Refusal,
    ResetInsideBody,
    Shortened,
    Status,
    Trickle,
    Truncated,
    WrongBytes,
    download_of,
)
from prelabel.testing.encord_server.records import DataUnit, Project
from tests.encord_fixtures import connect
from tests.make_media import Recipe, write_clip


@pytest.fixture
def clip(encord_server: EncordServer, tmp_path: Path) -> DataUnit:
    return encord_server.world.add_video(write_clip(tmp_path / "clip.mp4", Recipe()).path)


@pytest.fixture
def project(encord_server: EncordServer, clip: DataUnit) -> Project:
    project = encord_server.world.add_project()
    encord_server.world.add_task(project.stage(AGENT), clip)
    return project


@pytest.fixture
def sdk(encord_client: EncordUserClient, project: Project) -> SdkProject:
    return encord_client.get_project(project.uuid)


@pytest.fixture
def link(encord_client: EncordUserClient, clip: DataUnit) -> str:
    return encord_client.get_storage_item(clip.item.uuid, sign_url=True).get_signed_url()


def proceed(sdk: SdkProject) -> None:
    for task in sdk.workflow.get_stage(name=AGENT).get_tasks():
        task.proceed(pathway_name="Annotate 1")


def test_busy_server_is_asked_again(encord_server: EncordServer, sdk: SdkProject, project: Project) -> None:
    encord_server.faults.add("act_on_tasks", Status(503))
    proceed(sdk)
    assert [call.status for call in encord_server.calls_of("act_on_tasks")] == [503, 200]
    assert len(project.tasks_at(ANNOTATE)) == 1


def test_rate_limit_carries_its_waiting_time(encord_server: EncordServer, sdk: SdkProject) -> None:
    row = sdk.list_label_rows_v2()[0]
    encord_server.faults.add("create_label_rows", Status(429, retry_after_seconds=7))
    with pytest.raises(RateLimitExceededError) as raised:
        row.initialise_labels()
    assert raised.value.retry_after == 7


def test_error_name_in_the_envelope(encord_server: EncordServer, sdk: SdkProject) -> None:
    row = sdk.list_label_rows_v2()[0]
    row.initialise_labels()
    encord_server.faults.add("save_label_rows", Refusal("OPERATION_NOT_ALLOWED"))
    with pytest.raises(OperationNotAllowed):
        row.save()
    assert encord_server.calls[-1].error == "OPERATION_NOT_ALLOWED"
    assert encord_server.world.saves == []


def test_lost_answer_to_an_action_looks_like_a_refusal(
    encord_server: EncordServer, sdk: SdkProject, project: Project
) -> None:
    encord_server.faults.add("act_on_tasks", LostAnswer(carried_out=True))
    with pytest.raises(InvalidArgumentsError, match="not at stage"):
        proceed(sdk)
    assert [call.status for call in encord_server.calls_of("act_on_tasks")] == [None, 400]
    assert len(project.tasks_at(ANNOTATE)) == 1


def test_reset_before_the_request_is_carried_out(
    encord_server: EncordServer, sdk: SdkProject, project: Project
) -> None:
    encord_server.faults.add("act_on_tasks", LostAnswer(carried_out=False))
    proceed(sdk)
    assert len(encord_server.world.moves) == 1


def test_lost_answer_to_create_leaves_the_row(encord_server: EncordServer, sdk: SdkProject) -> None:
    row = sdk.list_label_rows_v2()[0]
    encord_server.faults.add("create_label_rows", LostAnswer(carried_out=True))
    with pytest.raises(RequestException):
        row.initialise_labels()
    assert sdk.list_label_rows_v2()[0].label_hash is not None


@pytest.mark.parametrize("action", [MalformedJson(), ResetInsideBody(20), Truncated(20)])
def test_answer_that_breaks_off_is_not_asked_for_again(encord_server: EncordServer, sdk: SdkProject, action) -> None:
    encord_server.faults.add("list_label_rows", action)
    with pytest.raises((RequestException, requests.RequestException)):
        sdk.list_label_rows_v2()
    assert len(encord_server.calls_of("list_label_rows")) == 1
    assert len(sdk.list_label_rows_v2()) == 1


def test_fault_waits_for_its_turn_and_ends(encord_server: EncordServer, link: str) -> None:
    encord_server.faults.add("download", Status(500), skip=1, times=2)
    assert [requests.get(link, timeout=50).status_code for _ in range(4)] == [200, 500, 500, 200]


def test_delay(encord_server: EncordServer, link: str) -> None:
    encord_server.faults.add("download", Delay(0.3))
    started = time.monotonic()
    assert requests.get(link, timeout=50).ok
    assert time.monotonic() - started >= 0.3


def read_until_cut(link: str) -> bytes:
    content = b""
    with requests.get(link, stream=True, timeout=50) as answer:
        try:
            for chunk in answer.iter_content(100):
                content += chunk
        except requests.RequestException:
            return content
    pytest.fail("the download was not cut")


@pytest.mark.parametrize("action", [ResetInsideBody(1000), Truncated(1000)])
def test_download_that_breaks_off_can_be_gone_on_with(
    encord_server: EncordServer, clip: DataUnit, link: str, action
) -> None:
    encord_server.faults.add(download_of(clip.item), action)
    content = read_until_cut(link)
    rest = requests.get(link, headers={"Range": f"bytes={len(content)}-"}, timeout=50)
    assert (rest.status_code, content + rest.content) == (206, clip.item.path.read_bytes())


def test_downloads_that_look_whole_but_are_not(encord_server: EncordServer, clip: DataUnit, link: str) -> None:
    whole = clip.item.path.read_bytes()
    encord_server.faults.add(download_of(clip.item), Shortened(500))
    encord_server.faults.add(download_of(clip.item), WrongBytes(offset=500))
    assert requests.get(link, timeout=50).content == whole[:500]
    wrong = requests.get(link, timeout=50).content
    assert (len(wrong), wrong[:500], wrong[500] ^ whole[500]) == (len(whole), whole[:500], 255)


def test_slow_download_reaches_the_readers_time_limit(encord_server: EncordServer, link: str) -> None:
    encord_server.faults.add("download", Trickle(bytes_per_second=1000), times=None)
    started = time.monotonic()
    with requests.get(link, stream=True, timeout=50) as answer:
        next(answer.iter_content(400))
    assert time.monotonic() - started >= 0.3


def test_server_closes_while_a_client_still_reads(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with EncordServer() as server, requests.Session() as session:
        clip = server.world.add_video(write_clip(tmp_path / "clip.mp4", Recipe()).path)
        server.faults.add("download", Trickle(bytes_per_second=10))
        session.get(server.links.sign(clip.item, 60), stream=True, timeout=50)
    assert server.errors == []
    assert not set(threading.enumerate()) - before


def test_the_server_starts_from_a_terminal_and_says_how_to_reach_it(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", Recipe())
    command = [
        sys.executable,
        "-m",
        "prelabel.testing.encord_server",
        "--videos",
        str(tmp_path),
        "--tasks-per-video",
        "2",
    ]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        lines = [process.stdout.readline() for _ in range(4)]
        exported = dict(re.findall(r"^export (\w+)=(\S+)$", "".join(lines), re.MULTILINE))
        key_file = Path(exported["ENCORD_SSH_KEY_FILE"])
        assert key_file.stat().st_mode & 0o077 == 0
        client = EncordUserClient.create_with_ssh_private_key(
            ssh_private_key_path=key_file, domain=exported["ENCORD_DOMAIN"]
        )
        proceed(client.get_project(exported["ENCORD_PROJECT_HASH"]))
        state = requests.get(exported["ENCORD_DOMAIN"] + "/state", timeout=50).json()
        os.kill(process.pid, signal.SIGINT)
        printed = json.loads(process.stdout.read())
    assert process.returncode == 0
    assert lines[0].startswith("# tasks at stage 'Pre-Labeling Agent': 2;")
    assert state["projects"][exported["ENCORD_PROJECT_HASH"]]["tasks"][ANNOTATE] == 2
    assert printed["moves"] == 2
    assert not key_file.exists()


def test_many_clients_at_once(encord_server: EncordServer, project: Project, clip: DataUnit) -> None:
    """Forty workers take the same task; the stage gives it to one."""
    from concurrent.futures import ThreadPoolExecutor

    def take(number: int) -> bool:
        client = connect(encord_server, encord_server.add_user(f"worker-{number}@example.com"))
        tasks = client.get_project(project.uuid).workflow.get_stage(name=AGENT).get_tasks()
        try:
            for task in tasks:
                task.proceed(pathway_name="Annotate 1")
                return True
        except InvalidArgumentsError:
            return False
        return False

    with ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(take, range(40))) == 1
    assert len(encord_server.world.moves) == 1
