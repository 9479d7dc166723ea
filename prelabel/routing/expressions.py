"""Parses and evaluates routing rules, which are a small part of Python's expressions.

prelabel checks them when it loads the config. `ast.parse` reads the text, and `_Compiler` allows a short list of nodes.
Python never runs the text itself, so a config from a stranger cannot do harm.
"""

from __future__ import annotations

import ast
import fnmatch
import math
import operator
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, TypeAlias

from prelabel.errors import did_you_mean
from prelabel.routing.facts import Facts, Value

ValueKind: TypeAlias = Literal["number", "text", "truth", "any"]
"""The kind of a value. `any` is an entry of the metadata, whose type is known only when a task is evaluated."""

_KINDS: dict[ValueKind, str] = {"number": "a number", "text": "a text", "truth": "true or false", "any": "any value"}
_TEXT_PROPERTIES = ("title", "kind")
_NUMBER_PROPERTIES = ("width", "height", "num_frames", "fps", "duration_seconds")
_COUNTS = ("count", "boxes", "frame_share")
_WORDS = (
    *_TEXT_PROPERTIES, *_NUMBER_PROPERTIES, *_COUNTS, "has", "confidence", "metadata", "and", "or", "not", "in",
    "true", "false",
)  # fmt: skip
_EXAMPLES = {
    "has": "has(Person)",
    "confidence": "confidence.min",
    "metadata": 'metadata.camera or metadata["camera 1"]',
}
_A_CLASS = 'expected a class: has(Person, "Road sign")'
_STATISTICS = ("min", "max", "mean", "median", "p10")
_MEANT = {"=": "==", "&": "and", "|": "or", "!": "not", "≤": "<=", "≥": ">=", "≠": "!="}

# Compiling and evaluating use two calls for each level, and Python allows about 1,000 nested calls.
_MAX_DEPTH = 100
_MAX_CHARACTERS = 20_000

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_CALCULATE: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


class RuleError(ValueError):
    """Raised if a rule is not valid.

    Attributes:
        column: of the first wrong character, counted from 1.
    """

    def __init__(self, text: str, column: int, complaint: str) -> None:
        self.column = column
        super().__init__(f"{text!r}, column {column}: {complaint}")


@dataclass(frozen=True, slots=True)
class Expression:
    """A checked condition or number.

    Attributes:
        text: as written in the config.
        classes: the classes that it names, in their order, each once.
        uses_metadata: whether it reads client metadata.
    """

    text: str
    classes: tuple[str, ...]
    uses_metadata: bool
    _value: Callable[[Facts], Value] = field(repr=False, compare=False)

    def holds(self, facts: Facts) -> bool:
        """Returns whether the condition is true; a missing value counts as false."""
        return bool(self._value(facts))

    def number(self, facts: Facts) -> float | None:
        """Returns the number; None if a part of it is missing, such as the mean confidence of no boxes."""
        return _as_number(self._value(facts))


def parse_condition(text: str) -> Expression:
    """Returns the condition that a text contains.

    Raises:
        RuleError: the text is not a valid condition; the message names the column and the nearest known word.

    >>> parse_condition('title.like("night_*") and count == 0').holds(Facts("night_04.mp4"))
    True
    >>> parse_condition("cout == 0")
    Traceback (most recent call last):
    prelabel.routing.expressions.RuleError: 'cout == 0', column 1: unknown word 'cout': did you mean 'count'?
    """
    return _Compiler(text).expression("truth")


def parse_number(text: str) -> Expression:
    """Returns the expression that a text contains, whose value is a number.

    Raises:
        RuleError: the text is not valid, or its value is not a number. The message names the column and the nearest
            known word.

    >>> parse_number("1 - count / 4").number(Facts("a.mp4"))
    1.0
    """
    return _Compiler(text).expression("number")


@dataclass(frozen=True, slots=True)
class _Part:
    """A compiled node: the kind of its value, and the function that computes it."""

    kind: ValueKind
    value: Callable[[Facts], Value]


class _Compiler:
    """Compiles the nodes that rules may contain to functions of the facts, and refuses all others."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._indent = len(text) - len(text.lstrip())
        # YAML allows rules over several lines, Python does not. One space for each whitespace character keeps columns.
        self._line = re.sub(r"\s", " ", text.lstrip())
        self._classes: list[str] = []
        self._uses_metadata = False
        self._depth = 0

    def expression(self, kind: ValueKind) -> Expression:
        """Returns the checked expression; its value has this kind."""
        value = self._compile(self._parse(), kind).value
        return Expression(self._text, tuple(dict.fromkeys(self._classes)), self._uses_metadata, value)

    def _parse(self) -> ast.expr:
        if not self._line:
            self._fail(1, "the rule is empty")
        if len(self._text) > _MAX_CHARACTERS:
            self._fail(_MAX_CHARACTERS, f"the rule is longer than {_MAX_CHARACTERS:,} characters")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # Python only warns about unknown escapes such as "\d"
                root = ast.parse(self._line, mode="eval").body
        except SyntaxError as error:
            self._fail_on_syntax(error)
        except (MemoryError, RecursionError):  # what CPython's parser raises on deep nesting
            self._fail(1, f"is nested more than {_MAX_DEPTH} deep")
        except ValueError as error:  # half of a surrogate pair, or, before Python 3.11.4, a null byte
            self._fail(1, str(error))
        rest = self._line.encode()[root.end_col_offset :].decode().lstrip(" )")
        if rest:  # after "#", Python ignores the rest of the line, which may contain more lines of the rule
            self._fail(len(self._text) - len(rest) + 1, "comments are not part of a rule")
        return root

    def _fail_on_syntax(self, error: SyntaxError) -> NoReturn:
        at_end = error.offset == 0  # in CPython, this means "after the last character"
        column = len(self._text) + 1 if at_end else self._indent + (error.offset or 1)
        word = re.match(r"\w+|.?", self._text[column - 1 :])
        got = word.group() if word else ""
        if got in _MEANT:
            complaint = f"got {got!r}, did you mean {_MEANT[got]!r}?"
        elif got in ("like", "matches"):
            complaint = f'write title.{got}("…")'
        elif "forgot a comma" in error.msg:
            complaint = 'a class of several words needs quotes: has("Road sign", Car)'
        elif "escape" in error.msg:
            complaint = f'{error.msg}: put an r before the text, as in r"\\d", and it is taken as written'
        elif error.msg == "invalid syntax":
            complaint = f"got {got!r}, expected an operator or a value" if got.strip() else "the rule is not complete"
        else:
            complaint = error.msg
        self._fail(column, complaint)

    def _fail(self, place: int | ast.expr, complaint: str) -> NoReturn:
        """Raises a `RuleError` at a column, or at the first character of a node."""
        raise RuleError(self._text, place if isinstance(place, int) else self._column(place.col_offset), complaint)

    def _column(self, offset: int) -> int:
        """Returns the column in the text, counted from 1, of an offset of `ast`, in bytes of UTF-8 from 0."""
        return self._indent + len(self._line.encode()[:offset].decode()) + 1

    def _operator_column(self, left: ast.expr) -> int:
        """Returns the column of the operator after an operand, which `ast` does not give."""
        column = self._column(left.end_col_offset or 0)
        while self._text[column - 1].isspace() or self._text[column - 1] == ")":
            column += 1
        return column

    def _fail_on_operator(self, left: ast.expr) -> NoReturn:
        column = self._operator_column(left)
        sign = self._text[column - 1]
        hint = f"did you mean {_MEANT[sign]!r}?" if sign in _MEANT else "which is not an operator of rules"
        self._fail(column, f"got {sign!r}, {hint}")

    def _compile(self, node: ast.expr, expected: ValueKind = "any") -> _Part:
        """Returns the compiled node, after checking that its value has the expected kind."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            self._fail(node, f"is nested more than {_MAX_DEPTH} deep")
        match node:
            case ast.BoolOp():
                part = self._bool_op(node)
            case ast.UnaryOp(ast.Not() | ast.USub()):
                part = self._unary_op(node)
            case ast.BinOp():
                part = self._bin_op(node)
            case ast.Compare():
                part = self._compare(node)
            case ast.Call(ast.Attribute(_, "like" | "matches")):
                part = self._pattern(node)
            case ast.Attribute() | ast.Subscript() if keys := _metadata_keys(node):
                self._uses_metadata = True
                part = _Part("any", lambda facts: facts.metadata_entry(keys))
            case ast.Attribute(ast.Name("confidence") | ast.Call(ast.Name("confidence"))):
                part = self._confidence(node)
            case ast.Constant():
                part = self._constant(node)
            case _:
                part = self._word(node)
        self._depth -= 1
        if "any" not in (expected, part.kind) and part.kind != expected:
            self._fail(node, f"is {_KINDS[part.kind]}, expected {_KINDS[expected]}")
        return part

    def _bool_op(self, node: ast.BoolOp) -> _Part:
        parts = [self._compile(part, "truth") for part in node.values]
        judge = all if isinstance(node.op, ast.And) else any
        return _Part("truth", lambda facts: judge(part.value(facts) for part in parts))

    def _unary_op(self, node: ast.UnaryOp) -> _Part:
        if isinstance(node.op, ast.Not):
            condition = self._compile(node.operand, "truth")
            return _Part("truth", lambda facts: not condition.value(facts))
        number = self._compile(node.operand, "number")
        return _Part("number", lambda facts: _calculate(operator.sub, 0, number.value(facts)))

    def _bin_op(self, node: ast.BinOp) -> _Part:
        calculate = _CALCULATE.get(type(node.op))
        if calculate is None:
            self._fail_on_operator(node.left)
        left, right = self._compile(node.left, "number"), self._compile(node.right, "number")
        return _Part("number", lambda facts: _calculate(calculate, left.value(facts), right.value(facts)))

    def _compare(self, node: ast.Compare) -> _Part:
        """Returns a comparison or a chain, such as `0.2 < x <= 0.5`, in which each comparison must be true."""
        comparisons = []
        left = node.left
        for sign, right in zip(node.ops, node.comparators, strict=True):
            if isinstance(sign, ast.In | ast.NotIn):
                comparisons.append(self._membership(left, sign, right))
            else:
                comparisons.append(self._comparison(left, sign, right))
            left = right
        return _Part("truth", lambda facts: all(comparison(facts) for comparison in comparisons))

    def _comparison(self, left: ast.expr, sign: ast.cmpop, right: ast.expr) -> Callable[[Facts], bool]:
        compare = _COMPARE.get(type(sign))
        if compare is None:
            self._fail_on_operator(left)
        one, other = self._compile(left), self._compile(right)
        kinds = sorted({one.kind, other.kind} - {"any"})
        if len(kinds) > 1:
            self._fail(self._operator_column(left), f"compares {' with '.join(_KINDS[kind] for kind in kinds)}")
        if kinds not in ([], ["number"]) and not isinstance(sign, ast.Eq | ast.NotEq):
            self._fail(self._operator_column(left), f"orders {_KINDS[kinds[0]]}: only == and != compare these")
        return lambda facts: _holds(compare, one.value(facts), other.value(facts))

    def _membership(self, left: ast.expr, sign: ast.In | ast.NotIn, right: ast.expr) -> Callable[[Facts], bool]:
        if not isinstance(right, ast.List | ast.Tuple) or not right.elts:
            self._fail(right, 'expected a list: in ["Oslo", "Bergen"]')
        equal = [self._comparison(left, ast.Eq(), choice) for choice in right.elts]
        wanted = isinstance(sign, ast.In)
        return lambda facts: any(is_equal(facts) for is_equal in equal) is wanted

    def _pattern(self, node: ast.Call) -> _Part:
        match node:
            case ast.Call(ast.Attribute(of, test), [ast.Constant(str(pattern)) as written], []):
                text = self._compile(of, "text")
            case _:
                self._fail(node, 'expected a text in quotes: title.like("night_*")')
        if test == "matches" and not pattern.isprintable():  # "\b" without r is a backspace, which matches nothing
            self._fail(written, 'put an r before the text, as in r"\\d", and it is taken as written')
        try:
            found = re.compile(fnmatch.translate(pattern) if test == "like" else pattern)
        except (re.error, OverflowError, RecursionError) as error:
            self._fail(written, f"is not a regular expression: {error}")
        search = found.match if test == "like" else found.search

        def matches(facts: Facts) -> bool:
            value = text.value(facts)
            return isinstance(value, str) and search(value) is not None

        return _Part("truth", matches)

    def _confidence(self, node: ast.Attribute) -> _Part:
        statistic = node.attr
        percentile = re.fullmatch(r"p(\d{1,3})", statistic)
        if statistic not in _STATISTICS and not (percentile and int(percentile[1]) <= 100):
            hint = did_you_mean(statistic, _STATISTICS)
            self._fail(node, f"got {statistic!r} after 'confidence.', {hint} (p0 to p100: percentiles)")
        classes = self._class_names(node.value) if isinstance(node.value, ast.Call) else []
        return _Part("number", lambda facts: facts.confidence_at(statistic, classes))

    def _constant(self, node: ast.Constant) -> _Part:
        value = node.value
        if isinstance(value, bool):
            return _Part("truth", lambda _: value)
        if isinstance(value, str):
            return _Part("text", lambda _: value)
        number = _as_number(value)
        if number is None or number == math.inf:
            self._fail(node, f"got {self._written(node)}, expected a number of up to 308 digits, or a text in quotes")
        return _Part("number", lambda _: number)

    def _word(self, node: ast.expr) -> _Part:
        """Returns a property, a count or `has`; refuses any other node."""
        match node:
            case ast.Name("true" | "false" as word):
                return _Part("truth", lambda _: word == "true")
            case ast.Name(word) if word in (*_TEXT_PROPERTIES, *_NUMBER_PROPERTIES):
                kind: ValueKind = "text" if word in _TEXT_PROPERTIES else "number"
                return _Part(kind, lambda facts: facts.media_property(word))
            case ast.Name(word) if word in _COUNTS:
                return _Part("number", lambda facts: facts.count(word, []))
            case ast.Call(ast.Name(word)) if word in (*_COUNTS, "has"):
                classes = self._class_names(node)
                if word == "has":
                    return _Part("truth", lambda facts: facts.count("boxes", classes) != 0)
                return _Part("number", lambda facts: facts.count(word, classes))
            case ast.Name(word) | ast.Call(ast.Name(word)) if word in _EXAMPLES:
                self._fail(node, f"{word}: of what? {_EXAMPLES[word]}")
            case ast.Name(word) | ast.Call(ast.Name(word)):
                self._fail(node, f"unknown word {word!r}: {did_you_mean(word, _WORDS)}")
            case ast.Subscript():
                self._fail(node, f"expected a key in quotes: {_EXAMPLES['metadata']}")
        self._fail(node, f"got {self._written(node)}, which is not part of the rule language")

    def _class_names(self, call: ast.Call) -> list[str]:
        names = []
        for node in (*call.args, *(keyword.value for keyword in call.keywords)):
            match node:
                case ast.Name(name) | ast.Constant(str(name)) if not call.keywords:
                    names.append(name)
                case _:
                    self._fail(node, _A_CLASS)
        if not names:
            self._fail(self._column(call.end_col_offset or 0) - 1, _A_CLASS)
        self._classes += names
        return names

    def _written(self, node: ast.expr) -> str:
        return repr((ast.get_source_segment(self._line, node) or "")[:40])


def _metadata_keys(node: ast.expr) -> list[str]:
    """Returns the keys of a node such as `metadata.camera["id 1"]`; none for other nodes."""
    keys: list[str] = []
    while True:
        match node:
            case ast.Attribute(inner, key) | ast.Subscript(inner, ast.Constant(str(key))):
                keys.insert(0, key)
                node = inner
            case ast.Name("metadata"):
                return keys
            case _:
                return []


def _as_number(value: object) -> float | None:
    """Returns an int or a float as a float; None for other values, and for ints above the largest float."""
    try:
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    except OverflowError:
        return None


def _calculate(calculate: Callable[[float, float], float], left: Value, right: Value) -> float | None:
    a, b = _as_number(left), _as_number(right)
    if a is None or b is None:
        return None
    try:
        return calculate(a, b)
    except ArithmeticError:  # a division by zero, or a result above the largest float
        return None


def _holds(compare: Callable[[Any, Any], bool], left: Value, right: Value) -> bool:
    """Returns whether a comparison is true; False if a value is missing or the types differ."""
    types = {float if type(value) is int else type(value) for value in (left, right)}
    return left is not None and len(types) == 1 and compare(left, right)
