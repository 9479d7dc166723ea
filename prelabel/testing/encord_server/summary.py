"""Counts of what happened so far, also for clients in another process (`GET /state`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .faults import Call
from .records import Json, Project
from .state import World


def summarise(world: World, calls: Sequence[Call]) -> Json:
    with world.lock:
        return {
            "projects": {project.uuid: _summarise_project(project) for project in world.projects.values()},
            "saves": len(world.saves),
            "moves": len(world.moves),
            "downloads": len(world.downloads),
            "downloaded_bytes": sum(download.num_bytes for download in world.downloads),
            "calls": dict(Counter(call.operation for call in calls)),
        }


def _summarise_project(project: Project) -> Json:
    return {
        "tasks": {stage.title: len(project.tasks_at(stage.uuid)) for stage in project.stages},
        "label_rows": {
            row.label_hash: {
                "title": row.data.title,
                "objects": len(row.object_answers),
                "object_frames": len(row.objects()),
                "is_valid": row.is_valid,
            }
            for row in project.rows.values()
        },
    }
