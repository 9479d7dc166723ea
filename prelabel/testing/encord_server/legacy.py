"""The legacy endpoints: an RPC envelope over `POST /public`, snake_case inside."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import uuid4

from . import labels
from .context import Context
from .records import DataUnit, Json, LabelRow, Project, Save, StorageItem
from .wire import Answer, EnvelopeError, Request

_DEFAULT_BRANCH = "main"
Query = Callable[[Context, Project, Any, Json, Request], object]


def find(envelope: Json) -> Query:
    """The query that an envelope asks for."""
    return _QUERIES.get((envelope.get("query_type", ""), envelope.get("query_method", "")), _refuse_query)


def answer_query(query: Query, request: Request, envelope: Json, context: Context) -> Answer:
    """Carry an envelope out.

    Raises:
        EnvelopeError: With the name that the SDK turns into an exception.
    """
    project = context.world.projects.get(request.headers.get("ResourceID", ""))
    if project is None:
        raise EnvelopeError("RESOURCE_NOT_FOUND_ERROR", "no such project", 404)
    if not context.may_enter(project):
        raise EnvelopeError("AUTHORISATION_ERROR", status=403)
    values = envelope["values"]
    result = query(context, project, values.get("uid"), values.get("payload") or {}, request)
    return Answer.of_json({"status": 200, "response": result})


def _refuse_query(context: Context, project: Project, uid: Any, payload: Json, request: Request) -> object:
    raise EnvelopeError("METHOD_NOT_ALLOWED_ERROR", "this server has no such query", 405)


def list_label_rows(context: Context, project: Project, uid: Any, payload: Json, request: Request) -> object:
    if payload.get("include_all_label_branches"):
        place_of = {data: place for place, data in enumerate(project.units)}
        rows_and_mains = {(data, _DEFAULT_BRANCH) for data in project.units} | set(project.row_of)
        ordered = sorted(rows_and_mains, key=lambda row: (place_of[row[0]], row[1]))
    else:
        branch = payload.get("branch_name") or _DEFAULT_BRANCH
        wanted = payload.get("data_hashes")
        ordered = [(data, branch) for data in (project.units if wanted is None else wanted) if data in project.units]
    rows = [_row_metadata(context, project, project.units[data], branch, payload) for data, branch in ordered]
    return [row for row in rows if _is_wanted(row, payload)]


def _row_metadata(context: Context, project: Project, data: DataUnit, branch: str, payload: Json) -> Json:
    row = project.row(data, branch)
    task = project.task_of.get((data.data_hash, branch)) or project.task_of.get((data.data_hash, _DEFAULT_BRANCH))
    item, grouped = data.item, data.data_type == "img_group"
    metadata = {
        "label_hash": row.label_hash if row else None,
        "branch_name": branch,
        "label_status": row.label_status if row else "NOT_LABELLED",
        "is_valid": row.is_valid if row else True,
        "created_at": row.created_at.isoformat() if row else None,
        "last_edited_at": row.last_edited_at.isoformat() if row else None,
        "data_hash": data.data_hash,
        "dataset_hash": data.dataset_hash,
        "dataset_title": data.dataset_title,
        "data_title": data.title,
        "data_type": data.data_type.upper(),
        "is_shadow_data": False,
        "frames_per_second": None if grouped else item.facts.fps,
        "duration": None if grouped else item.facts.duration_seconds,
        "number_of_frames": data.num_frames,
        "data_link": None if grouped else _object_path(item),
        "file_type": None if grouped else item.mime_type,
        "width": None if grouped else item.facts.width,
        "height": None if grouped else item.facts.height,
        "annotation_task_status": "QUEUED",
        "spaces": {},
        "backing_item_uuid": item.uuid,
        "task_uuid": task.uuid if task else None,
        "priority": task.priority if task else None,
        "assigned_user_email": task.assignee if task else None,
        "last_actioned_by_user_email": task.last_actioned_by if task else None,
        "workflow_graph_node": None,
        "client_metadata": item.client_metadata if payload.get("include_client_metadata") else None,
        "images_data": _images_data(data) if payload.get("include_images_data") and grouped else None,
    }
    if task and payload.get("include_workflow_graph_node", True):
        metadata["workflow_graph_node"] = {"uuid": task.stage.uuid, "title": task.stage.title}
    return metadata


def _images_data(data: DataUnit) -> list[Json]:
    return [
        {
            "index": index,
            "title": picture.item.name,
            "file_type": picture.item.mime_type or "image/jpeg",
            "height": picture.item.facts.height,
            "width": picture.item.facts.width,
            "image_hash": picture.image_hash,
        }
        for index, picture in enumerate(data.pictures)
    ]


def _is_wanted(row: Json, payload: Json) -> bool:
    node = row["workflow_graph_node"] or {"title": ""}
    edited = row["last_edited_at"]
    after, before = payload.get("edited_after"), payload.get("edited_before")
    return (
        (row["label_hash"] is not None or payload.get("include_uninitialised_labels", False))
        and _among(row["data_hash"], payload.get("data_hashes"))
        and _among(row["label_hash"], payload.get("label_hashes"))
        and _among(row["label_status"], payload.get("label_statuses"))
        and _titled(row["data_title"], payload.get("data_title_eq"), payload.get("data_title_like"))
        and _titled(
            node["title"],
            payload.get("workflow_graph_node_title_eq"),
            payload.get("workflow_graph_node_title_like"),
        )
        and (after is None or (edited is not None and _time(edited) > _time(after)))
        and (before is None or (edited is not None and _time(edited) < _time(before)))
    )


def _among(value: str | None, wanted: list[str] | None) -> bool:
    return wanted is None or value in wanted


def _titled(title: str, exactly: str | None, like: str | None) -> bool:
    pattern = ".*" if like is None else re.escape(like).replace("%", ".*").replace("_", ".")
    return exactly in (None, title) and re.fullmatch(pattern, title, re.DOTALL) is not None


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.astimezone()


def _object_path(item: StorageItem) -> str | None:
    """The file's path in its bucket, which the API returns where no link was asked for."""
    return f"{item.folder_uuid}/{item.uuid}" if item.path else None


def get_label_rows(context: Context, project: Project, uid: Any, payload: Json, request: Request) -> object:
    link_for = context.row_link if payload.get("get_signed_url") else _object_path
    wanted = [payload.get(f"include_{kind}_feature_hashes") for kind in ("object", "classification")]
    if not payload.get("include_archived"):
        wanted = [_not_archived(project, *pair) for pair in zip(("objects", "classifications"), wanted, strict=True)]
    documents = [
        labels.keep_features(labels.row_document(project, row, link_for), *wanted) for row in _stored_rows(project, uid)
    ]
    return documents[0] if isinstance(uid, str) else documents


def _not_archived(project: Project, kind: str, wanted: list[str] | None) -> list[str] | None:
    """The requested features that are not archived; None if all are."""
    features = {entry["featureNodeHash"]: bool(entry.get("archived")) for entry in project.ontology.editor[kind]}
    if not any(features.values()):
        return wanted
    return [feature for feature in (features if wanted is None else wanted) if not features.get(feature)]


def _stored_rows(project: Project, uid: Any) -> list[LabelRow]:
    hashes = [uid] if isinstance(uid, str) else uid
    for label_hash in hashes:
        if label_hash not in project.rows:
            raise EnvelopeError("RESOURCE_NOT_FOUND_ERROR", f"no label row {label_hash}", 404)
    return [project.rows[label_hash] for label_hash in hashes]


def create_label_rows(context: Context, project: Project, uid: Any, payload: Json, request: Request) -> object:
    branch = payload.get("branch_name") or _DEFAULT_BRANCH
    hashes = [uid] if isinstance(uid, str) else uid
    for data_hash in hashes:
        if data_hash not in project.units:
            raise EnvelopeError("RESOURCE_NOT_FOUND_ERROR", f"no data unit {data_hash}", 404)
        if (data_hash, branch) in project.row_of:
            raise EnvelopeError("RESOURCE_EXISTS_ERROR", status=409)
    rows = [create_row(context, project, project.units[data_hash], branch) for data_hash in hashes]
    link_for = context.row_link if payload.get("get_signed_url") else _object_path
    documents = [labels.row_document(project, row, link_for) for row in rows]
    return documents[0] if isinstance(uid, str) else documents


def create_row(context: Context, project: Project, data: DataUnit, branch: str) -> LabelRow:
    """Creates an empty row for data that has none on this branch."""
    now = context.world.clock.now()
    row = LabelRow(str(uuid4()), data, branch, now, now, labels.empty_labels(data))
    project.rows[row.label_hash] = row
    project.row_of[data.data_hash, branch] = row
    return row


def save_label_rows(context: Context, project: Project, uid: Any, payload: Json, request: Request) -> object:
    """Store rows whole. All are checked before the first is stored."""
    rows = _stored_rows(project, uid)
    documents = [payload] if isinstance(uid, str) else payload["labels"]
    if len(rows) != len(documents):
        raise EnvelopeError("INVALID_ARGUMENTS_ERROR", f"{len(rows)} uids for {len(documents)} label rows")
    errors = []
    for row, document in zip(rows, documents, strict=True):
        labels.refuse_unsavable(document, row.data, project.ontology)
        errors.append(labels.validation_errors(document, project.ontology))
        if errors[-1] and payload.get("validate_before_saving"):
            raise EnvelopeError("CORRUPTED_LABEL_ERROR", "; ".join(errors[-1]))
    now = context.world.clock.now()
    for row, document, row_errors in zip(rows, documents, errors, strict=True):
        labels.store_labels(row, document, user=context.user, now=now)
        row.validation_errors = row_errors
        context.world.saves.append(Save(now, row.label_hash, context.user, request.body))
    return True


def complete_or_reopen(context: Context, project: Project, uid: Any, payload: Json, request: Request) -> object:
    """Send a task to the end of the workflow, or back to its first annotation stage."""
    stage_type = {"complete": "DONE", "reopen": "ANNOTATION"}[payload["action"]]
    destination = next(stage for stage in project.stages if stage.stage_type == stage_type)
    for row in _stored_rows(project, uid):
        task = project.task_of.get((row.data.data_hash, row.branch))
        if task is None:
            raise EnvelopeError("RESOURCE_NOT_FOUND_ERROR", f"no task for label row {row.label_hash}", 404)
        context.world.move_task(task, destination, user=context.user)
        row.label_status = "LABELLED" if stage_type == "DONE" else "LABEL_IN_PROGRESS"
    return True


def get_project_record(context: Context, project: Project, uid: Any, payload: Json, request: Request) -> object:
    everything = {"include_uninitialised_labels": True}
    with_rows = payload.get("include_labels_metadata")
    return {
        "project_hash": project.uuid,
        "title": project.title,
        "description": project.description,
        "ontology_hash": project.ontology.uuid,
        "editor_ontology": project.ontology.editor,
        "created_at": labels.seconds_text(project.created_at),
        "last_edited_at": labels.seconds_text(project.created_at),
        "label_rows": list_label_rows(context, project, None, everything, request) if with_rows else [],
        "datasets": [],
    }


_QUERIES: dict[tuple[str, str], Query] = {
    ("labelrowmetadata", "GET"): list_label_rows,
    ("labelrow", "GET"): get_label_rows,
    ("labelrow", "PUT"): create_label_rows,
    ("labelrow", "POST"): save_label_rows,
    ("labelworkflowgraphnode", "POST"): complete_or_reopen,
    ("project", "GET"): get_project_record,
}
