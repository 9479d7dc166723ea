"""A place among the tokens of a text, and the errors that name it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prelabel.routing.tokens import RuleError, Token, read_tokens

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
