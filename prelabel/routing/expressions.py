"""Rules as data: a small language of comparisons, read by a parser of its own and checked before anything runs.

condition  = all-of { "or" all-of }           all-of = one { "and" one }          one = [ "not" ] comparison
comparison = sum { ("==" | "!=" | "<" | "<=" | ">" | ">=") sum }
           | sum [ "not" ] ("like" | "matches") TEXT
           | sum [ "not" ] "in" "[" constant { "," constant } "]"
sum        = product { ("+" | "-") product }  product = signed { ("*" | "/") signed }
signed     = [ "-" ] signed | NUMBER | TEXT | "true" | "false" | "(" condition ")" | word
word       = property | ("has" | "count" | "boxes" | "frame_share") [ classes ]
           | "confidence" [ classes ] "." ("min" | "max" | "mean" | "median" | "p" 0…100)
           | "metadata" ( "." NAME | "[" TEXT "]" ) …
classes    = "(" class { "," class } ")"      a class is words, or a TEXT where it holds other signs
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from dataclasses import dataclass

from prelabel.errors import did_you_mean
from prelabel.routing.facts import Facts
from prelabel.routing.nodes import (
    COMPARISONS,
    COUNTS,
    NUMBER_PROPERTIES,
    PATTERNS,
    TEXT_PROPERTIES,
    Alike,
    Among,
    Calculated,
    Compared,
    Counted,
    Joined,
    Literally,
    Metadata,
    Negative,
    Node,
    Not,
    Property,
    ValueKind,
    walk,
)
from prelabel.routing.tokens import RuleError, Token, read_tokens

MAX_DEPTH = 40
_WORDS = (*TEXT_PROPERTIES, *NUMBER_PROPERTIES, *COUNTS, "has", "confidence", "metadata")
_RESERVED = ("and", "or", "not", "in", "true", "false", *PATTERNS)
_STATISTICS = ("min", "max", "mean", "median", "p10")
_KINDS: dict[ValueKind, str] = {"number": "a number", "text": "a text", "truth": "true or false", "any": "any value"}


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
    parser = _Parser(text)
    return Expression(text, parser.whole("truth"))


def parse_number(text: str) -> Expression:
    """Returns an expression that comes to a number.

    Raises:
        RuleError: it cannot be read, or is none; column and nearest known word are named.

    >>> from prelabel.routing.facts import Facts
    >>> parse_number("1 - count / 4").number(Facts("a.mp4"))
    1.0
    """
    parser = _Parser(text)
    return Expression(text, parser.whole("number"))


class _Parser:
    """Reads one text, from front to back, by the grammar above: a method a line of it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = read_tokens(text)
        self._place = 0
        self._depth = 0

    def whole(self, kind: ValueKind) -> Node:
        first = self._next
        if first.kind == "end":
            raise self._error(first, "there is nothing")
        node = self._want(self._condition(), kind, first)
        if self._next.kind != "end":
            raise self._error(self._next, f"got {self._next}, expected an operator or the end")
        return node

    # Conditions

    def _condition(self) -> Node:
        return self._joined("or", lambda: self._joined("and", self._one))

    def _joined(self, word: str, part: Callable[[], Node]) -> Node:
        first = self._next
        parts = [part()]
        while self._take(word):
            self._want(parts[-1], "truth", first)
            first = self._next
            parts.append(self._want(part(), "truth", first))
        return parts[0] if len(parts) == 1 else Joined(word, tuple(parts))

    def _one(self) -> Node:
        if not self._take("not"):
            return self._comparison()
        first = self._next
        return Not(self._want(self._deeper(self._one), "truth", first))

    def _comparison(self) -> Node:
        first = self._next
        operands, signs = [self._sum()], []
        negated = self._next.value == "not" and self._next.kind == "name"
        if negated:
            self._place += 1
        if self._next.kind == "name" and self._next.value in (*PATTERNS, "in"):
            held = self._held_against(operands[0], first)
            return Not(held) if negated else held
        if negated:
            raise self._error(self._next, f"got {self._next} after 'not', expected in, like or matches")
        while self._next.kind == "sign" and self._next.value in COMPARISONS:
            sign = self._advance()
            signs.append(sign.value)
            operands.append(self._sum())
            self._comparable(operands[-2], operands[-1], sign)
        return Compared(tuple(operands), tuple(signs)) if signs else operands[0]

    def _comparable(self, left: Node, right: Node, sign: Token) -> None:
        kinds = {left.kind, right.kind} - {"any"}
        if len(kinds) > 1:
            raise self._error(sign, f"compares {_KINDS[left.kind]} with {_KINDS[right.kind]}")
        if kinds & {"text", "truth"} and sign.value not in ("==", "!="):
            raise self._error(sign, f"orders {_KINDS[kinds.pop()]}: only == and != compare these")

    def _held_against(self, node: Node, first: Token) -> Node:
        operator = self._advance()
        if operator.value == "in":
            return Among(node, self._choices(node))
        self._want(node, "text", first)
        pattern = self._advance()
        if pattern.kind != "text":
            raise self._error(pattern, f"got {pattern} after {operator}, expected a text in quotes")
        written = rf"\A{fnmatch.translate(pattern.value)}" if operator.value == "like" else pattern.value
        try:
            return Alike(node, re.compile(written))
        except (re.error, OverflowError, RecursionError) as error:
            raise self._error(pattern, f"is no regular expression: {error}") from error

    def _choices(self, node: Node) -> tuple[float | str | bool, ...]:
        self._expect("[")
        choices: list[float | str | bool] = []
        while not choices or self._take(","):
            first = self._next
            choice = self._signed()
            if isinstance(choice, Negative) and isinstance(choice.of, Literally):
                choice = Literally(-float(choice.of.is_))
            if not isinstance(choice, Literally):
                raise self._error(first, f"got {first}, expected a number or a text in quotes")
            self._comparable(node, choice, Token("sign", "==", first.column))
            choices.append(choice.is_)
        self._expect("]")
        return tuple(choices)

    # Numbers

    def _sum(self) -> Node:
        return self._calculated("+-", lambda: self._calculated("*/", self._signed))

    def _calculated(self, signs: str, part: Callable[[], Node]) -> Node:
        first = self._next
        node = part()
        while self._next.kind == "sign" and self._next.value in signs:
            sign = self._advance()
            left, first_of_right = self._want(node, "number", first), self._next
            node = Calculated(sign.value, left, self._want(part(), "number", first_of_right))
        return node

    def _signed(self) -> Node:
        if self._take("-"):
            first = self._next
            return Negative(self._want(self._deeper(self._signed), "number", first))
        token = self._advance()
        match token.kind:
            case "number":
                return Literally(float(token.value))
            case "text":
                return Literally(token.value)
            case "name" if token.value in ("true", "false"):
                return Literally(token.value == "true")
            case "name":
                return self._word(token)
            case "sign" if token.value == "(":
                node = self._deeper(self._condition)
                self._expect(")")
                return node
        raise self._error(token, f"got {token}, expected a value")

    # Words

    def _word(self, token: Token) -> Node:
        match token.value:
            case "metadata":
                return Metadata(self._keys())
            case "confidence":
                classes = self._classes()
                return Counted(self._statistic(), classes)
            case "has" if self._next.value != "(":
                raise self._error(self._next, "has: which class? has(Person)")
            case name if name in (*COUNTS, "has"):
                return Counted(name, self._classes())
            case name if name in (*TEXT_PROPERTIES, *NUMBER_PROPERTIES):
                return Property(name)
        raise self._error(token, f"no word {token}: {did_you_mean(token.value, (*_WORDS, *_RESERVED))}")

    def _classes(self) -> tuple[str, ...]:
        if not self._take("("):
            return ()
        classes = [self._class()]
        while self._take(","):
            classes.append(self._class())
        self._expect(")")
        return tuple(classes)

    def _class(self) -> str:
        if self._next.kind == "text":
            return self._advance().value
        words = []
        while self._next.kind in ("name", "number"):
            words.append(self._advance().value)
        if not words:
            raise self._error(self._next, f"got {self._next}, expected a class; in quotes if it is not plain words")
        return " ".join(words)

    def _statistic(self) -> str:
        self._expect(".")
        token = self._advance()
        if token.value == "median":
            return "p50"
        percentile = re.fullmatch(r"p(\d{1,3})", token.value)
        if token.value in ("min", "max", "mean") or (percentile and int(percentile[1]) <= 100):
            return token.value
        raise self._error(
            token,
            f"got {token} after 'confidence.', {did_you_mean(token.value, _STATISTICS)} (p0 to p100: percentiles)",
        )

    def _keys(self) -> tuple[str, ...]:
        keys: list[str] = []
        while self._next.value in (".", "[") and self._next.kind == "sign":
            opening = self._advance()
            key = self._advance()
            if key.kind != ("name" if opening.value == "." else "text"):
                raise self._error(key, f'got {key}, expected a key: metadata.camera or metadata["camera 1"]')
            keys.append(key.value)
            if opening.value == "[":
                self._expect("]")
        if not keys:
            raise self._error(self._next, "metadata: which key? metadata.camera")
        return tuple(keys)

    # Tokens

    @property
    def _next(self) -> Token:
        return self._tokens[self._place]

    def _advance(self) -> Token:
        token = self._next
        self._place = min(self._place + 1, len(self._tokens) - 1)
        return token

    def _take(self, value: str) -> bool:
        """Takes the next token if it is this one, a name or a sign."""
        found = self._next.value == value and self._next.kind in ("name", "sign")
        if found:
            self._advance()
        return found

    def _expect(self, value: str) -> None:
        if not self._take(value):
            raise self._error(self._next, f"got {self._next}, expected {value!r}")

    def _deeper(self, part: Callable[[], Node]) -> Node:
        if self._depth == MAX_DEPTH:
            raise self._error(self._next, f"is nested more than {MAX_DEPTH} deep")
        self._depth += 1
        node = part()
        self._depth -= 1
        return node

    def _want(self, node: Node, kind: ValueKind, first: Token) -> Node:
        """Returns the node if it is of this kind; `first` is where it began."""
        if node.kind not in (kind, "any"):
            raise self._error(first, f"is {_KINDS[node.kind]}, expected {_KINDS[kind]}")
        return node

    def _error(self, token: Token, complaint: str) -> RuleError:
        return RuleError(self._text, token.column, complaint)
