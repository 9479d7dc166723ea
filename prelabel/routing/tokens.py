"""A rule's text as tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

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
