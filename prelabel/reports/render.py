"""From a template and its values to a page."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with its name, and what it means in smaller letters."""

    name: str
    value: str
    note: str = ""


def render_page(template: str, values: object) -> str:
    """Returns a page; every text in it is escaped.

    Args:
        template: name of a file in `templates`.
        values: the template's `page`.
    """
    return _environment().get_template(template).render(page=values)


def duration(seconds: float) -> str:
    """Returns a time as people write it.

    >>> [duration(value) for value in (0.42, 7.3, 75, 4000)]
    ['0.4 s', '7.3 s', '1:15', '1:06:40']
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def counted(num: int, one: str, many: str | None = None) -> str:
    """Returns a number with its noun.

    >>> counted(1, "box", "boxes"), counted(2000, "frame")
    ('1 box', '2,000 frames')
    """
    return f"{num:,} {one if num == 1 else many or one + 's'}"


def size(num_bytes: int) -> str:
    """Returns a size as people write it, in multiples of 1000.

    >>> [size(num) for num in (940, 52_300, 4_180_000)]
    ['1 kB', '52 kB', '4.2 MB']
    """
    return f"{num_bytes / 1e6:.1f} MB" if num_bytes >= 1e6 else f"{num_bytes / 1e3:.0f} kB"


def colour(text: str) -> str:
    """Returns a colour that may stand in a style; grey for what is no `#RRGGBB`.

    >>> colour("#FF8000"), colour("red; background: url(https://example.com)")
    ('#FF8000', '#888888')
    """
    return text if re.fullmatch("#[0-9A-Fa-f]{6}", text) else "#888888"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("prelabel.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        colour=colour,
        duration=duration,
        counted=counted,
        size=size,
        percent=lambda share: f"{share:.0%}",
        thousands=lambda num: f"{num:,}",
    )
    return environment
