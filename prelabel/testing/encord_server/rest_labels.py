"""v2 endpoints about label rows: branches, validation, classifications."""

from __future__ import annotations

import copy

from .context import Context
from .labels import store_labels
from .legacy import create_row
from .records import Json, LabelRow, Project
from .rest_parts import page_of, project_of
from .wire import ApiError, Request


def list_branches(context: Context, request: Request, project: str) -> Json:
    branches = {"main"} | {branch for _, branch in project_of(context, project).row_of}
    return page_of(context, request, [{"name": branch} for branch in sorted(branches)])


def get_validation_state(context: Context, request: Request, project: str, label: str) -> Json:
    row = _row(project_of(context, project), label)
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
    for source in [_row(found, label_hash) for label_hash in asked["labelUuids"]]:
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
    rows = [_row(found, label_hash) for label_hash in asked["labelUuids"]]
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


def _row(project: Project, label_hash: str) -> LabelRow:
    if label_hash not in project.rows:
        raise ApiError(404, f"no label row {label_hash}")
    return project.rows[label_hash]
