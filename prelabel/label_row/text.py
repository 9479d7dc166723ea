"""A label row as JSON text in pieces: its whole text would take as much memory again as the row."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

FRAMES_DEPTH = 4  # row, data units, unit, labels by frame


def json_pieces(value: Any, depth: int = FRAMES_DEPTH) -> Iterator[str]:
    """Yields what `json.dumps(value)` returns, in pieces.

    Args:
        value: of plain JSON types.
        depth: levels of objects that are taken apart; what lies deeper comes in one piece.

    >>> "".join(json_pieces({"a": {"b": [1, 2]}, "c": {}}))
    '{"a": {"b": [1, 2]}, "c": {}}'
    """
    if depth == 0 or not isinstance(value, dict) or not value:
        yield json.dumps(value)
        return
    opening = "{"
    for key, inner in value.items():
        yield f"{opening}{json.dumps(key)}: "
        yield from json_pieces(inner, depth - 1)
        opening = ", "
    yield "}"
