"""Tasks on Encord, as the run knows them: one that waits at an agent stage, and a row that an earlier run wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from prelabel.errors import FetchError
from prelabel.frames import Media, VideoInfo
from prelabel.protocols import Task

if TYPE_CHECKING:
    from encord.objects import LabelRowV2
    from encord.workflow import AgentStage
    from encord.workflow.stages.agent import AgentTask


@dataclass(frozen=True)
class EncordTask:
    """A task that waits at an agent stage.

    Attributes:
        key: project, data unit and branch: the same in every run.
        title: of the data unit.
        num_frames: frames that may be labelled.
        uuid: of the task in the workflow.
        data_hash: of the data unit.
        branch: on which its labels are.
        kind: what the data unit is: `video`, `image`, `img_group`, `audio`, `pdf`, …
        item_uuid: of the storage item that holds the media.
        stage: at which it waits.
        waiting: the SDK's own task, by which it moves.
        fetch: brings the media here.
        row: the label row's metadata, as they were listed.
    """

    key: str
    title: str
    num_frames: int
    uuid: UUID
    data_hash: str
    branch: str
    kind: str
    item_uuid: UUID
    stage: AgentStage = field(repr=False, compare=False)
    waiting: AgentTask = field(repr=False, compare=False)
    fetch: Callable[[EncordTask], AbstractContextManager[Media]] = field(repr=False, compare=False)
    row: LabelRowV2 = field(repr=False, compare=False)

    @property
    def identity(self) -> str:
        """Changes when the media behind the key does."""
        return str(self.item_uuid)

    @property
    def listed_info(self) -> VideoInfo | None:
        """What the platform says of the media, without a look at them; None where it says nothing, as of sound."""
        row = self.row
        if not row.width or not row.height:
            return None
        fps, seconds = row.fps or 0.0, row.duration or 0.0
        return VideoInfo(row.width, row.height, self.num_frames, average_fps=fps, duration_seconds=seconds)

    @property
    def metadata(self) -> Mapping[str, object]:
        """The client metadata of the data unit; empty where the source was not asked for them."""
        return self.row.client_metadata or {}

    def open(self) -> AbstractContextManager[Media]:
        """Brings the media here for as long as the context is open.

        Raises:
            FetchError: if they cannot be had whole.
        """
        return self.fetch(self)


@dataclass(frozen=True)
class EncordRow:
    """A label row that an earlier run wrote, wherever its task stands now; its media are not needed.

    Attributes:
        key: as of the `EncordTask` that it was written for.
        title: of the data unit.
        identity: of the media at that time.
        num_frames: frames that may be labelled.
        data_hash: of the data unit.
        branch: on which its labels are.
        item_uuid: of the storage item that holds the media.
        num_instances: that prelabel wrote last.
    """

    key: str
    title: str
    identity: str
    num_frames: int
    data_hash: str
    branch: str
    item_uuid: UUID
    num_instances: int

    def open(self) -> AbstractContextManager[Media]:
        """Raises a FetchError: media are not looked at again."""
        raise FetchError(f"{self.title}: what was found in it cannot be read: `prelabel run CONFIG` finds it again")


def as_encord_task(task: Task) -> EncordTask:
    """Returns the task as what it is.

    Raises:
        TypeError: if another source made it.
    """
    if not isinstance(task, EncordTask):
        raise TypeError(f"task {task.title!r}: got a {type(task).__name__}, expected one of EncordSource")
    return task
