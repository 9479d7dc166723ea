"""Renders a config from a template. Important keys have values; all others are comments with their defaults."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Mapping
from functools import cache

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from prelabel.config.schema import BUILT_IN, describe_values, described_options
from prelabel.config.sections import Config

WIDTH, COMMENT_COLUMN = 120, 34


def render_config(**values: object) -> str:
    """Renders `config.yaml.j2` and returns the text of the config."""
    return _environment().get_template("config.yaml.j2").render(values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("prelabel.cli", "init"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["comment"] = comment
    environment.globals |= {"entry": entry, "keys": keys, "section": unused_section, "top_level": top_level}
    return environment


def keys(name: str, model: type[BaseModel], values: Mapping[str, object], leave_out: Collection[str] = ()) -> str:
    """Returns the keys of a section: keys with values first, then all others as comments.

    Args:
        name: name of the section.
        model: class whose fields are the section's keys. If `values` names a built-in plug-in, its options are added.
        values: values by key.
        leave_out: keys to omit.
    """
    known = dict(model.model_fields)
    for kind, names in BUILT_IN.items():
        if kind == name and values.get("use") in names:
            known |= described_options(kind, str(values["use"]))
    lines = [entry(key, value, describe_values(known[key]) if key in known else "") for key, value in values.items()]
    others = {key: field for key, field in known.items() if key not in values and key not in leave_out}
    return "\n".join(
        [*lines, *(entry(f"# {key}", _default(field), describe_values(field)) for key, field in others.items())]
    )


def unused_section(name: str, model: type[BaseModel]) -> str:
    """Returns a section with all its keys, as comments."""
    lines = [
        f"{name}:",
        *(entry(key, _default(field), describe_values(field)) for key, field in model.model_fields.items()),
    ]
    return "\n".join(f"# {line}" for line in "\n".join(lines).splitlines())


def top_level(*names: str) -> str:
    """Returns keys outside sections, such as `frames`, as comments."""
    fields = {name: Config.model_fields[name] for name in names}
    return "\n".join(entry(f"# {name}", _default(field), describe_values(field), 0) for name, field in fields.items())


def _default(field: FieldInfo) -> object:
    """Returns the example of a key, or else its default."""
    value = field.examples[0] if field.examples else field.get_default(call_default_factory=True)
    return to_jsonable_python(value, fallback=lambda _: "…")  # for a required key, which may have neither


def entry(key: str, value: object, why: str = "", indent: int = 2) -> str:
    """Returns a key with its value and its meaning as a comment, on the same line if it fits, or else above."""
    line = f"{'':{indent}}{key}: {yaml_text(value)}"
    if not why:
        return line
    whole = f"{line:<{COMMENT_COLUMN - 2}}  # {why}"
    return whole if len(whole) <= WIDTH - 2 else f"{comment(why, indent)}\n{line}"


def comment(text: object, indent: int = 0) -> str:
    """Returns text as comment lines. All lines have the same indentation as the text."""
    words = str(text)
    margin = f"{'':{indent}}# "
    hang = margin + " " * (len(words) - len(words.lstrip()))
    return textwrap.fill(
        words, WIDTH - 2, initial_indent=margin, subsequent_indent=hang, break_long_words=False, break_on_hyphens=False
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


def _dump(value: object, style: str | None) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, default_style=style, width=10**6, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def one_line(value: object) -> str:
    """Returns text on one line without control characters, so that it cannot break out of a comment."""
    words = " ".join(str(value).split())
    return "".join(letter for letter in words if letter.isprintable())


def quoted(names: Iterable[str]) -> str:
    """Returns names for a comment: 'a', 'b'."""
    return ", ".join(f"'{one_line(name)}'" for name in names)
