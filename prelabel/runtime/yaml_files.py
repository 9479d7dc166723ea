"""YAML as people write it: plain values only, no key twice, and no more of it than a person could mean."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from prelabel.errors import PrelabelError

MAX_BYTES = 2_000_000
MAX_VALUES = 100_000
"""An alias stands for all that its anchor holds: a few lines of them can stand for more than memory takes."""


def read_yaml(path: Path, failure: type[PrelabelError]) -> object:
    """Returns a YAML file's content.

    Raises:
        PrelabelError: of the kind asked for, naming the file, if it cannot be read or is not YAML.
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
    """Returns the plain values that a YAML text stands for: mappings, lists, texts, numbers, dates.

    Raises:
        ValueError: the text is not YAML, gives a key twice, asks for an object of a class, or unfolds to too much.
    """
    try:
        values: object = yaml.load(text, Loader=_PlainLoader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not _is_bounded(values):
        raise ValueError(f"its aliases unfold to more than {MAX_VALUES} values")
    return values


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


class _PlainLoader(yaml.SafeLoader):
    """YAML's safe loader, which besides refuses a key given twice, and merges (`<<`) that multiply."""

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
                raise yaml.YAMLError(f"the key {key!r} stands twice in the mapping that begins in line {line}")
            if isinstance(key, Hashable):
                seen.add(key)
        return super().construct_mapping(node, deep)
