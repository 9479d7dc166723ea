"""What several v2 endpoints need: the project asked for, times, pages."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import datetime

from .context import Context
from .records import Json, Project
from .wire import ApiError, Request


def project_of(context: Context, project_hash: str) -> Project:
    project = context.world.projects.get(project_hash)
    if project is None:
        raise ApiError(404, f"no project {project_hash}")
    if not context.may_enter(project):
        raise ApiError(403, "You are not authorised to access this project")
    return project


def iso(time: datetime) -> str:
    return time.isoformat()


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
