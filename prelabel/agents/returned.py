"""What a user's function returned, or did instead: where its task is to go, and how urgent it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import SupportsFloat
from uuid import UUID

from prelabel.errors import AnswerError


@dataclass(frozen=True, slots=True)
class Answer:
    """What a function says of a task.

    Attributes:
        pathway: name or uuid; None: the config says.
        priority: 0 to 1; None: the config says.
    """

    pathway: str | None = None
    priority: float | None = None


def read_answer(returned: object, use: str) -> Answer:
    """Returns what a function's return value says.

    Args:
        returned: a pathway's name or uuid, None, or an object with `pathway` and perhaps `label_row_priority`, as
            encord-agents has it.
        use: what errors call the function.

    Raises:
        AnswerError: it is none of these.

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
    """Returns a priority that a function set, None if it set none.

    Raises:
        AnswerError: it is not within 0 and 1.
    """
    if value is None:
        return None
    if isinstance(value, SupportsFloat) and not isinstance(value, bool) and 0 <= float(value) <= 1:
        return float(value)
    raise AnswerError(f"{use}: priority: got {value!r:.60}, expected a number from 0 to 1")
