"""The config's JSON Schema, for editors: the sections as they are checked, the built-in models' options offered."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from prelabel.config.base import PluginSection
from prelabel.config.load import STAGE, STAGES
from prelabel.config.sections import AGENT_SECTIONS, ClassifierSection, Config, DetectorSection
from prelabel.config.source import SourceSection, section_of
from prelabel.plugins.load import PluginKind, load_plugin

Schema = dict[str, Any]

SOURCES = ("folder", "demo", "encord")
DIALECT = "https://json-schema.org/draft/2020-12/schema"
BUILT_IN: dict[PluginKind, tuple[str, ...]] = {
    "detector": ("ultralytics", "torchvision"),
    "classifier": ("torchvision", "ultralytics", "openai"),
}
_SECTION_OF: dict[PluginKind, type[PluginSection]] = {"detector": DetectorSection, "classifier": ClassifierSection}
_TITLES = {
    "FolderSection": "source: folder",
    "DemoSection": "source: demo",
    "EncordSection": "source: encord",
    "ReaderSection": "reader",
    "RetriesSection": "retries",
    "OnFailureSection": "on_failure",
    "DetectorSection": "detector",
    "ClassifierSection": "classifier",
    "AgentSection": "agent",
    "LabelsSection": "labels",
    "SinkSection": "sink",
    "RuleSection": "routing: a rule",
    "TrackerSection": "tracker",
    "SizeLimits": "labels.size",
    "Zones": "labels.zones",
    "Flicker": "labels.flicker",
    "Keyframes": "labels.keyframes",
    "Tiles": "detector.tiles",
}


def config_schema() -> Schema:
    """Returns the JSON Schema of the config, draft 2020-12.

    It takes what `load_config` takes, but for what only a run can tell: whether weights, classes and a stage are there,
    and the options of plug-ins that are not built in.
    """
    schema = Config.model_json_schema()
    found: dict[str, Schema] = schema.pop("$defs")
    del found["SourceSection"]
    found |= {section.__name__: section.model_json_schema() for section in map(_source_section, SOURCES)}
    schema["properties"]["source"] = {
        "oneOf": [{"$ref": f"#/$defs/{_source_section(name).__name__}"} for name in SOURCES]
    }
    sections = {name: _tidy(section, _TITLES[name]) for name, section in found.items()}
    for name in AGENT_SECTIONS:  # absent, not null
        schema["properties"][name] = {"$ref": schema["properties"][name]["anyOf"][0]["$ref"]}
    schema["properties"]["routing"] = _routing_schema(schema["properties"]["routing"])
    schema["properties"]["priority"] = {
        "description": schema["properties"]["priority"]["description"],
        "type": ["string", "number"],
    }
    sections["DemoSection"]["required"] = ["use"]  # without it, a source is a folder or Encord
    for kind, names in BUILT_IN.items():
        sections[_SECTION_OF[kind].__name__] |= _follow(kind, names)
        sections |= {_definition(kind, name): _options_schema(kind, name) for name in names}
    schema["description"] = "Where tasks come from, what looks at them, what becomes of what it finds."
    of_one = {
        "properties": {"source": schema["properties"]["source"], STAGE: False},
        "required": schema.pop("required"),
        "oneOf": [{"required": [name]} for name in AGENT_SECTIONS],
        "if": {"properties": {"source": {"required": ["stage"]}}},
        "then": {"anyOf": [{"required": [name]} for name in ("pathway", "routing", "agent")]},
    }
    schema["properties"] |= {"source": {"type": "object"}, **_stages_properties(list(schema["properties"]))}
    return {
        "$schema": DIALECT,
        **_tidy(schema, "prelabel config"),
        "if": {"required": [STAGES]},
        "then": {"properties": {"source": {"$ref": "#/$defs/SharedSource"}}},
        "else": of_one,
        "$defs": sections | {"SharedSource": _without_stage(sections["EncordSection"])},
    }


def _source_section(name: str) -> type[SourceSection]:
    return section_of(name, Path())


def _stages_properties(keys: Sequence[str]) -> Schema:
    """Returns what a config of several stages has besides: the stages, and the choice of one."""
    name = {"type": "string", "minLength": 1}
    own = {key: {"$ref": f"#/properties/{key}"} for key in keys if key != "source"}
    entry = {
        "type": "object",
        "properties": {STAGE: name | {"description": "title or uuid of the agent stage"}, **own},
        "required": [STAGE],
        "additionalProperties": False,
    }
    return {
        STAGES: {
            "type": "array",
            "items": entry,
            "minItems": 1,
            "description": "several agent stages of the project: their own sections; those outside stand for all",
        },
        STAGE: name | {"description": "the only one of the stages to look at"},
    }


def _without_stage(section: Schema) -> Schema:
    properties = {key: value for key, value in section["properties"].items() if key != "stage"}
    return {key: value for key, value in section.items() if key != "required"} | {"properties": properties}


def _tidy(schema: Schema, title: str) -> Schema:
    """Returns a section under its name in the config, without the titles that only repeat a key."""
    properties = {
        key: {name: value for name, value in described.items() if name != "title"}
        for key, described in schema["properties"].items()
    }
    return {"title": title, "description": schema["description"]} | schema | {"title": title, "properties": properties}


def _routing_schema(rules: Schema) -> Schema:
    """Returns both forms of the rules: in a list, and by class."""
    text = {"type": "string"}
    rule: Schema = {"required": ["when", "pathway"]}
    last: Schema = {"required": ["otherwise"], "properties": {"when": False, "pathway": False}}
    listed = {"type": "array", "items": rules["items"] | {"anyOf": [rule, last]}, "contains": last, "minItems": 1}
    by_class = {"type": "object", "additionalProperties": text, "required": ["otherwise"]}
    return {"description": rules["description"], "anyOf": [listed, by_class]}


def _options_schema(kind: PluginKind, use: str) -> Schema:
    """Returns the whole section for a built-in plug-in: closed, since all its keys are known."""
    model: type[BaseModel] = load_plugin(kind, use, Path()).factory.Options  # type: ignore[attr-defined]
    docstring = inspect.cleandoc(model.__doc__ or "")
    schema = model.model_json_schema() | {"description": docstring.partition("\n\n")[0]}
    for key, text in attribute_texts(docstring).items():
        schema["properties"][key]["description"] = text
    tidied = _tidy(schema, f"{kind}: {use}")
    tidied["properties"] |= dict.fromkeys(_SECTION_OF[kind].model_fields, True)
    return tidied


def described_options(kind: PluginKind, use: str) -> dict[str, FieldInfo]:
    """Returns the options of a built-in plug-in, each described as its class's docstring describes it."""
    model: type[BaseModel] = load_plugin(kind, use, Path()).factory.Options  # type: ignore[attr-defined]
    texts = attribute_texts(inspect.cleandoc(model.__doc__ or ""))
    fields = {name: copy(field) for name, field in model.model_fields.items()}
    for name, text in texts.items():
        fields[name].description = text
    return fields


def describe_values(field: FieldInfo) -> str:
    """Returns what a field means, after the words that it may be, where the description does not name them."""
    said = field.description or ""
    values = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    if len(values) < 2 or all(str(value) in said for value in values):
        return said
    return f"{' | '.join(map(str, values))}: {said}"


def attribute_texts(docstring: str) -> dict[str, str]:
    r"""Returns what a docstring, its margin cut, says of each of its `Attributes:`.

    >>> attribute_texts("Does.\n\nAttributes:\n    conf: least\n        confidence.\n    iou: overlap.")
    {'conf': 'least confidence', 'iou': 'overlap'}
    """
    listed = docstring.partition("Attributes:\n")[2]
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", listed, re.MULTILINE)
    return {name: " ".join(text.split()).removesuffix(".") for name, text in entries}


def _follow(kind: PluginKind, names: Sequence[str]) -> Schema:
    """Returns what makes a section follow the plug-in that it names; where it names none, the card does."""
    named = [
        {"if": {"properties": {"use": {"const": name}}, "required": ["use"]}, "then": _reference(kind, name)}
        for name in names
    ]
    unnamed = {"if": {"not": {"required": ["use"]}}, "then": {"anyOf": [_reference(kind, name) for name in names]}}
    return {"allOf": [*named, unnamed]}


def _reference(kind: PluginKind, name: str) -> Schema:
    return {"$ref": f"#/$defs/{_definition(kind, name)}"}


def _definition(kind: PluginKind, name: str) -> str:
    return f"{name.capitalize()}{kind.capitalize()}Options"
