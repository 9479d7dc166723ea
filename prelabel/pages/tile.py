"""A figure that stands large on a page."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tile:
    """A figure with its name, and what it means in smaller letters."""

    name: str
    value: str
    note: str = ""
