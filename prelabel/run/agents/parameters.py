"""Which arguments a user's function gets: by the names of its parameters, or by the SDK's types."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast, get_args

from prelabel.errors import PluginError

Argument: TypeAlias = Literal[
    "task", "label_row", "media", "project", "client", "storage_item", "agent_task", "stage", "asset", "frame", "frames"
]
"""What a function may get. The last three are encord-agents' media: a path, an image, and frames."""

BY_NAME: tuple[Argument, ...] = ("task", "label_row", "media", "project", "client", "storage_item")
PLATFORM_ONLY: frozenset[Argument] = frozenset(("project", "client", "storage_item", "agent_task", "stage"))
NEEDS_MEDIA: frozenset[Argument] = frozenset(("media", "asset", "frame", "frames"))

_BY_TYPE: Mapping[str, Argument] = {
    "LabelRowV2": "label_row",
    "AgentTask": "agent_task",
    "AgentStage": "stage",
    "Project": "project",
    "StorageItem": "storage_item",
    "EncordUserClient": "client",
}
# Dependencies of encord-agents that we replace: ours check what they fetch, and use the config's key and reader.
_REPLACED: Mapping[str, Argument] = {
    "dep_client": "client",
    "dep_asset": "asset",
    "dep_single_frame": "frame",
    "dep_video_iterator": "frames",
}
_THEIR_MODULE = "encord_agents.tasks.dependencies"


@dataclass(frozen=True, slots=True)
class Signature:
    """A function, and where its arguments come from.

    Attributes:
        function: what is called; a generator is run to its end after the call that it serves.
        arguments: what it gets, by parameter.
        dependencies: functions whose results it gets, by parameter.
    """

    function: Callable[..., object]
    arguments: Mapping[str, Argument]
    dependencies: Mapping[str, Signature]

    @property
    def given(self) -> frozenset[str]:
        """Parameters that the config cannot set."""
        return frozenset((*self.arguments, *self.dependencies))

    def all_arguments(self) -> set[Argument]:
        """Returns what the function and its dependencies get."""
        return set(self.arguments.values()).union(*(inner.all_arguments() for inner in self.dependencies.values()))

    def values(self, make: Callable[[Argument], object], stack: ExitStack) -> dict[str, object]:
        """Returns the values of the parameters; each dependency is called once.

        Args:
            make: returns an argument.
            stack: ends the generators among the dependencies.
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
    """Returns what a function gets; its other parameters are options of the config.

    Args:
        function: the user's.
        use: the function's name in errors.

    Raises:
        PluginError: it has a parameter that cannot be filled.

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
    except (NameError, TypeError, AttributeError):  # types that are imported for type checkers only
        return {}


def _argument(hint: object, name: str) -> Argument | None:
    written = hint if isinstance(hint, str) else ""  # could not be looked up
    module = getattr(hint, "__module__", "")
    type_name = written.rpartition(".")[2] if written else getattr(hint, "__name__", "")
    if (written or module.partition(".")[0] == "encord") and type_name in _BY_TYPE:
        return _BY_TYPE[type_name]
    return next((known for known in BY_NAME if known == name), None)


def _dependency(hint: object, default: object) -> Callable[..., object] | None:
    """Returns the function of a `Depends`, known by its form: the package that has it need not be installed."""
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
