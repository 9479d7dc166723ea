"""The way to a project: address, key and permission, each checked with the next step in its error."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import UUID

import prelabel
from prelabel.encord_api.calls import Caller, Retry, explain, is_never_connected
from prelabel.encord_api.client import EncordProject
from prelabel.encord_api.key import read_key
from prelabel.errors import AccountError
from prelabel.redact import keep_links_out_of_logs

if TYPE_CHECKING:
    from encord import EncordUserClient, Project
    from encord.http.constants import RequestsSettings

DEFAULT_DOMAIN = "https://api.encord.com"

_CLOSED_STATUSES = ("paused", "cancelled", "archived")


def connect(project_hash: str, domain: str | None = None, *, retry: Retry | None = None) -> EncordProject:
    """Returns a project, reached with the key in the environment.

    Args:
        project_hash: uuid of a workflow project.
        domain: the API's address; None: the EU platform's.
        retry: how long calls go on through passing trouble; default: a minute or two.

    Raises:
        AccountError: key, address, project or permission are not as they must be; the message says the next step.
    """
    keep_links_out_of_logs()
    address = _checked_domain(domain or DEFAULT_DOMAIN)
    uuid = project_uuid(project_hash)
    client = _make_client(read_key(), address)
    caller = Caller(address, retry or Retry())
    project = caller.call(f"project {uuid}", lambda: _get_project(client, uuid, address), AccountError)
    _check_project(project)
    return EncordProject(project, client, replace(caller, look=lambda: _check_project(_enter(client, uuid, address))))


def _make_client(key: str, domain: str) -> EncordUserClient:
    from encord import EncordUserClient

    return EncordUserClient.create_with_ssh_private_key(
        ssh_private_key=key,
        domain=domain,
        requests_settings=_request_settings(),
        user_agent_suffix=f"prelabel/{prelabel.__version__}",
    )


def _request_settings() -> RequestsSettings:
    from encord.http.constants import RequestsSettings

    # The SDK waits 180 s for a connection and tries that four times: a wrong address would look like a hang.
    return RequestsSettings(connect_timeout=20, read_timeout=120, write_timeout=180)


def _get_project(client: EncordUserClient, project_hash: UUID, domain: str) -> Project:
    from encord import exceptions as sdk

    try:
        return _enter(client, project_hash, domain)
    except sdk.RequestException as error:
        if is_never_connected(error):  # the SDK has tried for 9 s: a wrong address more likely than passing trouble
            raise AccountError(f"project {project_hash}: {explain(error, domain)}") from None
        raise


def _enter(client: EncordUserClient, project_hash: UUID, domain: str) -> Project:
    from encord import exceptions as sdk

    try:
        return client.get_project(project_hash)
    except (sdk.ResourceNotFoundError, sdk.AuthorisationError):
        raise AccountError(
            f"source.project_hash: {domain} has no project {project_hash} that this key's user may enter: check the "
            "hash (it stands in the project's address in the web app), add the user or service account to the project, "
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
    """Returns the uuid that a config has written out.

    Raises:
        AccountError: it is none.
    """
    try:
        return UUID(project_hash)
    except ValueError:
        raise AccountError(
            f"source.project_hash: got {project_hash!r}, expected a uuid such as "
            "4f8ac2d1-0000-4000-8000-000000000000; it stands in the project's address in the web app"
        ) from None
