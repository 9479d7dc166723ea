"""v2 endpoints of the workflow: tasks of a stage, actions on them, priorities, issues."""

from __future__ import annotations

from uuid import uuid4

from .context import Context, make_token, page_of, project_of, read_token
from .records import Issue, Json, Project, Stage, Task
from .wire import ApiError, Request


def stage_json(stage: Stage) -> Json:
    json: Json = {"stageType": stage.stage_type, "uuid": stage.uuid, "title": stage.title}
    if stage.stage_type == "AGENT":
        json["pathways"] = [
            {"uuid": pathway.uuid, "title": pathway.title, "destinationUuid": pathway.destination_uuid}
            for pathway in stage.pathways
        ]
    return json


def list_tasks(context: Context, request: Request, project: str, stage: str) -> Json:
    found = project_of(context, project)
    tasks = [task for task in found.tasks_at(_stage(found, stage).uuid) if _is_wanted(task, request)]
    if context.settings.stable_page_tokens:
        return _page_after_place(context, request, tasks)
    return page_of(context, request, [_task_json(task) for task in tasks])


def _page_after_place(context: Context, request: Request, tasks: list[Task]) -> Json:
    """A page whose token is a place in the queue, which stays right when tasks leave the stage."""
    token = read_token(request, "place")
    if token is not None:
        priority, arrived = token.split("/")
        tasks = [task for task in tasks if task.queue_place > (float(priority), int(arrived))]
    size = context.settings.page_size
    last = "{}/{}".format(*tasks[size - 1].queue_place) if len(tasks) > size else None
    return {
        "results": [_task_json(task) for task in tasks[:size]],
        "nextPageToken": make_token("place", last) if last else None,
    }


def _is_wanted(task: Task, request: Request) -> bool:
    def among(name: str, value: str | None) -> bool:
        return name not in request.query or value in request.query[name]

    return (
        among("dataHashes", task.data.data_hash)
        and among("datasetHashes", task.data.dataset_hash)
        and among("statuses", task.status)
        and among("userEmails", task.assignee)
        and (request.first("dataTitleContains") or "") in task.data.title
    )


def _task_json(task: Task) -> Json:
    json: Json = {
        "uuid": task.uuid,
        "createdAt": task.created_at.isoformat(),
        "updatedAt": task.updated_at.isoformat(),
        "dataHash": task.data.data_hash,
        "dataTitle": task.data.title,
    }
    if task.stage.stage_type == "DONE":
        return json
    json |= {"status": task.status, "assignee": task.assignee}
    if task.stage.stage_type != "REVIEW":
        json["labelBranchName"] = task.branch
    if task.stage.stage_type == "AGENT":
        json["lastActionedBy"] = task.last_actioned_by
    return json


def act_on_tasks(context: Context, request: Request, project: str, stage: str) -> None:
    """Carry out a list of actions: all of them, or none if one task is no longer at the stage."""
    found = project_of(context, project)
    origin = _stage(found, stage)
    actions = request.json()
    tasks = _tasks_at(found, origin, [action["taskUuid"] for action in actions])
    steps = [_step(found, origin, action) for action in actions]
    for task, (destination, pathway), action in zip(tasks, steps, actions, strict=True):
        if destination is not origin:
            context.world.move_task(task, destination, user=context.user, pathway=pathway)
        else:
            task.assignee = action.get("assignee")
            task.status = "ASSIGNED" if task.assignee else "RELEASED"


def _step(project: Project, origin: Stage, action: Json) -> tuple[Stage, str | None]:
    """Where an action takes a task, and by which pathway."""
    place = project.stages.index(origin)
    match origin.stage_type, action["action"]:
        case "AGENT", "PATHWAY_ACTION":
            return _along_pathway(project, origin, action)
        case ("ANNOTATION", "SUBMIT") | ("REVIEW", "APPROVE"):
            return project.stages[place + 1], None
        case "REVIEW", "REJECT":
            return next(stage for stage in project.stages[place::-1] if stage.stage_type == "ANNOTATION"), None
        case "ANNOTATION" | "REVIEW", "ASSIGN" | "RELEASE":
            return origin, None
    raise ApiError(400, f"no action {action['action']} at stage {origin.title}")


def _along_pathway(project: Project, origin: Stage, action: Json) -> tuple[Stage, str]:
    name, uuid = action.get("pathwayName"), action.get("pathwayUuid")
    if (name is None) == (uuid is None):
        raise ApiError(400, "exactly one of pathwayName and pathwayUuid is needed")
    for pathway in origin.pathways:
        if pathway.title == name or pathway.uuid == uuid:
            return project.stage(pathway.destination_uuid), pathway.uuid
    raise ApiError(400, f"stage {origin.title} has no pathway {name or uuid}")


def move_tasks(context: Context, request: Request, project: str, stage: str) -> None:
    found = project_of(context, project)
    asked = request.json()
    destination = _stage(found, asked["destinationStageUuid"])
    for task in _tasks_at(found, _stage(found, stage), asked["taskUuids"]):
        context.world.move_task(task, destination, user=context.user)


def _stage(project: Project, stage_uuid: str) -> Stage:
    for stage in project.stages:
        if stage.uuid == stage_uuid:
            return stage
    raise ApiError(404, f"project {project.title} has no stage {stage_uuid}")


def _tasks_at(project: Project, stage: Stage, task_uuids: list[str]) -> list[Task]:
    tasks = [project.tasks.get(uuid) for uuid in task_uuids]
    for uuid, task in zip(task_uuids, tasks, strict=True):
        if task is None or task.stage is not stage:
            raise ApiError(400, f"task {uuid} is not at stage {stage.title}")
    if len(set(task_uuids)) < len(task_uuids):
        raise ApiError(400, "a task is named twice")
    return [task for task in tasks if task is not None]


def set_priorities(context: Context, request: Request, project: str) -> None:
    found = project_of(context, project)
    priorities = dict(request.json()["priorities"])
    for data_hash, priority in priorities.items():
        if not 0 <= priority <= 1:
            raise ApiError(400, f"priority of {data_hash} is {priority}, not within 0 and 1")
    for task in found.tasks.values():
        task.priority = priorities.get(task.data.data_hash, task.priority)


def add_issues(context: Context, request: Request, project: str) -> None:
    found = project_of(context, project)
    now = context.world.clock.now()
    for issue in request.json()["issues"]:
        if issue["anchor"]["dataUuid"] not in found.units:
            raise ApiError(404, f"no data unit {issue['anchor']['dataUuid']}")
        found.issues.append(Issue(str(uuid4()), now, context.user, issue["anchor"], issue["comment"]))
