"""Rules as data: conditions and numbers, read from text and asked of what was found."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prelabel.errors import did_you_mean
from prelabel.routing.expressions import (
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
    Facts,
    Joined,
    Literally,
    Metadata,
    Negative,
    Node,
    Not,
    Property,
    RuleError,
    Token,
    ValueKind,
    read_tokens,
    walk,
)

MAX_DEPTH = 40


class Cursor:
    """Goes over a text's tokens from front to back.

    Raises:
        RuleError: the text is not made of tokens.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = read_tokens(text)
        self._place = 0
        self._depth = 0

    @property
    def next(self) -> Token:
        """The token that comes next; the last is the end, which never goes by."""
        return self._tokens[self._place]

    def advance(self) -> Token:
        """Takes the next token, whatever it is."""
        token = self.next
        self._place = min(self._place + 1, len(self._tokens) - 1)
        return token

    def take(self, value: str) -> bool:
        """Takes the next token if it is this one, a name or a sign."""
        found = self.next.value == value and self.next.kind in ("name", "sign")
        if found:
            self.advance()
        return found

    def expect(self, value: str) -> None:
        """Takes the next token.

        Raises:
            RuleError: it is not this one.
        """
        if not self.take(value):
            raise self.unexpected(repr(value))

    @contextmanager
    def deeper(self) -> Iterator[None]:
        """Goes one deeper into what is nested, until the block is left.

        Raises:
            RuleError: that is too deep.
        """
        if self._depth == MAX_DEPTH:
            raise self.error(self.next, f"is nested more than {MAX_DEPTH} deep")
        self._depth += 1
        yield
        self._depth -= 1

    def unexpected(self, wanted: str) -> RuleError:
        """Returns that something else was to come next."""
        return self.error(self.next, f"got {self.next}, expected {wanted}")

    def error(self, token: Token, complaint: str) -> RuleError:
        """Returns what is wrong with a token, and where it is."""
        return RuleError(self._text, token.column, complaint)


_WORDS = (*TEXT_PROPERTIES, *NUMBER_PROPERTIES, *COUNTS, "has", "confidence", "metadata")
_RESERVED = ("and", "or", "not", "in", "true", "false", *PATTERNS)
_STATISTICS = ("min", "max", "mean", "median", "p10")
_KINDS: dict[ValueKind, str] = {"number": "a number", "text": "a text", "truth": "true or false", "any": "any value"}


class Parser:
    """Reads one text, from front to back, by the grammar above: a method a line of it."""

    def __init__(self, text: str) -> None:
        self._at = Cursor(text)

    def whole(self, kind: ValueKind) -> Node:
        """Returns what the text says, which is to be of this kind.

        Raises:
            RuleError: it cannot be read, or is of another kind.
        """
        first = self._at.next
        if first.kind == "end":
            raise self._at.error(first, "there is nothing")
        node = self._want(self._condition(), kind, first)
        if self._at.next.kind != "end":
            raise self._at.unexpected("an operator or the end")
        return node

    # Conditions

    def _condition(self) -> Node:
        return self._joined("or", lambda: self._joined("and", self._one))

    def _joined(self, word: str, part: Callable[[], Node]) -> Node:
        first = self._at.next
        parts = [part()]
        while self._at.take(word):
            self._want(parts[-1], "truth", first)
            first = self._at.next
            parts.append(self._want(part(), "truth", first))
        return parts[0] if len(parts) == 1 else Joined(word, tuple(parts))

    def _one(self) -> Node:
        if not self._at.take("not"):
            return self._comparison()
        first = self._at.next
        with self._at.deeper():
            return Not(self._want(self._one(), "truth", first))

    def _comparison(self) -> Node:
        first = self._at.next
        operands, signs = [self._sum()], []
        negated = self._at.next.value == "not" and self._at.next.kind == "name"
        if negated:
            self._at.advance()
        if self._at.next.kind == "name" and self._at.next.value in (*PATTERNS, "in"):
            held = self._held_against(operands[0], first)
            return Not(held) if negated else held
        if negated:
            raise self._at.error(self._at.next, f"got {self._at.next} after 'not', expected in, like or matches")
        while self._at.next.kind == "sign" and self._at.next.value in COMPARISONS:
            sign = self._at.advance()
            signs.append(sign.value)
            operands.append(self._sum())
            self._comparable(operands[-2], operands[-1], sign)
        return Compared(tuple(operands), tuple(signs)) if signs else operands[0]

    def _comparable(self, left: Node, right: Node, sign: Token) -> None:
        kinds = {left.kind, right.kind} - {"any"}
        if len(kinds) > 1:
            raise self._at.error(sign, f"compares {_KINDS[left.kind]} with {_KINDS[right.kind]}")
        if kinds & {"text", "truth"} and sign.value not in ("==", "!="):
            raise self._at.error(sign, f"orders {_KINDS[kinds.pop()]}: only == and != compare these")

    def _held_against(self, node: Node, first: Token) -> Node:
        operator = self._at.advance()
        if operator.value == "in":
            return Among(node, self._choices(node))
        self._want(node, "text", first)
        pattern = self._at.advance()
        if pattern.kind != "text":
            raise self._at.error(pattern, f"got {pattern} after {operator}, expected a text in quotes")
        written = rf"\A{fnmatch.translate(pattern.value)}" if operator.value == "like" else pattern.value
        try:
            return Alike(node, re.compile(written))
        except (re.error, OverflowError, RecursionError) as error:
            raise self._at.error(pattern, f"is no regular expression: {error}") from error

    def _choices(self, node: Node) -> tuple[float | str | bool, ...]:
        self._at.expect("[")
        choices: list[float | str | bool] = []
        while not choices or self._at.take(","):
            first = self._at.next
            choice = self._signed()
            if isinstance(choice, Negative) and isinstance(choice.of, Literally):
                choice = Literally(-float(choice.of.is_))
            if not isinstance(choice, Literally):
                raise self._at.error(first, f"got {first}, expected a number or a text in quotes")
            self._comparable(node, choice, Token("sign", "==", first.column))
            choices.append(choice.is_)
        self._at.expect("]")
        return tuple(choices)

    # Numbers

    def _sum(self) -> Node:
        return self._calculated("+-", lambda: self._calculated("*/", self._signed))

    def _calculated(self, signs: str, part: Callable[[], Node]) -> Node:
        first = self._at.next
        node = part()
        while self._at.next.kind == "sign" and self._at.next.value in signs:
            sign = self._at.advance()
            left, first_of_right = self._want(node, "number", first), self._at.next
            node = Calculated(sign.value, left, self._want(part(), "number", first_of_right))
        return node

    def _signed(self) -> Node:
        if self._at.take("-"):
            first = self._at.next
            with self._at.deeper():
                return Negative(self._want(self._signed(), "number", first))
        token = self._at.advance()
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
                with self._at.deeper():
                    node = self._condition()
                self._at.expect(")")
                return node
        raise self._at.error(token, f"got {token}, expected a value")

    # Words

    def _word(self, token: Token) -> Node:
        match token.value:
            case "metadata":
                return Metadata(self._keys())
            case "confidence":
                classes = self._classes()
                return Counted(self._statistic(), classes)
            case "has" if self._at.next.value != "(":
                raise self._at.error(self._at.next, "has: which class? has(Person)")
            case name if name in (*COUNTS, "has"):
                return Counted(name, self._classes())
            case name if name in (*TEXT_PROPERTIES, *NUMBER_PROPERTIES):
                return Property(name)
        raise self._at.error(token, f"no word {token}: {did_you_mean(token.value, (*_WORDS, *_RESERVED))}")

    def _classes(self) -> tuple[str, ...]:
        if not self._at.take("("):
            return ()
        classes = [self._class()]
        while self._at.take(","):
            classes.append(self._class())
        self._at.expect(")")
        return tuple(classes)

    def _class(self) -> str:
        if self._at.next.kind == "text":
            return self._at.advance().value
        words = []
        while self._at.next.kind in ("name", "number"):
            words.append(self._at.advance().value)
        if not words:
            raise self._at.error(
                self._at.next, f"got {self._at.next}, expected a class; in quotes if it is not plain words"
            )
        return " ".join(words)

    def _statistic(self) -> str:
        self._at.expect(".")
        token = self._at.advance()
        if token.value == "median":
            return "p50"
        percentile = re.fullmatch(r"p(\d{1,3})", token.value)
        if token.value in ("min", "max", "mean") or (percentile and int(percentile[1]) <= 100):
            return token.value
        raise self._at.error(
            token,
            f"got {token} after 'confidence.', {did_you_mean(token.value, _STATISTICS)} (p0 to p100: percentiles)",
        )

    def _keys(self) -> tuple[str, ...]:
        keys: list[str] = []
        while self._at.next.value in (".", "[") and self._at.next.kind == "sign":
            opening = self._at.advance()
            key = self._at.advance()
            if key.kind != ("name" if opening.value == "." else "text"):
                raise self._at.error(key, f'got {key}, expected a key: metadata.camera or metadata["camera 1"]')
            keys.append(key.value)
            if opening.value == "[":
                self._at.expect("]")
        if not keys:
            raise self._at.error(self._at.next, "metadata: which key? metadata.camera")
        return tuple(keys)

    def _want(self, node: Node, kind: ValueKind, first: Token) -> Node:
        """Returns the node if it is of this kind; `first` is where it began."""
        if node.kind not in (kind, "any"):
            raise self._at.error(first, f"is {_KINDS[node.kind]}, expected {_KINDS[kind]}")
        return node


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

    >>> from prelabel.routing.expressions import Facts
    >>> parse_condition('title like "night_*" and count == 0').holds(Facts("night_04.mp4"))
    True
    >>> parse_condition("cout == 0")
    Traceback (most recent call last):
    prelabel.routing.expressions.RuleError: 'cout == 0', column 1: no word 'cout': did you mean 'count'?
    """
    return Expression(text, Parser(text).whole("truth"))


def parse_number(text: str) -> Expression:
    """Returns an expression that comes to a number.

    Raises:
        RuleError: it cannot be read, or is none; column and nearest known word are named.

    >>> from prelabel.routing.expressions import Facts
    >>> parse_number("1 - count / 4").number(Facts("a.mp4"))
    1.0
    """
    return Expression(text, Parser(text).whole("number"))
