"""The v2 endpoints: which path leads to which function. Their answers are camelCase JSON."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable

from . import rest_workflow
from .context import Context, page_of, project_of
from .labels import store_labels
from .legacy import create_row
from .records import Json, LabelRow, Ontology, Project, StorageItem
from .wire import Answer, ApiError, Request

Endpoint = Callable[..., object]
PREFIX = "/v2/public"


def answer_call(endpoint: Endpoint, names: dict[str, str], request: Request, context: Context) -> Answer:
    """Carry a v2 call out, with the names in its path.

    Raises:
        ApiError: With the status that the SDK turns into an exception.
    """
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
    # 501 and not 404, to distinguish a missing endpoint from a missing object.
    raise ApiError(501, f"this server has no {request.method} {request.path}")


def _project_json(project: Project) -> Json:
    return {
        "projectHash": project.uuid,
        "projectType": "workflow",
        "status": project.status,
        "title": project.title,
        "description": project.description,
        "createdAt": project.created_at.isoformat(),
        "creatorEmail": "owner@example.com",
        "lastEditedAt": project.created_at.isoformat(),
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
        "createdAt": ontology.created_at.isoformat(),
        "lastEditedAt": ontology.created_at.isoformat(),
        "userRole": 0,
    }


# Label rows: branches, validation, classifications


def list_branches(context: Context, request: Request, project: str) -> Json:
    branches = {"main"} | {branch for _, branch in project_of(context, project).row_of}
    return page_of(context, request, [{"name": branch} for branch in sorted(branches)])


def get_validation_state(context: Context, request: Request, project: str, label: str) -> Json:
    row = _row_of(project_of(context, project), label)
    return {
        "labelHash": row.label_hash,
        "branchName": row.branch,
        "version": row.version,
        "isValid": row.is_valid,
        "errors": row.validation_errors,
    }


def copy_branch(context: Context, request: Request, project: str) -> Json:
    found, asked = project_of(context, project), request.json()
    copied = 0
    for source in [_row_of(found, label_hash) for label_hash in asked["labelUuids"]]:
        target = found.row(source.data, asked["targetBranchName"])
        if target is None or asked["overwrite"]:
            target = target or create_row(context, found, source.data, asked["targetBranchName"])
            document = {
                "data_units": {key: {"labels": labels} for key, labels in source.labels.items()},
                "object_answers": source.object_answers,
                "classification_answers": source.classification_answers,
                "object_actions": source.object_actions,
            }
            store_labels(target, copy.deepcopy(document), user=context.user, now=context.world.clock.now())
            copied += 1
    return {"copiedCount": copied}


def get_classifications(context: Context, request: Request, project: str) -> Json:
    found, asked = project_of(context, project), request.json()
    if len(asked["labelUuids"]) > 1000:
        raise ApiError(400, "at most 1000 label rows")
    rows = [_row_of(found, label_hash) for label_hash in asked["labelUuids"]]
    return {
        "labels": [
            {
                "labelUuid": row.label_hash,
                "dataUuid": row.data.data_hash,
                "dataTitle": row.data.title,
                "branchName": row.branch,
                "classificationAnswers": row.classification_answers,
            }
            for row in rows
            if row.branch == asked["branchName"]
        ]
    }


def _row_of(project: Project, label_hash: str) -> LabelRow:
    if label_hash not in project.rows:
        raise ApiError(404, f"no label row {label_hash}")
    return project.rows[label_hash]


# Storage: items, their signed links, their client metadata


def get_item(context: Context, request: Request, item: str) -> Json:
    return _item_json(context, _item(context, item), sign=request.flag("signUrl"))


def get_items(context: Context, request: Request) -> Json:
    """Items in the order asked for."""
    asked = request.json()
    items = [_item(context, uuid) for uuid in asked["itemUuids"]]
    return {"results": [_item_json(context, item, sign=asked.get("signUrls", False)) for item in items]}


def list_child_items(context: Context, request: Request, folder: str, item: str) -> Json:
    children = _item(context, item).children
    return {"results": [_item_json(context, child, sign=request.flag("signUrls")) for child in children]}


def update_item(context: Context, request: Request, folder: str, item: str) -> Json:
    return _patch(context, item, request.json())


def update_items(context: Context, request: Request) -> Json:
    patches = request.json()["itemPatches"]
    return {"results": [_patch(context, uuid, patch) for uuid, patch in patches.items()]}


def _patch(context: Context, item_uuid: str, patch: Json) -> Json:
    item = _item(context, item_uuid)
    item.name = patch.get("name", item.name)
    item.description = patch.get("description", item.description)
    item.client_metadata = patch.get("clientMetadata", item.client_metadata)
    item.last_edited_at = context.world.clock.now()
    return _item_json(context, item, sign=False)


def _item(context: Context, item_uuid: str) -> StorageItem:
    if item_uuid not in context.world.items:
        raise ApiError(404, f"no storage item {item_uuid}")
    return context.world.items[item_uuid]


def _item_json(context: Context, item: StorageItem, *, sign: bool) -> Json:
    facts = item.facts
    return {
        "uuid": item.uuid,
        "parent": item.folder_uuid,
        "itemType": item.item_type,
        "name": item.name,
        "description": item.description,
        "clientMetadata": json.dumps(item.client_metadata),
        "owner": "owner@example.com",
        "createdAt": item.created_at.isoformat(),
        "lastEditedAt": item.last_edited_at.isoformat(),
        "isTombstone": False,
        "isPlaceholder": False,
        "backedDataUnitsCount": 1,
        "storageLocation": "encord",
        "integrationHash": None,
        "url": None,
        "signedUrl": context.item_link(item) if sign else None,
        "fileSize": item.file_size,
        "mimeType": item.mime_type,
        "duration": facts.duration_seconds,
        "fps": facts.fps,
        "height": facts.height,
        "width": facts.width,
        "dicomInstanceUid": None,
        "dicomStudyUid": None,
        "dicomSeriesUid": None,
        "frameCount": facts.num_frames if item.item_type in ("video", "imageSequence") else None,
        "audioSampleRate": None,
        "audioBitDepth": None,
        "audioCodec": None,
        "audioNumChannels": None,
    }


# Which path leads to which function

_ROUTES: list[tuple[str, str, Endpoint]] = [
    ("GET", "/projects", list_projects),
    ("GET", "/projects/{project}", get_project),
    ("GET", "/projects/{project}/datasets", list_datasets),
    ("GET", "/projects/{project}/users", list_users),
    ("GET", "/projects/{project}/workflow/stages/{stage}/tasks", rest_workflow.list_tasks),
    ("POST", "/projects/{project}/workflow/stages/{stage}/actions", rest_workflow.act_on_tasks),
    ("POST", "/projects/{project}/workflow/stages/{stage}/move-tasks", rest_workflow.move_tasks),
    ("POST", "/projects/{project}/priorities", rest_workflow.set_priorities),
    ("POST", "/projects/{project}/issues", rest_workflow.add_issues),
    ("GET", "/projects/{project}/branches", list_branches),
    ("POST", "/projects/{project}/labels/copy-branch", copy_branch),
    ("GET", "/projects/{project}/labels/{label}/validation-state", get_validation_state),
    ("POST", "/projects/{project}/label-rows/classifications", get_classifications),
    ("GET", "/ontologies/{ontology}", get_ontology),
    ("POST", "/storage/items/get-bulk", get_items),
    ("PATCH", "/storage/items/patch-bulk", update_items),
    ("GET", "/storage/items/{item}", get_item),
    ("PATCH", "/storage/folders/{folder}/items/{item}", update_item),
    ("GET", "/storage/folders/{folder}/items/{item}/child-items", list_child_items),
]
_COMPILED = [
    (method, re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", PREFIX + path)), endpoint)
    for method, path, endpoint in _ROUTES
]


def find(request: Request) -> tuple[Endpoint, dict[str, str]]:
    """The endpoint that a request asks for, and the names in its path."""
    for method, pattern, endpoint in _COMPILED:
        if method == request.method and (match := pattern.fullmatch(request.path)):
            return endpoint, match.groupdict()
    return no_such_endpoint, {}
