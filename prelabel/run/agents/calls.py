"""One call of a user's function: its arguments, its answer, and how it fails."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, SupportsFloat
from uuid import UUID

from prelabel.encord.project import EncordProject, as_encord_task, as_waiting_task
from prelabel.errors import AgentError, AnswerError, PrelabelError
from prelabel.labels.row.editable import EditableRow
from prelabel.plugins.protocols import Task
from prelabel.run.agents.parameters import Argument, Signature
from prelabel.run.agents.rows import FunctionRows
from prelabel.run.agents.task_media import TaskMedia
from prelabel.runtime.interrupts import Stopped
from prelabel.runtime.progress import stdout_to_stderr
from prelabel.runtime.redact import redact

if TYPE_CHECKING:
    from encord.storage import StorageItem
    from encord.workflow.stages.agent import AgentTask


@dataclass(frozen=True, slots=True)
class Answer:
    """Where a function sends a task.

    Attributes:
        pathway: name or uuid; None: the config says.
        priority: 0 to 1; None: the config says.
    """

    pathway: str | None = None
    priority: float | None = None


def read_answer(returned: object, use: str) -> Answer:
    """Returns the answer that a function's return value holds.

    Args:
        returned: a pathway's name or uuid, None, or an object with `pathway` and perhaps `label_row_priority`, as
            encord-agents has it.
        use: what errors call the function.

    Raises:
        AnswerError: it is none of these.

    >>> read_answer("Annotate 1", "mine.py:handle")
    Answer(pathway='Annotate 1', priority=None)
    """
    priority = None
    if hasattr(returned, "pathway"):
        priority = read_priority(getattr(returned, "label_row_priority", None), use)
        returned = returned.pathway
    if returned is not None and not isinstance(returned, str | UUID):
        raise AnswerError(
            f"{use} returned {returned!r:.60}, a {type(returned).__name__}; "
            "expected the name or uuid of a pathway, or None"
        )
    if returned == "":
        raise AnswerError(f"{use} returned an empty text, expected the name or uuid of a pathway, or None")
    return Answer(None if returned is None else str(returned), priority)


def read_priority(value: object, use: str) -> float | None:
    """Returns a priority that a function set, None if it set none.

    Raises:
        AnswerError: it is not within 0 and 1.
    """
    if value is None:
        return None
    if isinstance(value, SupportsFloat) and not isinstance(value, bool) and 0 <= float(value) <= 1:
        return float(value)
    raise AnswerError(f"{use}: priority: got {value!r:.60}, expected a number from 0 to 1")


@dataclass(frozen=True, slots=True)
class UserFunction:
    """A user's function, ready to be called.

    Attributes:
        use: as the config names it.
        function: what is called.
        signature: which arguments it gets.
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
        media: its files; of kind `none` where the function needs none.
        rows: gives its label row; only asked where the function needs it.
        connect: gives the project; only asked where the function needs it.
        row: the label row, once the function has got it.
        told_pathway: the pathway that the function gave to the SDK's task, instead of returning it.
    """

    function: UserFunction
    task: Task
    media: TaskMedia
    rows: FunctionRows
    connect: Callable[[], EncordProject]
    row: EditableRow | None = None
    told_pathway: str | None = None

    def run(self) -> Answer:
        """Calls the function and returns its answer.

        Raises:
            AgentError: it raised, or returned what it may not.
            Stopped: a second stop request.
        """
        use = self.function.use
        try:
            with ExitStack() as stack:
                values = self.function.signature.values(self._make, stack)
                with stdout_to_stderr():
                    returned = self.function.function(**values, **self.function.options)
        except (PrelabelError, Stopped):
            raise
        except (Exception, SystemExit) as error:
            raise AgentError(f"{self.task.title}: {use} raised {self._describe(error)}") from error
        answer = read_answer(returned, use)
        if answer.pathway is None:
            answer = replace(answer, pathway=self.told_pathway)
        if answer.priority is None and self.row is not None:
            answer = replace(answer, priority=read_priority(self.row.priority, use))
        return answer

    def _make(self, argument: Argument) -> object:
        make: dict[Argument, Callable[[], object]] = {
            "task": lambda: self.task,
            "media": lambda: self.media,
            "asset": lambda: self.media.path,
            "frame": lambda: self.media.frame().array,
            "frames": lambda: _their_frames(self.media),
            "label_row": lambda: self._label_row().sdk,
            "project": lambda: self.connect().sdk,
            "client": lambda: self.connect().client,
            "storage_item": self._storage_item,
            "stage": lambda: as_waiting_task(self.task).stage,
            "agent_task": lambda: self._watched(as_waiting_task(self.task).waiting),
        }
        return make[argument]()

    def _storage_item(self) -> StorageItem:
        task = as_encord_task(self.task)
        return self.connect().storage_item(task.item_uuid, task.title, with_link=True)

    def _label_row(self) -> EditableRow:
        if self.row is None:
            self.row = self.rows.checkout(self.task, lambda: self.media.info)
        return self.row

    def _watched(self, waiting: AgentTask) -> AgentTask:
        """Returns the SDK's task; the run takes the pathway that the function gives it, once the labels are saved."""
        watched = waiting.model_copy()
        vars(watched).update(proceed=self._note_pathway, move=_refuse_to_move)
        return watched

    def _note_pathway(
        self, pathway_name: str | None = None, pathway_uuid: object = None, *, bundle: object = None
    ) -> None:
        self.told_pathway = pathway_name or (str(pathway_uuid) if pathway_uuid else None)

    def _describe(self, error: BaseException) -> str:
        """Returns an error in one line, with its place in the function's file."""
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
