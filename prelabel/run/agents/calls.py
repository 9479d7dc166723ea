"""Calls a user's function: its arguments, its answer and its errors."""

from __future__ import annotations

import inspect
import traceback
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, SupportsFloat, TypeAlias, cast, get_args
from uuid import UUID

from prelabel.encord.project import EncordProject, as_encord_task, as_waiting_task
from prelabel.errors import AgentError, AnswerError, PluginError, PrelabelError
from prelabel.labels.row.offline import EditableRow
from prelabel.plugins.protocols import Task
from prelabel.run.agents.task_media import FunctionRows, TaskMedia
from prelabel.runtime.interrupts import Stopped
from prelabel.runtime.progress import stdout_to_stderr
from prelabel.runtime.redact import redact

if TYPE_CHECKING:
    from encord.storage import StorageItem
    from encord.workflow.stages.agent import AgentTask


Argument: TypeAlias = Literal[
    "task", "label_row", "media", "project", "client", "storage_item", "agent_task", "stage", "asset", "frame", "frames"
]
"""The arguments that a function may get. The last three are the media of encord-agents: a path, an image, frames."""

BY_NAME: tuple[Argument, ...] = ("task", "label_row", "media", "project", "client", "storage_item")
PLATFORM_ONLY: frozenset[Argument] = frozenset(("project", "client", "storage_item", "agent_task", "stage"))
TRAVELS: frozenset[Argument] = frozenset(("task", "media", "asset", "frame", "frames"))
"""What a function can get in another process, without the platform's key: no objects of the SDK."""
NEEDS_MEDIA: frozenset[Argument] = frozenset(("media", "asset", "frame", "frames"))

_BY_TYPE: Mapping[str, Argument] = {
    "LabelRowV2": "label_row",
    "AgentTask": "agent_task",
    "AgentStage": "stage",
    "Project": "project",
    "StorageItem": "storage_item",
    "EncordUserClient": "client",
}
# Dependencies of encord-agents that are replaced: the replacements check fetched files, and use the config's key and
# reader.
_REPLACED: Mapping[str, Argument] = {
    "dep_client": "client",
    "dep_asset": "asset",
    "dep_single_frame": "frame",
    "dep_video_iterator": "frames",
}
_THEIR_MODULE = "encord_agents.tasks.dependencies"


@dataclass(frozen=True, slots=True)
class Signature:
    """A function and the sources of its arguments.

    Attributes:
        function: the function; a generator is resumed after the call that uses its value, and runs to its end.
        arguments: arguments, by parameter.
        dependencies: functions whose results are passed, by parameter.
    """

    function: Callable[..., object]
    arguments: Mapping[str, Argument]
    dependencies: Mapping[str, Signature]

    @property
    def given(self) -> frozenset[str]:
        """The parameters that the config cannot set."""
        return frozenset((*self.arguments, *self.dependencies))

    def all_arguments(self) -> set[Argument]:
        """Returns the arguments of the function and of its dependencies."""
        return set(self.arguments.values()).union(*(inner.all_arguments() for inner in self.dependencies.values()))

    def values(self, make: Callable[[Argument], object], stack: ExitStack) -> dict[str, object]:
        """Returns the values of the parameters. Each dependency is called once.

        Args:
            make: returns the value of an argument.
            stack: closes the generators among the dependencies.
        """
        return self._values(make, stack, {})

    def _values(
        self, make: Callable[[Argument], object], stack: ExitStack, made: dict[Callable[..., object], object]
    ) -> dict[str, object]:
        values = {name: make(argument) for name, argument in self.arguments.items()}
        for name, inner in self.dependencies.items():
            if inner.function not in made:
                made[inner.function] = _enter(inner.function, inner._values(make, stack, made), stack)
            values[name] = made[inner.function]
        return values


def read_signature(function: Callable[..., object], use: str) -> Signature:
    """Returns which arguments a function gets. Its other parameters are options in the config.

    Args:
        function: the user's function.
        use: the function's name in errors.

    Raises:
        PluginError: the function has a parameter that cannot be filled.

    >>> def handle(task, label_row, threshold=3): ...
    >>> read_signature(handle, "mine.py:handle").arguments
    {'task': 'task', 'label_row': 'label_row'}
    """
    arguments: dict[str, Argument] = {}
    dependencies: dict[str, Signature] = {}
    hints = _type_hints(function)
    for parameter in _parameters(function, use):
        hint = hints.get(parameter.name, parameter.annotation)
        dependency = _dependency(hint, parameter.default)
        argument = _argument(hint, parameter.name) if dependency is None else _replacement(dependency)
        if argument is not None:
            arguments[parameter.name] = argument
        elif dependency is not None:
            dependencies[parameter.name] = read_signature(dependency, f"{use}, {parameter.name}")
    return Signature(function, arguments, dependencies)


def _parameters(function: Callable[..., object], use: str) -> Iterator[inspect.Parameter]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise PluginError(f"agent.use: {use!r}: its parameters cannot be read: {error}") from error
    for parameter in parameters:
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise PluginError(f"agent.use: {use!r}: {parameter.name!r} is positional only, expected a plain parameter")
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            yield parameter


def _type_hints(function: Callable[..., object]) -> dict[str, object]:
    target = function if inspect.isroutine(function) else type(function).__call__
    try:
        return typing.get_type_hints(target, include_extras=True)
    except (NameError, TypeError, AttributeError):  # the types may be imported for type checkers only
        return {}


def _argument(hint: object, name: str) -> Argument | None:
    written = hint if isinstance(hint, str) else ""  # a text, since the hint could not be resolved
    module = getattr(hint, "__module__", "")
    type_name = written.rpartition(".")[2] if written else getattr(hint, "__name__", "")
    if (written or module.partition(".")[0] == "encord") and type_name in _BY_TYPE:
        return _BY_TYPE[type_name]
    return next((known for known in BY_NAME if known == name), None)


def _dependency(hint: object, default: object) -> Callable[..., object] | None:
    """Returns the function of a `Depends`. It is recognised by its form, so that its package need not be installed."""
    for candidate in (default, *getattr(hint, "__metadata__", ())):
        if type(candidate).__name__ == "Depends" and hasattr(candidate, "dependency"):
            found = candidate.dependency or get_args(hint)[0]
            return cast(Callable[..., object], found)
    return None


def _replacement(dependency: Callable[..., object]) -> Argument | None:
    if getattr(dependency, "__module__", "") != _THEIR_MODULE:
        return None
    return _REPLACED.get(getattr(dependency, "__name__", ""))


def _enter(function: Callable[..., object], values: Mapping[str, object], stack: ExitStack) -> object:
    if not inspect.isgeneratorfunction(function):
        return function(**values)
    return stack.enter_context(contextmanager(function)(**values))


@dataclass(frozen=True, slots=True)
class Answer:
    """The pathway and priority that a function sets for a task.

    Attributes:
        pathway: name or uuid; None: the config decides.
        priority: 0 to 1; None: the config decides.
    """

    pathway: str | None = None
    priority: float | None = None


def read_answer(returned: object, use: str) -> Answer:
    """Reads the answer from a function's return value.

    Args:
        returned: a pathway's name or uuid, None, or an object with `pathway` and optionally `label_row_priority`, as in
            encord-agents.
        use: the function's name in errors.

    Raises:
        AnswerError: the value is none of these.

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
    """Returns the priority that a function set; None if it set none.

    Raises:
        AnswerError: the priority is not between 0 and 1.
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
        use: the name in the config.
        function: the function.
        signature: which arguments it gets.
        options: the options from the config.
    """

    use: str
    function: Callable[..., object]
    signature: Signature
    options: dict[str, object]


@dataclass
class Call:
    """One call of the function, for one task.

    Attributes:
        function: the function.
        task: the task.
        media: the task's files; of kind `none` if the function needs none.
        rows: provides the task's label row; used only if the function needs it.
        connect: returns the project; called only if the function needs it.
        row: the label row, after the function got it.
        told_pathway: the pathway that the function passed to the SDK's task instead of returning it.
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
            AgentError: the function raised an error, or returned an invalid value.
            Stopped: a second stop request.
        """
        use = self.function.use
        try:
            with ExitStack() as stack:
                values = self.function.signature.values(self._make, stack)
                with stdout_to_stderr():
                    returned = self.function.function(**values, **self.function.options)
        except (PrelabelError, Stopped, KeyboardInterrupt):
            raise
        except BaseException as error:  # `sys.exit` and panics of Rust code are no Exceptions
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
        """Returns the SDK's task with `proceed` replaced: the run moves the task after it has saved the labels."""
        watched = waiting.model_copy()
        vars(watched).update(proceed=self._note_pathway, move=_refuse_to_move)
        return watched

    def _note_pathway(
        self, pathway_name: str | None = None, pathway_uuid: object = None, *, bundle: object = None
    ) -> None:
        self.told_pathway = pathway_name or (str(pathway_uuid) if pathway_uuid else None)

    def _describe(self, error: BaseException) -> str:
        """Describes an error in one line, with its line in the function's file."""
        file = getattr(getattr(self.function.function, "__code__", None), "co_filename", "")
        places = traceback.extract_tb(error.__traceback__)
        place = next((place for place in reversed(places) if place.filename == file), places[-1])
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return f"{redact(said)} ({place.filename}, line {place.lineno})"


def _refuse_to_move(*_: object, **__: object) -> None:
    raise AgentError("the run moves the task along a pathway of its stage, once its labels are saved: return that")


def _their_frames(media: TaskMedia) -> Iterator[object]:
    """Yields frames in the form of encord-agents."""
    from encord_agents.core.data_model import Frame

    for frame in media.frames():
        yield Frame(frame=frame.frame_index, content=frame.array)
