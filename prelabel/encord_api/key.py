"""The private key that speaks for us to Encord: from the environment, checked, never shown."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from prelabel.errors import AccountError

KEY_TEXT, KEY_FILE = "ENCORD_SSH_KEY", "ENCORD_SSH_KEY_FILE"
_NEXT_STEP = "use a key as `ssh-keygen -t ed25519` makes it, its public half added to the user or service account"


def read_key(environment: Mapping[str, str] = os.environ) -> str:
    """Returns the text of an Ed25519 private key: that of `ENCORD_SSH_KEY`, else of the file `ENCORD_SSH_KEY_FILE`.

    The text goes before the file, as it does in `encord-agents`.

    Raises:
        AccountError: there is none, it cannot be read, or it is not such a key. The key is in no message.
    """
    text, path = environment.get(KEY_TEXT, ""), environment.get(KEY_FILE, "")
    if text.strip():
        key, where = text, KEY_TEXT
        if "\n" not in text.strip():
            key = text.replace("\\n", "\n")  # how .env files and secret stores often carry line ends
    elif "PRIVATE KEY" in path:
        raise AccountError(f"{KEY_FILE} holds a key's text, it wants the path of a file: set {KEY_TEXT} to the text")
    elif path.strip():
        key, where = _read_file(Path(path.strip()).expanduser()), f"{KEY_FILE}: {path.strip()}"
    else:
        raise AccountError(f"no Encord key: set {KEY_FILE} to a private key's file, or {KEY_TEXT} to its text")
    complaint = _complaint(key)
    if complaint:
        raise AccountError(f"{where}: {complaint}")
    return key


def _read_file(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except FileNotFoundError:
        raise AccountError(f"{KEY_FILE}: there is no file {path}") from None
    except UnicodeDecodeError:
        pass  # raised below, without the bytes that the error carries
    except OSError as error:
        raise AccountError(f"{KEY_FILE}: {path} cannot be read: {error.strerror}") from error
    raise AccountError(f"{KEY_FILE}: {path} is not a private key: {_NEXT_STEP}")


def _complaint(key: str) -> str:
    """Returns what is wrong with a key, empty if nothing is. No error of the library gets out: some quote the key."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import ssh

    if key.lstrip().startswith(("ssh-", "ecdsa-")):
        return "is the public half of a key: name the private one, the file without .pub"
    try:
        loaded = ssh.load_ssh_private_key(key.strip().encode() + b"\n", None)
    except (TypeError, UnsupportedAlgorithm):
        return (
            "is locked with a passphrase, which an unattended run cannot type: use a service account's key, "
            "or a copy unlocked with `ssh-keygen -p -N '' -f COPY`"
        )
    except ValueError:
        return f"is not an OpenSSH private key: {_NEXT_STEP}"
    if not isinstance(loaded, Ed25519PrivateKey):
        return f"is a key of another kind, Encord takes Ed25519 only: {_NEXT_STEP}"
    return ""
