"""A test server of the Encord API, which the unmodified `encord` SDK drives over HTTP.

    with EncordServer() as server:
        project = server.world.add_project()
        task = server.world.add_task(project.stage(AGENT), server.world.add_video(Path("clip.mp4")))
        client = connect(server, server.add_user("agent@example.com"))
        ...
        assert project.row(task.data).objects()

Written from the API as the SDK uses it. Look at `server.world` for what the platform would hold (label rows, tasks,
saves, moves, links, downloads), at `server.calls` for what was asked, and let things go wrong with `server.faults`.
"""

from .context import Settings
from .faults import (
    Call,
    Delay,
    LostAnswer,
    MalformedJson,
    Refusal,
    ResetInsideBody,
    Shortened,
    Status,
    Trickle,
    Truncated,
    WrongBytes,
    download_of,
)
from .probe import MediaFacts
from .server import EncordServer
from .state import AGENT, ANNOTATE, COMPLETE, REVIEW, World

__all__ = [
    "AGENT",
    "ANNOTATE",
    "COMPLETE",
    "REVIEW",
    "Call",
    "Delay",
    "EncordServer",
    "LostAnswer",
    "MalformedJson",
    "MediaFacts",
    "Refusal",
    "ResetInsideBody",
    "Settings",
    "Shortened",
    "Status",
    "Trickle",
    "Truncated",
    "World",
    "WrongBytes",
    "download_of",
]
