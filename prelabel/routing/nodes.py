"""Parts of an expression: each knows what kind of value it has, and finds it among the facts."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from prelabel.routing.facts import Facts, Value

ValueKind: TypeAlias = Literal["number", "text", "truth", "any"]
"""`any` is what metadata may hold: known only when it is looked up."""

TEXT_PROPERTIES = ("title", "kind")
NUMBER_PROPERTIES = ("width", "height", "num_frames", "fps", "duration_seconds")
COUNTS = ("count", "boxes", "frame_share")
COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
PATTERNS = ("like", "matches")

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_CALCULATE: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}


class Node(Protocol):
    """A part of an expression."""

    @property
    def kind(self) -> ValueKind:
        """What kind of value it has."""

    @property
    def parts(self) -> tuple[Node, ...]:
        """What it is made of."""

    def value(self, facts: Facts) -> Value:
        """Returns its value; None where there is none."""


@dataclass(frozen=True, slots=True)
class Literally:
    """A number, a text, true or false."""

    is_: float | str | bool
    parts: tuple[Node, ...] = ()

    @property
    def kind(self) -> ValueKind:
        """By the value."""
        if isinstance(self.is_, bool):
            return "truth"
        return "text" if isinstance(self.is_, str) else "number"

    def value(self, facts: Facts) -> Value:
        """Returns it."""
        return self.is_


@dataclass(frozen=True, slots=True)
class Property:
    """The title, or a property of the media."""

    name: str
    parts: tuple[Node, ...] = ()

    @property
    def kind(self) -> ValueKind:
        """By the name."""
        return "text" if self.name in TEXT_PROPERTIES else "number"

    def value(self, facts: Facts) -> Value:
        """Returns it."""
        return facts.property(self.name)


@dataclass(frozen=True, slots=True)
class Metadata:
    """An entry of the client metadata."""

    keys: tuple[str, ...]
    kind: ValueKind = "any"
    parts: tuple[Node, ...] = ()

    def value(self, facts: Facts) -> Value:
        """Returns it."""
        return facts.entry(self.keys)


@dataclass(frozen=True, slots=True)
class Counted:
    """`has`, `count`, `boxes`, `frame_share`, or a statistic of `confidence`, of some classes or of all."""

    what: str
    classes: tuple[str, ...]
    parts: tuple[Node, ...] = ()

    @property
    def kind(self) -> ValueKind:
        """A truth for `has`."""
        return "truth" if self.what == "has" else "number"

    def value(self, facts: Facts) -> Value:
        """Returns it."""
        match self.what:
            case "has":
                return facts.num_boxes(self.classes) > 0
            case "count":
                return facts.count(self.classes)
            case "boxes":
                return facts.num_boxes(self.classes)
            case "frame_share":
                return facts.frame_share(self.classes)
        return facts.confidence_at(self.what, self.classes)


@dataclass(frozen=True, slots=True)
class Negative:
    """`-x`."""

    of: Node
    kind: ValueKind = "number"

    @property
    def parts(self) -> tuple[Node, ...]:
        """The number."""
        return (self.of,)

    def value(self, facts: Facts) -> Value:
        """Returns None where there is no number."""
        number = _number(self.of.value(facts))
        return None if number is None else -number


@dataclass(frozen=True, slots=True)
class Calculated:
    """Two numbers added, subtracted, multiplied or divided."""

    sign: str
    left: Node
    right: Node
    kind: ValueKind = "number"

    @property
    def parts(self) -> tuple[Node, ...]:
        """Both numbers."""
        return (self.left, self.right)

    def value(self, facts: Facts) -> Value:
        """Returns None where one of the numbers is missing, or the result is none."""
        left, right = _number(self.left.value(facts)), _number(self.right.value(facts))
        if left is None or right is None:
            return None
        try:
            return _CALCULATE[self.sign](left, right)
        except ArithmeticError:  # by zero, or past the largest float
            return None


@dataclass(frozen=True, slots=True)
class Compared:
    """A chain of comparisons, `0.2 < x <= 0.5`: each must hold."""

    operands: tuple[Node, ...]
    signs: tuple[str, ...]
    kind: ValueKind = "truth"

    @property
    def parts(self) -> tuple[Node, ...]:
        """What is compared."""
        return self.operands

    def value(self, facts: Facts) -> Value:
        """Returns false where a value is missing, or the two are of different kinds."""
        values = [operand.value(facts) for operand in self.operands]
        pairs = zip(values, self.signs, values[1:], strict=False)
        return all(_holds(left, sign, right) for left, sign, right in pairs)


@dataclass(frozen=True, slots=True)
class Alike:
    """A text held against a pattern."""

    of: Node
    pattern: re.Pattern[str]
    kind: ValueKind = "truth"

    @property
    def parts(self) -> tuple[Node, ...]:
        """The text."""
        return (self.of,)

    def value(self, facts: Facts) -> Value:
        """Returns false where there is no text."""
        text = self.of.value(facts)
        return isinstance(text, str) and self.pattern.search(text) is not None


@dataclass(frozen=True, slots=True)
class Among:
    """Whether a value is one of a list."""

    of: Node
    choices: tuple[float | str | bool, ...]
    kind: ValueKind = "truth"

    @property
    def parts(self) -> tuple[Node, ...]:
        """The value."""
        return (self.of,)

    def value(self, facts: Facts) -> Value:
        """Returns false where there is no value."""
        found = self.of.value(facts)
        return any(_holds(found, "==", choice) for choice in self.choices)


@dataclass(frozen=True, slots=True)
class Joined:
    """Conditions of which all (`and`) or one (`or`) must hold."""

    word: str
    parts: tuple[Node, ...]
    kind: ValueKind = "truth"

    def value(self, facts: Facts) -> Value:
        """Looks at no more of them than it must."""
        judge = all if self.word == "and" else any
        return judge(bool(part.value(facts)) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Not:
    """A condition that must not hold."""

    of: Node
    kind: ValueKind = "truth"

    @property
    def parts(self) -> tuple[Node, ...]:
        """The condition."""
        return (self.of,)

    def value(self, facts: Facts) -> Value:
        """Returns true where there is no value."""
        return not self.of.value(facts)


def walk(node: Node) -> Iterator[Node]:
    """Yields the node and all that it is made of."""
    yield node
    for part in node.parts:
        yield from walk(part)


def _number(value: Value) -> float | None:
    return value if isinstance(value, float | int) and not isinstance(value, bool) else None


def _family(value: Value) -> type:
    return float if _number(value) is not None else type(value)


def _holds(left: Value, sign: str, right: Value) -> bool:
    if left is None or right is None or _family(left) is not _family(right):
        return False
    return _COMPARE[sign](left, right)
