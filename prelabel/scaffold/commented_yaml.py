"""Lines of YAML with a comment beside each key, the comment taken from the config's own descriptions."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Literal, get_args, get_origin

import yaml
from pydantic import BaseModel

COMMENT_COLUMN, WIDTH = 34, 120


def field(section: type[BaseModel], key: str, value: object) -> str:
    """Returns a key of a section with a value, and what the config says of it."""
    return entry(key, value, description(section, key))


def idle_field(section: type[BaseModel], key: str, value: object) -> str:
    """Returns a key of a section that is switched off by a `#` before it, the value an example."""
    return entry(f"# {key}", value, description(section, key))


def description(section: type[BaseModel], key: str) -> str:
    """Returns what the config says of a key, with the values that it may have."""
    known = section.model_fields[key]
    said = known.description or ""
    values = get_args(known.annotation) if get_origin(known.annotation) is Literal else ()
    if len(values) < 2 or all(str(value) in said for value in values):
        return said
    return f"{' | '.join(map(str, values))}: {said}"


def entry(key: str, value: object, why: str, *, indent: int = 2) -> str:
    """Returns a key, its value and why it is there; a comment that is too long stands above."""
    line = f"{'':{indent}}{key}: {yaml_text(value)}"
    if not why:
        return line
    commented = f"{line:<{COMMENT_COLUMN}}# {why}" if len(line) < COMMENT_COLUMN else f"{line}  # {why}"
    return commented if len(commented) <= WIDTH else f"{comment(why, indent=indent)}\n{line}"


def comment(text: str, *, indent: int = 0) -> str:
    """Returns comment lines; where the text is indented, the lines that follow are too."""
    margin = f"{'':{indent}}# "
    hang = margin + " " * (len(text) - len(text.lstrip()))
    return textwrap.fill(
        text, WIDTH, initial_indent=margin, subsequent_indent=hang, break_long_words=False, break_on_hyphens=False
    )


def yaml_text(value: object) -> str:
    r"""Returns a value as YAML in one line.

    >>> yaml_text("clips/*.mp4"), yaml_text("no"), yaml_text({"A b": 0.5})
    ('clips/*.mp4', "'no'", '{A b: 0.5}')
    >>> print(yaml_text("two\nlines"))
    "two\nlines"
    """
    plain = _dump(value, None)
    return plain if plain.isprintable() else _dump(value, '"')  # only in double quotes is a line break escaped


def one_line(value: object) -> str:
    """Returns text that cannot leave the comment that it stands in."""
    words = " ".join(str(value).split())
    return "".join(letter for letter in words if letter.isprintable())


def quoted(names: Iterable[str]) -> str:
    """Returns names for a comment: 'a', 'b'."""
    return ", ".join(f"'{one_line(name)}'" for name in names)


def _dump(value: object, style: str | None) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, default_style=style, width=10**6, allow_unicode=True)
    return text.removesuffix("...\n").strip()
