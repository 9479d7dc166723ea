"""Renders pages from the templates in this package."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from prelabel.reports.wording import counted, duration, file_size


@dataclass(frozen=True, slots=True)
class Figure:
    """A number at the top of a page.

    Attributes:
        name: of the number.
        value: the number.
        note: shown smaller, below the number.
    """

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Bar:
    """A line of a bar chart.

    Attributes:
        name: of the line.
        value: the number that the bar shows.
        share: of the bar's full length, 0..1.
        colour: `#RRGGBB`; empty: the page's own.
    """

    name: str
    value: float
    share: float
    colour: str = ""


def bars(counts: Mapping[str, int], colours: Mapping[str, str] | None = None) -> tuple[Bar, ...]:
    """Returns a bar for each count; the largest has the full length."""
    most = max(counts.values(), default=1)
    return tuple(Bar(name, number, number / most, (colours or {}).get(name, "")) for name, number in counts.items())


def render_page(template: str, **values: object) -> str:
    """Returns a page as HTML; every text in it is escaped.

    Args:
        template: name of a file in `templates`.
        values: names in the template.
    """
    return _environment().get_template(template).render(values)


def safe_colour(text: str) -> str:
    """Returns a colour that is safe in a style attribute; grey for all but `#RRGGBB`.

    >>> safe_colour("#FF8000"), safe_colour("red; background: url(https://example.com)")
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
        colour=safe_colour,
        duration=duration,
        counted=counted,
        size=file_size,
        percent=lambda share: f"{share:.0%}",
        thousands=lambda num: f"{num:,}",
    )
    return environment
