"""Parts of an expression: each knows what kind of value it has, and finds it among the facts."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from prelabel.data.detections import VideoDetections
from prelabel.data.frames import VideoInfo
from prelabel.data.label_map import LabelMap

TokenKind = Literal["number", "text", "name", "sign", "end"]

_PATTERN = re.compile(
    r"""
      (?P<space>\s+)
    | (?P<number>\d+(?:\.\d+)?|\.\d+)
    | (?P<text>"[^"]*"|'[^']*')
    | (?P<name>[^\W\d]\w*)
    | (?P<sign>==|!=|<=|>=|[<>+\-*/()\[\],.])
    """,
    re.VERBOSE,
)
_MEANT = {"=": "==", "&": "and", "|": "or", "!": "not", "≤": "<=", "≥": ">=", "≠": "!="}


class RuleError(ValueError):
    """A rule that cannot be read.

    Attributes:
        column: of its first wrong character, from 1.
    """

    def __init__(self, text: str, column: int, complaint: str) -> None:
        self.column = column
        super().__init__(f"{text!r}, column {column}: {complaint}")


@dataclass(frozen=True, slots=True)
class Token:
    """A word of a rule.

    Attributes:
        kind: what it is; `end` follows the last.
        value: as it stands; of a quoted text what is between the quotes.
        column: of its first character, from 1.
    """

    kind: TokenKind
    value: str
    column: int

    def __str__(self) -> str:
        return "the end" if self.kind == "end" else repr(self.value)


def read_tokens(text: str) -> list[Token]:
    """Returns the tokens of a rule, the last of kind `end`.

    Raises:
        RuleError: at a character that begins no token.

    >>> [token.value for token in read_tokens("count(Car) >= 2")]
    ['count', '(', 'Car', ')', '>=', '2', '']
    """
    return [*_tokens(text), Token("end", "", len(text) + 1)]


def _tokens(text: str) -> Iterator[Token]:
    place = 0
    while place < len(text):
        match = _PATTERN.match(text, place)
        if match is None:
            raise RuleError(text, place + 1, _complaint(text[place]))
        value = match.group()
        match match.lastgroup:
            case "text":
                yield Token("text", value[1:-1], place + 1)
            case "number" | "name" | "sign" as kind:
                yield Token(kind, value, place + 1)
        place = match.end()


def _complaint(character: str) -> str:
    if character in "\"'":
        return "the text that begins here has no closing quote"
    hint = f": did you mean '{_MEANT[character]}'?" if character in _MEANT else ""
    return f"got {character!r}, which means nothing here{hint}"


Value: TypeAlias = float | str | bool | None
"""Of an expression; None: there is none."""


@dataclass(frozen=True, slots=True)
class Facts:
    """A task and what was found in it: columns of one row a box, after shaping.

    Attributes:
        title: the task's.
        info: of its media; None where nobody has opened them.
        metadata: the client metadata of the task's data.
        class_names: by index.
        class_index: int64 (N,).
        frame_index: int64 (N,).
        instance: int64 (N,), which object instance the box is of.
        confidence: float32 (N,); NaN where nobody measured one, as in the gaps of a track.
        num_frames_seen: frames that were looked at.
    """

    title: str
    info: VideoInfo | None = None
    metadata: Mapping[str, object] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    class_index: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    frame_index: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    instance: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    confidence: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    num_frames_seen: int = 0

    def property(self, name: str) -> Value:
        """Returns the title, or what is known of the media."""
        info = self.info
        if name == "title":
            return self.title
        if info is None:
            return None
        return {
            "kind": "video" if info.average_fps > 0 else "images",
            "width": info.width,
            "height": info.height,
            "num_frames": info.num_frames,
            "fps": info.average_fps,
            "duration_seconds": info.duration_seconds,
        }[name]

    def entry(self, keys: tuple[str, ...]) -> Value:
        """Returns an entry of the metadata, None where there is none or it is no plain value."""
        found: object = self.metadata
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found if isinstance(found, float | int | str) else None

    def count(self, classes: Collection[str]) -> int:
        """Returns how many object instances there are of some classes; of none named, of all."""
        return len(np.unique(self.instance[self._of(classes)]))

    def num_boxes(self, classes: Collection[str]) -> int:
        """Returns how many boxes there are, on all frames."""
        return int(self._of(classes).sum())

    def frame_share(self, classes: Collection[str]) -> float | None:
        """Returns the share of the frames looked at on which there is a box."""
        if not self.num_frames_seen:
            return None
        return min(1.0, len(np.unique(self.frame_index[self._of(classes)])) / self.num_frames_seen)

    def confidence_at(self, statistic: str, classes: Collection[str]) -> float | None:
        """Returns `min`, `max`, `mean`, or the percentile `p0` … `p100`, of the boxes' confidence; None without boxes.

        Percentiles between two boxes lie on a straight line, as `numpy.percentile` has it.
        """
        measured = self.confidence[self._of(classes)].astype(np.float64)
        measured = measured[~np.isnan(measured)]
        if not len(measured):
            return None
        if statistic == "mean":
            return float(measured.mean())
        percent = {"min": 0.0, "max": 100.0}.get(statistic)
        return float(np.percentile(measured, float(statistic[1:]) if percent is None else percent))

    def _of(self, classes: Collection[str]) -> NDArray[np.bool_]:
        if not classes:
            return np.ones(len(self.class_index), np.bool_)
        wanted = [index for index, name in enumerate(self.class_names) if name in classes]
        return np.isin(self.class_index, wanted)


def facts_of(
    title: str,
    info: VideoInfo,
    detections: VideoDetections,
    label_map: LabelMap,
    metadata: Mapping[str, object],
) -> Facts:
    """Returns what is known of a task whose detections were shaped; its classes are the ontology's objects."""
    return Facts(
        title=title,
        info=info,
        metadata=metadata,
        class_names=tuple(category.name for category in label_map.categories),
        class_index=label_map.category_index[detections.class_id],
        frame_index=detections.frame_index,
        instance=detections.instance,
        confidence=np.where(detections.interpolated, np.float32(np.nan), detections.confidence),
        num_frames_seen=len(detections.inferred_frames),
    )


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
