"""Connects to a project after checking address, key and permission; each error says what to do."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import prelabel
from prelabel.encord.calls import CALL_BACKOFF, OUTAGE_SECONDS, Caller, explain, is_never_connected
from prelabel.encord.project import EncordProject
from prelabel.errors import AccountError
from prelabel.runtime.backoff import Backoff
from prelabel.runtime.redact import keep_links_out_of_logs

if TYPE_CHECKING:
    from encord import EncordUserClient, Project


KEY_TEXT, KEY_FILE = "ENCORD_SSH_KEY", "ENCORD_SSH_KEY_FILE"
_NEXT_STEP = "use a key as `ssh-keygen -t ed25519` makes it, its public half added to the user or service account"


def read_key(environment: Mapping[str, str] = os.environ) -> str:
    """Returns an Ed25519 private key as text.

    It is the text of `ENCORD_SSH_KEY` or, if that is empty, the content of the file `ENCORD_SSH_KEY_FILE`. The package
    `encord-agents` reads them in the same order.

    Raises:
        AccountError: there is no key, it cannot be read, or it is another kind of key. No message quotes the key.
    """
    text, path = environment.get(KEY_TEXT, ""), environment.get(KEY_FILE, "")
    if text.strip():
        key, where = text, KEY_TEXT
        if "\n" not in text.strip():
            key = text.replace("\\n", "\n")  # .env files and secret stores often contain line ends as "\\n"
    elif "PRIVATE KEY" in path:
        raise AccountError(
            f"{KEY_FILE} holds the text of a key, expected the path of a file: set {KEY_TEXT} to the text"
        )
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
        pass  # the error is raised below, because this exception contains bytes of the file
    except OSError as error:
        raise AccountError(f"{KEY_FILE}: {path} cannot be read: {error.strerror}") from error
    raise AccountError(f"{KEY_FILE}: {path} is not a private key: {_NEXT_STEP}")


def _complaint(key: str) -> str:
    """Returns what is wrong with a key; empty if nothing is.

    It never raises the errors of the cryptography library, because some of them quote the key.
    """
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


DEFAULT_DOMAIN = "https://api.encord.com"

_CLOSED_STATUSES = ("paused", "cancelled", "archived")


def connect(
    project_hash: str,
    domain: str | None = None,
    *,
    backoff: Backoff = CALL_BACKOFF,
    outage_seconds: float = OUTAGE_SECONDS,
) -> EncordProject:
    """Connects to a project with the key in the environment.

    Args:
        project_hash: uuid of a workflow project.
        domain: the API's address; None for that of the EU platform.
        backoff: how often to repeat a failed call, and how long to wait before each repeat.
        outage_seconds: how long to wait for a platform that does not answer any call.

    Raises:
        AccountError: the key, address, project or permission is wrong; the message says what to do.
    """
    keep_links_out_of_logs()
    address = _checked_domain(domain or DEFAULT_DOMAIN)
    uuid = project_uuid(project_hash)
    client = _make_client(read_key(), address)
    caller = Caller(address, backoff, outage_seconds)
    project = caller.call(f"project {uuid}", lambda: _get_project(client, uuid, address), AccountError)
    _check_project(project)
    return EncordProject(project, client, replace(caller, look=lambda: _check_project(_enter(client, uuid, address))))


def _make_client(key: str, domain: str) -> EncordUserClient:
    from encord import EncordUserClient
    from encord.http.constants import RequestsSettings

    # By default, the SDK waits 180 s for a connection and tries four times. With a wrong address, a run would seem to
    # hang.
    settings = RequestsSettings(connect_timeout=20, read_timeout=120, write_timeout=180)
    return EncordUserClient.create_with_ssh_private_key(
        ssh_private_key=key,
        domain=domain,
        requests_settings=settings,
        user_agent_suffix=f"prelabel/{prelabel.__version__}",
    )


def _get_project(client: EncordUserClient, project_hash: UUID, domain: str) -> Project:
    from encord import exceptions as sdk

    try:
        return _enter(client, project_hash, domain)
    except sdk.RequestException as error:
        if is_never_connected(error):  # the SDK has tried for 9 s, so a wrong address is likelier than an outage
            raise AccountError(f"project {project_hash}: {explain(error, domain)}") from None
        raise


def _enter(client: EncordUserClient, project_hash: UUID, domain: str) -> Project:
    from encord import exceptions as sdk

    try:
        return client.get_project(project_hash)
    except (sdk.ResourceNotFoundError, sdk.AuthorisationError):
        raise AccountError(
            f"source.project_hash: {domain} has no project {project_hash} that this key's user may enter: check the "
            "hash (it is in the project's address in the web app), add the user or service account to the project, "
            "or name the platform that the project is on: source.domain or ENCORD_DOMAIN"
        ) from None


def _check_project(project: Project) -> None:
    if project.status.value in _CLOSED_STATUSES:
        raise AccountError(
            f"project {project.title!r} is {project.status.value}: resume it in the web app, or name another"
        )
    if project.project_type.value != "workflow":
        raise AccountError(f"project {project.title!r} has no workflow, and so no agent stage: name a workflow project")


def _checked_domain(domain: str) -> str:
    address = domain.strip().rstrip("/")
    if not address.startswith(("https://", "http://")):
        raise AccountError(f"source.domain: got {domain!r}, expected an address such as {DEFAULT_DOMAIN}")
    if "://app." in address:
        api = address.replace("://app.", "://api.")
        raise AccountError(f"source.domain: {address} is the web app's address, expected the API's: {api}")
    return address


def project_uuid(project_hash: str) -> UUID:
    """Returns a project hash of a config as a UUID.

    Raises:
        AccountError: the project hash is not a UUID.
    """
    try:
        return UUID(project_hash)
    except ValueError:
        raise AccountError(
            f"source.project_hash: got {project_hash!r}, expected a uuid such as "
            "4f8ac2d1-0000-4000-8000-000000000000; it is in the project's address in the web app"
        ) from None
