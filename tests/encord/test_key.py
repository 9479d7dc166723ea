from __future__ import annotations

import base64
import struct
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from prelabel.encord.connection import read_key
from prelabel.errors import AccountError
from tests.encord_server.signing import KeyPair


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
