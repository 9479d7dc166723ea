"""One call of a user's function: what it is handed, what comes of it, and how it fails."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from prelabel.agents.parameters import Ask, Signature
from prelabel.agents.returned import Answer, read_answer, read_priority
from prelabel.agents.rows import Rows
from prelabel.agents.task_media import TaskMedia
from prelabel.encord_api.client import EncordProject
from prelabel.encord_api.tasks import as_encord_task
from prelabel.errors import AgentError, PrelabelError
from prelabel.interrupts import Stopped
from prelabel.progress import prints_apart
from prelabel.protocols import Task
from prelabel.redact import redact
from prelabel.sinks.handed_row import HandedRow

if TYPE_CHECKING:
    from encord.storage import StorageItem
    from encord.workflow.stages.agent import AgentTask


@dataclass(frozen=True, slots=True)
class UserFunction:
    """A user's function, ready to be called.

    Attributes:
        use: as the config names it.
        function: what is called.
        signature: what to hand it.
        options: the config's other keys.
    """

    use: str
    function: Callable[..., object]
    signature: Signature
    options: dict[str, object]


@dataclass
class Call:
    """One call, for one task.

    Attributes:
        function: what is called.
        task: for which.
        media: its files; of kind `none` where the function asks for none.
        rows: gives where its label row is; only asked where the function needs it.
        connect: gives the project; only asked where the function needs it.
        row: the label row, once it was handed out.
        told_pathway: that the function has told the SDK's task, instead of returning it.
    """

    function: UserFunction
    task: Task
    media: TaskMedia
    rows: Callable[[], Rows]
    connect: Callable[[], EncordProject]
    row: HandedRow | None = None
    told_pathway: str | None = None

    def run(self) -> Answer:
        """Calls the function and returns what it says of the task.

        Raises:
            AgentError: it raised, or returned what it may not.
            Stopped: somebody asked twice to stop.
        """
        use = self.function.use
        try:
            with ExitStack() as stack:
                values = self.function.signature.values(self._hand, stack)
                with prints_apart():
                    returned = self.function.function(**values, **self.function.options)
        except (PrelabelError, Stopped):
            raise
        except (Exception, SystemExit) as error:
            raise AgentError(f"{self.task.title}: {use} raised {self._said(error)}") from error
        answer = read_answer(returned, use)
        if answer.pathway is None:
            answer = replace(answer, pathway=self.told_pathway)
        if answer.priority is None and self.row is not None:
            answer = replace(answer, priority=read_priority(self.row.priority, use))
        return answer

    def _hand(self, ask: Ask) -> object:
        make: dict[Ask, Callable[[], object]] = {
            "task": lambda: self.task,
            "media": lambda: self.media,
            "asset": lambda: self.media.path,
            "frame": lambda: self.media.frame().array,
            "frames": lambda: _their_frames(self.media),
            "label_row": lambda: self._label_row().sdk,
            "project": lambda: self.connect().sdk,
            "client": lambda: self.connect().client,
            "storage_item": self._storage_item,
            "stage": lambda: as_encord_task(self.task).stage,
            "agent_task": lambda: self._watched(as_encord_task(self.task).waiting),
        }
        return make[ask]()

    def _storage_item(self) -> StorageItem:
        task = as_encord_task(self.task)
        return self.connect().storage_item(task.item_uuid, task.title, with_link=True)

    def _label_row(self) -> HandedRow:
        if self.row is None:
            self.row = self.rows().hand_out(self.task, lambda: self.media.info)
        return self.row

    def _watched(self, waiting: AgentTask) -> AgentTask:
        """Returns the SDK's task; a pathway that it is told is taken by the run, once the labels are saved."""
        watched = waiting.model_copy()
        vars(watched).update(proceed=self._note_pathway, move=_refuse_to_move)
        return watched

    def _note_pathway(
        self, pathway_name: str | None = None, pathway_uuid: object = None, *, bundle: object = None
    ) -> None:
        self.told_pathway = pathway_name or (str(pathway_uuid) if pathway_uuid else None)

    def _said(self, error: BaseException) -> str:
        """Returns an error in a line, with the place in the function's file where it came from."""
        file = getattr(getattr(self.function.function, "__code__", None), "co_filename", "")
        places = traceback.extract_tb(error.__traceback__)
        place = next((place for place in reversed(places) if place.filename == file), places[-1])
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return f"{redact(said)} ({place.filename}, line {place.lineno})"


def _refuse_to_move(*_: object, **__: object) -> None:
    raise AgentError("the run moves the task along a pathway of its stage, once its labels are saved: return that")


def _their_frames(media: TaskMedia) -> Iterator[object]:
    """Yields frames as encord-agents has them."""
    from encord_agents.core.data_model import Frame

    for frame in media.frames():
        yield Frame(frame=frame.frame_index, content=frame.array)
