"""A test server of the Encord API, which the unmodified `encord` SDK drives over HTTP.

    with EncordServer() as server:
        project = server.world.add_project()
        task = server.world.add_task(project.stage(AGENT), server.world.add_video(Path("clip.mp4")))
        client = connect(server, server.add_user("agent@example.com"))
        ...
        assert project.row(task.data).objects()

The server was written from the API as the SDK uses it. `server.world` has what the platform would hold: label rows,
tasks, saves, moves, links, downloads. `server.calls` has the requests, and `server.faults` injects faults.

No public document says how the platform behaves in these cases. The server does this:

- task pages have 50 tasks and offset tokens (`Settings`), which skip tasks when earlier ones leave the stage;
- a task keeps its uuid when it moves, and joins the end of the next stage's queue;
- a request for a branch that does not exist lists an uninitialised row, and creating that row makes the branch;
- a save is stored wherever its task is; of several rows in one request all are stored or none;
- NaN in a body is INVALID_ARGUMENTS_ERROR; a box outside the image, a confidence outside 0 to 1, a wrong shape and
  an object twice on a frame make a row invalid, or CORRUPTED_LABEL_ERROR when the caller asks for validation;
- images of an image sequence have no files of their own, the sequence has its video;
- width and height of a rotated video are those displayed.
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
from .records import MediaFacts
from .server import EncordServer, connect
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
    "connect",
    "download_of",
]
