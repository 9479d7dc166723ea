"""Safe YAML loading: plain values only, no duplicate keys, bounded size and aliases."""

from __future__ import annotations

import math
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from prelabel.errors import PrelabelError

MAX_BYTES = 2_000_000
MAX_VALUES = 100_000
"""An alias repeats the content of its anchor, so a few lines of aliases can unfold to more than fits into memory."""


def read_yaml(path: Path, failure: type[PrelabelError]) -> object:
    """Returns a YAML file's content.

    Raises:
        PrelabelError: the file cannot be read or is not YAML; the class is `failure`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise failure(f"{path}: is larger than {MAX_BYTES / 1e6:g} MB, expected a small YAML file")
        return parse_yaml(data.decode())
    except OSError as error:
        raise failure(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise failure(f"{path}: is no text, expected YAML") from error
    except ValueError as error:
        raise failure(f"{path}: is not YAML: {error}") from error


def parse_yaml(text: str) -> object:
    """Returns the content of a YAML text as plain values: mappings, lists, texts and numbers.

    Raises:
        ValueError: the text is not YAML, repeats a key, asks for a Python object, or unfolds to too many values.
    """
    try:
        values: object = yaml.load(text, Loader=_PlainLoader)
    except yaml.YAMLError as error:
        raise ValueError(_describe(error)) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not _is_bounded(values):
        raise ValueError(f"its aliases unfold to more than {MAX_VALUES} values")
    return values


def _describe(error: yaml.YAMLError) -> str:
    """Describes an error in one line, with its place first."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem is None or error.problem_mark is None:
        return " ".join(str(error).split())
    place = f"line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}"
    if r"'\t'" in error.problem:
        return f"{place}: a tab, expected spaces"
    began = error.context_mark
    since = f" {error.context} that begins in line {began.line + 1}" if error.context and began else ""
    return f"{place}: {' '.join(error.problem.split())}{since}"


def _is_bounded(values: object) -> bool:
    num, left = 0, [values]
    while left and num <= MAX_VALUES:
        value = left.pop()
        num += 1
        if isinstance(value, dict):
            left += value.values()
        elif isinstance(value, list):
            left += value
    return num <= MAX_VALUES


class WrittenInt(int):
    """An integer or a bool whose text in the file differs from its value, e.g. 342391 from `01234567`.

    `text` is the text in the file, since it may be a name: a feature hash, a class, a pathway. Errors show it.
    """

    text: str

    def __repr__(self) -> str:
        return self.text


class WrittenFloat(float):
    """A float whose text in the file differs from its value, e.g. 1.5 from `1.50`."""

    text: str

    def __repr__(self) -> str:
        return self.text


def written_text(value: object) -> str | None:
    """Returns a text or number as it was written; None for `true`, `false` and any other value.

    >>> [written_text(value) for value in parse_yaml("[01234567, Yes, 12, 2024-01-31, true]")]
    ['01234567', 'Yes', '12', '2024-01-31', None]
    """
    if isinstance(value, WrittenInt | WrittenFloat):
        return value.text
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


class _PlainLoader(yaml.SafeLoader):
    """YAML's safe loader that also refuses duplicate keys, and merges (`<<`) of too many keys."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > MAX_VALUES / 100:
            raise yaml.YAMLError(f"the mapping of line {node.start_mark.line + 1} merges too many keys")

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        own = (key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge")
        for key in (self.construct_object(key, deep=True) for key in own):
            if isinstance(key, Hashable) and key in seen:
                line = node.start_mark.line + 1
                raise yaml.YAMLError(f"the key {key!r} occurs twice in the mapping that begins in line {line}")
            if isinstance(key, Hashable):
                seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_written_number(self, node: yaml.ScalarNode) -> int | float:
        value = self.construct_yaml_float(node) if node.tag.endswith("float") else self.construct_yaml_int(node)
        if str(value) == node.value or not math.isfinite(value):
            return value
        written = WrittenInt(value) if isinstance(value, int) else WrittenFloat(value)
        written.text = node.value
        return written

    def construct_written_date(self, node: yaml.ScalarNode) -> str:
        return str(node.value)  # no config key takes a date

    def construct_written_bool(self, node: yaml.ScalarNode) -> bool | WrittenInt:
        value = bool(self.construct_yaml_bool(node))
        if node.value.lower() in ("true", "false"):
            return value
        written = WrittenInt(value)  # no class can derive from bool; pydantic accepts 1 and 0 as bools
        written.text = node.value
        return written


_PlainLoader.add_constructor("tag:yaml.org,2002:int", _PlainLoader.construct_written_number)
_PlainLoader.add_constructor("tag:yaml.org,2002:float", _PlainLoader.construct_written_number)
_PlainLoader.add_constructor("tag:yaml.org,2002:bool", _PlainLoader.construct_written_bool)
_PlainLoader.add_constructor("tag:yaml.org,2002:timestamp", _PlainLoader.construct_written_date)
