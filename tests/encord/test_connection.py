from __future__ import annotations

import base64
import logging
import struct
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from prelabel.encord.connection import connect, read_key
from prelabel.errors import AccountError
from prelabel.runtime.backoff import Backoff
from prelabel.testing.encord_server import AGENT, MalformedJson, Status
from prelabel.testing.encord_server.signing import KeyPair
from tests.encord_fixtures import Platform
from tests.reach import reach

pytestmark = pytest.mark.usefixtures("encord_environment")


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
        connect(platform.project.uuid, "http://127.0.0.1:9", backoff=Backoff(sleep=waits.append))
    assert waits == []


@pytest.mark.parametrize("status", ["paused", "archived"])
def test_project_that_rests_is_said(platform: Platform, status: str) -> None:
    platform.project.status = status
    with pytest.raises(AccountError, match=f"is {status}: resume it"):
        reach(platform)


@pytest.mark.parametrize("fault", [MalformedJson(), Status(504)], ids=["malformed", "504"])
def test_passing_trouble_is_waited_out(platform: Platform, fault: MalformedJson | Status) -> None:
    platform.server.faults.add("get_project", fault, times=2)
    assert reach(platform).title == "Road users"


def test_lasting_trouble_ends_after_jittered_waits(platform: Platform) -> None:
    platform.server.faults.add("get_ontology", Status(504), times=None)
    waits: list[float] = []
    backoff = Backoff(attempts=3, factor=4.0, sleep=waits.append, draw=lambda: 0.5)
    with pytest.raises(AccountError, match="the platform refused: injected by a test"):
        connect(platform.project.uuid, platform.server.url, backoff=backoff)
    assert waits == [0.75, 3.0]


# The key


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
