"""The v2 endpoints: which path leads to which function. Their answers are camelCase JSON."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from . import rest_labels, rest_storage, rest_workflow
from .context import Context
from .records import Json, Ontology, Project
from .rest_parts import iso, page_of, project_of
from .wire import Answer, ApiError, Request

_Endpoint = Callable[..., object]
PREFIX = "/v2/public"


def operation_of(request: Request) -> str:
    return _find(request)[0].__name__


def answer_call(context: Context, request: Request) -> Answer:
    """Carry a v2 call out.

    Raises:
        ApiError: With the status that the SDK turns into an exception.
    """
    endpoint, names = _find(request)
    return Answer.of_json(endpoint(context, request, **names))


def get_project(context: Context, request: Request, project: str) -> Json:
    return _project_json(project_of(context, project))


def list_projects(context: Context, request: Request) -> Json:
    wanted = request.first("titleEq")
    projects = [project for project in context.world.projects.values() if context.may_enter(project)]
    chosen = [project for project in projects if wanted in (None, project.title)]
    return page_of(context, request, [_project_json(project) for project in chosen])


def get_ontology(context: Context, request: Request, ontology: str) -> Json:
    if ontology not in context.world.ontologies:
        raise ApiError(404, f"no ontology {ontology}")
    return _ontology_json(context.world.ontologies[ontology])


def list_datasets(context: Context, request: Request, project: str) -> Json:
    units = project_of(context, project).units.values()
    titles = {unit.dataset_hash: unit.dataset_title for unit in units}
    return {
        "results": [{"datasetHash": dataset, "title": title, "description": ""} for dataset, title in titles.items()]
    }


def list_users(context: Context, request: Request, project: str) -> Json:
    members = project_of(context, project).members or {context.user}
    return page_of(context, request, [{"userEmail": email, "userRole": 0} for email in sorted(members)])


def no_such_endpoint(context: Context, request: Request) -> object:
    # 501 and not 404: a test must see that the server lacks the endpoint, not the thing asked for.
    raise ApiError(501, f"this server has no {request.method} {request.path}")


def _project_json(project: Project) -> Json:
    return {
        "projectHash": project.uuid,
        "projectType": "workflow",
        "status": project.status,
        "title": project.title,
        "description": project.description,
        "createdAt": iso(project.created_at),
        "creatorEmail": "owner@example.com",
        "lastEditedAt": iso(project.created_at),
        "ontologyHash": project.ontology.uuid,
        "editorOntology": project.ontology.editor,
        "userRole": 0,
        "sourceProjects": None,
        "workflowManagerUuid": None,
        "workflow": {"stages": [rest_workflow.stage_json(stage) for stage in project.stages]},
    }


def _ontology_json(ontology: Ontology) -> Json:
    return {
        "ontologyUuid": ontology.uuid,
        "title": ontology.title,
        "description": ontology.description,
        "editor": ontology.editor,
        "createdAt": iso(ontology.created_at),
        "lastEditedAt": iso(ontology.created_at),
        "userRole": 0,
    }


_ROUTES: list[tuple[str, str, _Endpoint]] = [
    ("GET", "/projects", list_projects),
    ("GET", "/projects/{project}", get_project),
    ("GET", "/projects/{project}/datasets", list_datasets),
    ("GET", "/projects/{project}/users", list_users),
    ("GET", "/projects/{project}/workflow/stages/{stage}/tasks", rest_workflow.list_tasks),
    ("POST", "/projects/{project}/workflow/stages/{stage}/actions", rest_workflow.act_on_tasks),
    ("POST", "/projects/{project}/workflow/stages/{stage}/move-tasks", rest_workflow.move_tasks),
    ("POST", "/projects/{project}/priorities", rest_workflow.set_priorities),
    ("POST", "/projects/{project}/issues", rest_workflow.add_issues),
    ("GET", "/projects/{project}/branches", rest_labels.list_branches),
    ("POST", "/projects/{project}/labels/copy-branch", rest_labels.copy_branch),
    ("GET", "/projects/{project}/labels/{label}/validation-state", rest_labels.get_validation_state),
    ("POST", "/projects/{project}/label-rows/classifications", rest_labels.get_classifications),
    ("GET", "/ontologies/{ontology}", get_ontology),
    ("POST", "/storage/items/get-bulk", rest_storage.get_items),
    ("PATCH", "/storage/items/patch-bulk", rest_storage.update_items),
    ("GET", "/storage/items/{item}", rest_storage.get_item),
    ("PATCH", "/storage/folders/{folder}/items/{item}", rest_storage.update_item),
    ("GET", "/storage/folders/{folder}/items/{item}/child-items", rest_storage.list_child_items),
]
_COMPILED = [
    (method, re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", PREFIX + path)), endpoint)
    for method, path, endpoint in _ROUTES
]


def _find(request: Request) -> tuple[_Endpoint, dict[str, Any]]:
    for method, pattern, endpoint in _COMPILED:
        if method == request.method and (match := pattern.fullmatch(request.path)):
            return endpoint, match.groupdict()
    return no_such_endpoint, {}
