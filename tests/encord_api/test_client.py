from __future__ import annotations

import base64
import logging
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from prelabel.encord_api.calls import Caller, Retry
from prelabel.encord_api.client import EncordProject
from prelabel.encord_api.connection import connect
from prelabel.encord_api.key import read_key
from prelabel.errors import AccountError, OutageError, SaveError
from tests.encord_server import AGENT, ANNOTATE, MalformedJson, Refusal, Status
from tests.encord_server.ontologies import editor, ontology_object
from tests.encord_server.populated import Platform
from tests.encord_server.records import Pathway, Stage
from tests.encord_server.signing import KeyPair
from tests.reach import reach

pytestmark = pytest.mark.usefixtures("encord_environment")


def locked_key() -> str:
    """An OpenSSH private key whose header says that a passphrase locks it."""

    def text(value: bytes) -> bytes:
        return struct.pack(">I", len(value)) + value

    options = text(b"0123456789abcdef") + struct.pack(">I", 16)
    public = text(text(b"ssh-ed25519") + text(bytes(32)))
    blob = b"openssh-key-v1\0" + text(b"aes256-ctr") + text(b"bcrypt") + text(options)
    blob += struct.pack(">I", 1) + public + text(bytes(128))
    body = base64.b64encode(blob).decode()
    name = "OPENSSH PRIVATE KEY"
    return f"-----BEGIN {name}-----\n{body}\n-----END {name}-----\n"


def rsa_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()


def test_key_text_goes_before_the_file(tmp_path: Path) -> None:
    text, other = KeyPair.make().private_text, KeyPair.make().private_text
    (tmp_path / "key").write_text(other)
    assert read_key({"ENCORD_SSH_KEY": text, "ENCORD_SSH_KEY_FILE": str(tmp_path / "key")}) == text
    assert read_key({"ENCORD_SSH_KEY": "", "ENCORD_SSH_KEY_FILE": str(tmp_path / "key")}) == other


def test_key_text_may_carry_its_line_ends_escaped() -> None:
    text = KeyPair.make().private_text
    assert read_key({"ENCORD_SSH_KEY": text.strip().replace("\n", "\\n")}) == text.strip()


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (locked_key(), "locked with a passphrase"),
        (rsa_key(), "Ed25519 only"),
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIexample me@here", "public half"),
        ("c2VjcmV0LXRleHQ", "not an OpenSSH private key"),
    ],
    ids=["locked", "rsa", "public", "nonsense"],
)
def test_wrong_key_is_explained_and_never_shown(key: str, said: str) -> None:
    with pytest.raises(AccountError, match=said) as raised:
        read_key({"ENCORD_SSH_KEY": key})
    assert key.splitlines()[-1] not in str(raised.value)
    assert raised.value.__context__ is None


def test_missing_key_names_both_variables(tmp_path: Path) -> None:
    with pytest.raises(AccountError, match=r"ENCORD_SSH_KEY_FILE .* or ENCORD_SSH_KEY"):
        read_key({})
    with pytest.raises(AccountError, match=r"there is no file .*nowhere"):
        read_key({"ENCORD_SSH_KEY_FILE": str(tmp_path / "nowhere")})


def test_key_is_in_no_log_and_no_repr(platform: Platform, encord_key: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    project = reach(platform)
    list(project.agent_stage(AGENT).get_tasks())
    for line in encord_key.splitlines()[1:-1]:
        assert line not in caplog.text
        assert line not in repr(project)


def test_unknown_key_names_the_domain(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCORD_SSH_KEY", KeyPair.make().private_text)
    with pytest.raises(AccountError, match=r"does not know this key.*api\.us\.encord\.com"):
        reach(platform)


def test_unknown_and_closed_projects_are_told_apart_from_nothing(platform: Platform) -> None:
    with pytest.raises(AccountError, match="has no project 00000000"):
        connect("00000000-0000-4000-8000-000000000000", platform.server.url)
    platform.project.members = {"somebody@example.com"}
    with pytest.raises(AccountError, match="that this key's user may enter"):
        reach(platform)
    with pytest.raises(AccountError, match="expected a uuid"):
        connect("Roads", platform.server.url)


@pytest.mark.parametrize(
    ("domain", "said"),
    [
        ("api.encord.com", "expected an address such as https://"),
        ("https://app.us.encord.com", r"expected the API's: https://api\.us\.encord\.com"),
    ],
)
def test_wrong_domain_is_named_before_any_call(platform: Platform, domain: str, said: str) -> None:
    with pytest.raises(AccountError, match=said):
        connect(platform.project.uuid, domain)


def test_server_that_is_not_there_ends_soon(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("urllib3.util.retry.time.sleep", lambda seconds: None)  # the SDK's own 9 s
    with pytest.raises(AccountError, match=r"no answer from http://127\.0\.0\.1:9 .*check the address"):
        connect(platform.project.uuid, "http://127.0.0.1:9", retry=Retry(sleep=waits.append))
    assert waits == []


@pytest.mark.parametrize("status", ["paused", "archived"])
def test_project_that_rests_is_said(platform: Platform, status: str) -> None:
    platform.project.status = status
    with pytest.raises(AccountError, match=f"is {status}: resume it"):
        reach(platform)


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


@pytest.mark.parametrize("fault", [MalformedJson(), Status(504)], ids=["malformed", "504"])
def test_passing_trouble_is_waited_out(platform: Platform, fault: MalformedJson | Status) -> None:
    platform.server.faults.add("get_project", fault, times=2)
    assert reach(platform).title == "Road users"


def test_lasting_trouble_ends_after_jittered_waits(platform: Platform) -> None:
    platform.server.faults.add("get_ontology", Status(504), times=None)
    waits: list[float] = []
    retry = Retry(waits_seconds=(1.0, 4.0), sleep=waits.append, draw=lambda: 0.5)
    with pytest.raises(AccountError, match="the platform refused: injected by a test"):
        connect(platform.project.uuid, platform.server.url, retry=retry)
    assert waits == [0.75, 3.0]


def test_rate_limit_is_waited_for_as_long_as_it_says(platform: Platform) -> None:
    waits: list[float] = []
    caller = Caller(platform.server.url, Retry(waits_seconds=(1.0,), sleep=waits.append))
    row = platform.row()
    platform.server.faults.add("create_label_rows", Status(429, retry_after_seconds=7))
    caller.call("creating", row.initialise_labels, SaveError)
    assert waits == [7.0]


def test_error_quotes_no_link_and_no_answer(platform: Platform, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    row = platform.initialised_row()
    platform.server.faults.add("get_label_rows", MalformedJson(), times=None)
    caller = Caller(platform.server.url, Retry(sleep=lambda seconds: None))

    def read() -> None:
        row.initialise_labels(overwrite=True, include_signed_url=True)

    with pytest.raises(SaveError, match="cut or not JSON") as raised:
        caller.call("clip.mp4: reading", read, SaveError)
    assert "sig=" not in str(raised.value) + caplog.text
    assert raised.value.__context__ is None


def test_revoked_key_is_an_account_error_whatever_was_done(platform: Platform) -> None:
    platform.server.faults.add("save_label_rows", Refusal("AUTHENTICATION_ERROR"))
    row = platform.initialised_row()
    with pytest.raises(AccountError, match="does not know this key"):
        Caller(platform.server.url, Retry()).call("saving", row.save, SaveError)


def looks_with(platform: Platform, waits: list[float], act: Callable[[], None] = lambda: None) -> EncordProject:
    """The platform's project; whoever waits for it acts, and has waited."""

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        act()

    retry = Retry(waits_seconds=(1.0, 4.0), outage_seconds=20.0, sleep=sleep, draw=lambda: 1.0)
    return connect(platform.project.uuid, platform.server.url, retry=retry)


def test_a_platform_that_is_away_is_waited_for(platform: Platform) -> None:
    waits: list[float] = []

    def come_back() -> None:
        if len(waits) == 5:
            platform.server.faults.clear()

    project = looks_with(platform, waits, come_back)
    platform.server.faults.add(lambda call: True, Status(504), times=None)
    assert project.ontology().title == "Roads"
    assert waits == [1.0, 4.0, 1.0, 4.0, 4.0]


def test_a_platform_that_stays_away_is_an_outage_and_no_task_s_failure(platform: Platform) -> None:
    waits: list[float] = []
    project = looks_with(platform, waits)
    platform.server.faults.add(lambda call: True, Status(504), times=None)
    with pytest.raises(OutageError, match="saving: given up after 0 minutes: looking whether the platform is there"):
        project.caller.call("saving", lambda: project.label_rows([], "main"), SaveError)
    assert sum(waits[2:]) >= 20


def test_a_call_that_fails_on_its_own_is_not_waited_for(platform: Platform) -> None:
    waits: list[float] = []
    project = looks_with(platform, waits)
    platform.server.faults.add("list_label_rows", Status(504), times=None)
    with pytest.raises(SaveError, match="looking: the platform refused"):
        project.caller.call("looking", lambda: project.label_rows([], "main"), SaveError)
    assert waits == [1.0, 4.0]


def test_a_project_that_is_paused_meanwhile_is_said_and_no_task_s_failure(platform: Platform) -> None:
    project = looks_with(platform, [])
    platform.project.status = "paused"
    platform.server.faults.add("save_label_rows", Refusal("OPERATION_NOT_ALLOWED"))
    row = platform.initialised_row()
    with pytest.raises(AccountError, match="is paused: resume it"):
        project.caller.call("saving", row.save, SaveError)
