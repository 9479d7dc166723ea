"""A label row as JSON text in pieces: its whole text would take as much memory again as the row."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

_FEW = 64
FRAMES_DEPTH = 4  # row, data units, unit, labels by frame


def json_pieces(value: Any, depth: int = FRAMES_DEPTH) -> Iterator[str]:
    """Yields what `json.dumps(value)` returns, in pieces.

    Args:
        value: of plain JSON types.
        depth: levels of objects that are taken apart; what lies deeper comes in one piece, and so does what is small.

    >>> "".join(json_pieces({"a": {"b": [1, 2]}, "c": {}}))
    '{"a": {"b": [1, 2]}, "c": {}}'
    """
    if depth == 0 or _is_small(value, depth):
        yield json.dumps(value)
        return
    opening = "{"
    for key, inner in value.items():
        yield f"{opening}{json.dumps(key)}: "
        yield from json_pieces(inner, depth - 1)
        opening = ", "
    yield "}"


def _is_small(value: Any, depth: int) -> bool:
    """Tells whether no object in the first levels has more than a few members: a picture's row has none."""
    if depth == 0 or not isinstance(value, dict):
        return True
    if len(value) > _FEW:
        return False
    return all(_is_small(inner, depth - 1) for inner in value.values() if isinstance(inner, dict))
