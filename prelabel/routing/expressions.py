"""Rules as data: conditions and numbers, read from text and asked of what was found."""

from __future__ import annotations

from dataclasses import dataclass

from prelabel.routing.facts import Facts
from prelabel.routing.nodes import Counted, Metadata, Node, walk
from prelabel.routing.parser import Parser


@dataclass(frozen=True, slots=True)
class Expression:
    """A rule's condition or a number, read and checked.

    Attributes:
        text: as it was written.
        root: what it says.
    """

    text: str
    root: Node

    def holds(self, facts: Facts) -> bool:
        """Tells whether it is so; what has no value is not."""
        return bool(self.root.value(facts))

    def number(self, facts: Facts) -> float | None:
        """Returns the number that it comes to; None where there is none, as of a mean of nothing."""
        value = self.root.value(facts)
        return float(value) if isinstance(value, float | int) and not isinstance(value, bool) else None

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that it names, in their order."""
        named = [name for node in walk(self.root) if isinstance(node, Counted) for name in node.classes]
        return tuple(dict.fromkeys(named))

    @property
    def asks_metadata(self) -> bool:
        """Whether it looks at the client metadata."""
        return any(isinstance(node, Metadata) for node in walk(self.root))


def parse_condition(text: str) -> Expression:
    """Returns a condition.

    Raises:
        RuleError: it cannot be read, or is none; column and nearest known word are named.

    >>> from prelabel.routing.facts import Facts
    >>> parse_condition('title like "night_*" and count == 0').holds(Facts("night_04.mp4"))
    True
    >>> parse_condition("confidnce.p10 < 0.4")
    Traceback (most recent call last):
    prelabel.routing.tokens.RuleError: 'confidnce.p10 < 0.4', column 1: no word 'confidnce': did you mean 'confidence'?
    """
    return Expression(text, Parser(text).whole("truth"))


def parse_number(text: str) -> Expression:
    """Returns an expression that comes to a number.

    Raises:
        RuleError: it cannot be read, or is none; column and nearest known word are named.

    >>> from prelabel.routing.facts import Facts
    >>> parse_number("1 - count / 4").number(Facts("a.mp4"))
    1.0
    """
    return Expression(text, Parser(text).whole("number"))
