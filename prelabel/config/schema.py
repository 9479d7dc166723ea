"""The JSON Schema of the config, for editors: pydantic's schema plus the rules between keys."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, create_model
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema

from prelabel.config.load import STAGE, STAGES
from prelabel.config.sections import AGENT_SECTIONS, Config
from prelabel.config.source import section_of
from prelabel.plugins.load import PluginKind, load_plugin

Schema = dict[str, Any]

SOURCES = ("folder", "demo", "encord")
DIALECT = "https://json-schema.org/draft/2020-12/schema"
BUILT_IN: dict[PluginKind, tuple[str, ...]] = {
    "detector": ("ultralytics", "torchvision", "transformers", "onnx"),
    "classifier": ("torchvision", "ultralytics", "openai"),
    "refine": ("sam2",),
}


class _WithoutTitles(GenerateJsonSchema):
    """Omits the titles that pydantic generates, since they only repeat names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def generate(self, schema: Any, mode: Any = "validation") -> Schema:
        generated = super().generate(schema, mode)
        for model in (generated, *generated.get("$defs", {}).values()):
            model.pop("title", None)
        return generated


def config_schema() -> Schema:
    """Returns the JSON Schema of the config, draft 2020-12.

    It does not check what only a run can check: whether weights, classes and a stage exist, and the options of plug-ins
    that are not built in. Otherwise it accepts the same configs as `load_config`.
    """
    schema = _schema_of(Config)
    sections: dict[str, Schema] = schema.pop("$defs")
    del sections["SourceSection"]
    for name in SOURCES:
        sections[f"source-{name}"] = _schema_of(section_of(name, Path()))
    sections["source-demo"]["required"] = ["use"]  # without it, a source is a folder or Encord
    for kind, names in BUILT_IN.items():
        sections[f"{kind.capitalize()}Section"] |= _options_by_use(kind, names)
        for name in names:
            options = _options_schema(kind, name)
            sections |= options.pop("$defs", {}) | {f"{kind}-{name}": options}
    own = {key: value for key, value in schema["properties"].items() if key != "source"}
    own |= {name: own[name]["anyOf"][0] for name in AGENT_SECTIONS}  # absent, not null
    of_stages = {key: value for key, value in sections["source-encord"].items() if key != "required"}
    of_stages["properties"] = {key: value for key, value in of_stages["properties"].items() if key != "stage"}
    return {
        "$schema": DIALECT,
        "title": "prelabel config",
        "description": "Where tasks come from, which model looks at them, and how its result becomes labels.",
        "type": "object",
        "additionalProperties": False,
        "properties": {"source": {"type": "object"}, **own, **_stages_properties(list(own))},
        "if": {"required": [STAGES]},
        "then": {"properties": {"source": _reference("source-encord-of-stages")}},
        "else": {
            "properties": {"source": {"oneOf": [_reference(f"source-{name}") for name in SOURCES]}, STAGE: False},
            "required": ["source"],
            "oneOf": [{"required": [name]} for name in AGENT_SECTIONS],
            "if": {"properties": {"source": {"required": ["stage"]}}},
            "then": {"anyOf": [{"required": [name]} for name in ("pathway", "routing", "agent")]},
            "dependentRequired": {"refine": ["detector"]},
        },
        "$defs": sections | {"source-encord-of-stages": of_stages},
    }


def _schema_of(model: type[BaseModel]) -> Schema:
    return model.model_json_schema(schema_generator=_WithoutTitles)


def _reference(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _stages_properties(keys: Sequence[str]) -> Schema:
    """Returns the properties `stages` and `stage` of a config with several stages."""
    name = {"type": "string", "minLength": 1}
    entry = {
        "type": "object",
        "properties": {
            STAGE: name | {"description": "title or uuid of the agent stage"},
            **{key: {"$ref": f"#/properties/{key}"} for key in keys},
        },
        "required": [STAGE],
        "additionalProperties": False,
    }
    description = "agent stages of one project, each with its own sections; the sections outside hold for all"
    return {
        STAGES: {"type": "array", "items": entry, "minItems": 1, "description": description},
        STAGE: name | {"description": "run this one of the stages only"},
    }


# Options of built-in plug-ins


def _options_by_use(kind: PluginKind, names: Sequence[str]) -> Schema:
    """Returns conditions that check a section against the plug-in it names, or against any if it names none."""
    named = [
        {
            "if": {"properties": {"use": {"const": name}}, "required": ["use"]},
            "then": _reference(f"{kind}-{name}"),
        }
        for name in names
    ]
    any_of = [_reference(f"{kind}-{name}") for name in names]
    return {"allOf": [*named, {"if": {"not": {"required": ["use"]}}, "then": {"anyOf": any_of}}]}


def _options_schema(kind: PluginKind, use: str) -> Schema:
    """Returns the schema of a section with a built-in plug-in. It rejects unknown keys, since all keys are known."""
    fields: dict[str, Any] = {name: (each.annotation, each) for name, each in described_options(kind, use).items()}
    schema = _schema_of(create_model("Options", **fields))
    section = Config.model_fields[kind].annotation
    own = next(each for each in get_args(section) if isinstance(each, type) and issubclass(each, BaseModel))
    schema["properties"] |= dict.fromkeys(own.model_fields, True)
    return schema | {"additionalProperties": False}


def described_options(kind: PluginKind, use: str) -> dict[str, FieldInfo]:
    """Returns the options of a built-in plug-in, with descriptions from the docstring of its `Options`."""
    model: type[BaseModel] = load_plugin(kind, use, Path()).factory.Options  # type: ignore[attr-defined]
    fields = {name: copy(field) for name, field in model.model_fields.items()}
    for name, text in _texts_of(model).items():
        fields[name].description = text
    return fields


def describe_values(field: FieldInfo) -> str:
    """Returns a field's description, preceded by its possible values if the description does not name them."""
    said = field.description or ""
    values = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    if len(values) < 2 or all(str(value) in said for value in values):
        return said
    return f"{' | '.join(map(str, values))}: {said}"


def _texts_of(model: type[BaseModel]) -> dict[str, str]:
    """Returns the attribute descriptions in the docstrings of a model and its base classes."""
    texts: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            texts |= attribute_texts(inspect.cleandoc(base.__doc__ or ""))
    return texts


def attribute_texts(docstring: str) -> dict[str, str]:
    r"""Returns the description of each entry under `Attributes:` in a dedented docstring.

    >>> attribute_texts("Does.\n\nAttributes:\n    conf: least\n        confidence.\n    iou: overlap.")
    {'conf': 'least confidence', 'iou': 'overlap'}
    """
    listed = docstring.partition("Attributes:\n")[2]
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", listed, re.MULTILINE)
    return {name: " ".join(text.split()).removesuffix(".") for name, text in entries}
