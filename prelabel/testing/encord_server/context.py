"""What an endpoint gets (the world, the settings and the user), and what several v2 endpoints need."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from .media import Links
from .records import Json, Project, StorageItem
from .state import World
from .wire import ApiError, Request


@dataclass
class Settings:
    """How the platform behaves where that can be configured, or is not documented."""

    page_size: int = 50
    # Offsets skip tasks when earlier ones leave the stage while it is read; stable tokens do not.
    stable_page_tokens: bool = False
    max_body_bytes: int = 50_000_000
    item_link_lifetime_seconds: float = 3600
    row_link_lifetime_seconds: float = 7 * 86400


@dataclass
class Context:
    """One request's surroundings; `user` is the e-mail of the key's holder."""

    world: World
    links: Links
    settings: Settings
    user: str

    def may_enter(self, project: Project) -> bool:
        return project.members is None or self.user in project.members

    def item_link(self, item: StorageItem) -> str | None:
        return self.links.sign(item, self.settings.item_link_lifetime_seconds)

    def row_link(self, item: StorageItem) -> str | None:
        return self.links.sign(item, self.settings.row_link_lifetime_seconds)


def project_of(context: Context, project_hash: str) -> Project:
    project = context.world.projects.get(project_hash)
    if project is None:
        raise ApiError(404, f"no project {project_hash}")
    if not context.may_enter(project):
        raise ApiError(403, "You are not authorised to access this project")
    return project


def page_of(context: Context, request: Request, results: Sequence[object]) -> Json:
    """The page that the request's token names. The token is an offset into the current list."""
    start = int(read_token(request, "offset") or 0)
    end = start + context.settings.page_size
    return {
        "results": results[start:end],
        "nextPageToken": make_token("offset", str(end)) if end < len(results) else None,
    }


def make_token(kind: str, value: str) -> str:
    return base64.urlsafe_b64encode(f"{kind}:{value}".encode()).decode()


def read_token(request: Request, kind: str) -> str | None:
    token = request.first("pageToken")
    if token is None:
        return None
    found, _, value = base64.urlsafe_b64decode(token).decode().partition(":")
    if found != kind:
        raise ApiError(400, f"pageToken {token} is not one of this list")
    return value
