"""A validator of the JSON Schema keywords that the config's schema uses, and of no others."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

NOTES = {"$schema", "$defs", "title", "description", "default", "format", "then"}
TYPES: Mapping[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}
CHECKS: Mapping[str, Callable[[Any, Any], bool]] = {
    "type": lambda value, name: isinstance(value, TYPES[name]) and not (isinstance(value, bool) and name != "boolean"),
    "const": lambda value, wanted: value == wanted,
    "enum": lambda value, wanted: value in wanted,
    "minimum": lambda value, limit: value >= limit,
    "maximum": lambda value, limit: value <= limit,
    "exclusiveMinimum": lambda value, limit: value > limit,
    "pattern": lambda value, pattern: re.search(pattern, value) is not None,
    "minItems": lambda value, limit: len(value) >= limit,
    "maxItems": lambda value, limit: len(value) <= limit,
    "required": lambda value, keys: value.keys() >= set(keys),
}
# Which checks mean nothing for values of other types.
FOR_TYPE = {"required": dict, "properties": dict, "additionalProperties": dict, "items": list, "prefixItems": list}


def complaints(value: object, schema: Mapping[str, Any]) -> list[str]:
    """Returns what is wrong with a value; empty if nothing is.

    Raises:
        NotImplementedError: the schema uses a keyword that is not known here.
    """
    return list(Validator(schema).complain(value, schema, ""))


@dataclass(frozen=True)
class Validator:
    root: Mapping[str, Any]

    def complain(self, value: Any, schema: Any, where: str) -> Iterator[str]:
        if schema is True:
            return
        if schema is False:
            yield f"{where}: must not be there"
            return
        for keyword, wanted in sorted(schema.items(), key=lambda item: item[0] != "type"):
            if not isinstance(value, FOR_TYPE.get(keyword, object)):
                continue
            found = list(self.apply(keyword, wanted, value, schema, where))
            yield from found
            if found and keyword == "type":
                return

    def apply(self, keyword: str, wanted: Any, value: Any, schema: Mapping[str, Any], where: str) -> Iterator[str]:
        if keyword in CHECKS:
            if not CHECKS[keyword](value, wanted):
                yield f"{where}: {keyword}: {wanted}"
        elif keyword in {"properties", "additionalProperties", "items", "prefixItems"}:
            yield from self.descend(keyword, wanted, value, schema, where)
        elif keyword not in NOTES:
            yield from self.combine(keyword, wanted, value, schema, where)

    def descend(self, keyword: str, wanted: Any, value: Any, schema: Mapping[str, Any], where: str) -> Iterator[str]:
        if keyword == "properties":
            inner = [(key, value[key], wanted[key]) for key in wanted if key in value]
        elif keyword == "additionalProperties":
            inner = [(key, value[key], wanted) for key in value if key not in schema.get("properties", {})]
        else:
            branches = wanted if keyword == "prefixItems" else [wanted] * len(value)
            inner = [(index, *pair) for index, pair in enumerate(zip(value, branches, strict=False))]
        for key, part, branch in inner:
            yield from self.complain(part, branch, f"{where}.{key}")

    def combine(self, keyword: str, wanted: Any, value: Any, schema: Mapping[str, Any], where: str) -> Iterator[str]:
        if keyword == "$ref":
            yield from self.complain(value, self.root["$defs"][wanted.rpartition("/")[2]], where)
        elif keyword == "if":
            yield from self.complain(value, schema["then"], where) if self.holds(value, wanted) else ()
        elif keyword == "allOf":
            for branch in wanted:
                yield from self.complain(value, branch, where)
        elif keyword in {"anyOf", "oneOf", "not"}:
            num_holding = sum(self.holds(value, branch) for branch in (wanted if keyword != "not" else [wanted]))
            if not {"anyOf": num_holding > 0, "oneOf": num_holding == 1, "not": num_holding == 0}[keyword]:
                yield f"{where}: {keyword}: {num_holding} hold"
        else:
            raise NotImplementedError(keyword)

    def holds(self, value: object, schema: Any) -> bool:
        return not list(self.complain(value, schema, ""))
