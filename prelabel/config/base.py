"""Base classes of config sections, the types of their values, and routing rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from prelabel.plugins.affects import Affects
from prelabel.routing.expressions import parse_condition, parse_number
from prelabel.routing.rules import OTHERWISE, Router, read_router
from prelabel.runtime.yaml_files import written_text

Fraction = Annotated[float, Field(ge=0, le=1)]
OneOrMore = Annotated[int, Field(ge=1)]


def read_name(value: object) -> object:
    """Returns a name as it was written, even if YAML reads it as a number or a boolean, such as `01234567` or `Yes`.

    Raises:
        ValueError: the value is null, true or false, so its spelling is lost, or it is empty.
    """
    if isinstance(value, str) and not value.strip():
        raise ValueError("is empty, expected a name")
    if value is None or isinstance(value, bool):
        read = "null" if value is None else str(value).lower()
        raise ValueError(f'got {read}, expected a name: if that is one, quote it: "{read}"')
    text = written_text(value)
    return value if text is None else text


Name = Annotated[str, BeforeValidator(read_name)]
"""The name or hash of a class, an object, a stage or a pathway."""


class Section(BaseModel):
    """A section of the config. It is frozen, rejects unknown keys, and states what each field affects."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PluginSection(BaseModel):
    """A section of the config that names a plug-in. Its further keys are the plug-in's options."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)
    options_affect: ClassVar[Affects] = Affects.DETECTIONS
    """What the plug-in's options affect, unless its `Options` state it."""

    @property
    def options(self) -> dict[str, Any]:
        """The plug-in's options from the config."""
        return dict(self.model_extra or {})

    @property
    def own_keys(self) -> list[str]:
        """The section's keys without the plug-in's options."""
        return list(type(self).model_fields)


class RetriesSection(Section):
    """How often a failed task is retried, if a retry may help."""

    attempts: Annotated[int, Affects.NOTHING] = Field(
        2, ge=1, le=20, description="attempts per task and run, each with fresh media"
    )
    wait_seconds: Annotated[float, Affects.NOTHING] = Field(
        5.0,
        ge=0,
        le=3600,
        description="wait before the second attempt, after all other tasks; doubled before each further one",
    )
    watch_minutes: Annotated[float, Affects.NOTHING] = Field(
        10.0,
        gt=0,
        description="with --watch: how long a failed task waits for the next attempt; doubled each time, up to a day",
    )


class OnFailureSection(Section):
    """What happens to a failed task."""

    pathway: Annotated[Name | None, Affects.PLACE] = Field(
        None, description="pathway of failed tasks, by name or uuid; default: they stay at the stage"
    )
    issue: Annotated[bool, Affects.PLACE] = Field(
        False, description="open an issue on each failed task, with the reason"
    )


class ReportSection(Section):
    """What the report of a run shows."""

    gpu_hour_price: Annotated[float | None, Affects.NOTHING] = Field(
        None,
        ge=0,
        description="price of one GPU for an hour; the report shows the cost: wall time of the run x its GPUs x this; "
        "without GPUs, a machine counts as one",
        examples=[2.5],
    )
    currency: Annotated[Name, Affects.NOTHING] = Field("USD", description="currency of the price")
    pictures: Annotated[int | None, Affects.NOTHING] = Field(
        100,
        ge=0,
        description="number of tasks with pictures in report.html, those to look at first; their media are fetched and "
        "decoded again; null: all",
    )


class RuleSection(Section):
    """The pathway of tasks that meet a condition, or, in the last rule, of all other tasks."""

    when: str | None = Field(None, description="condition over the result, such as count(Person) > 3")
    pathway: Name | None = Field(None, description="name or uuid of the pathway that such tasks take")
    otherwise: Name | None = Field(None, description="name or uuid of the pathway that all other tasks take")

    @model_validator(mode="after")
    def _says_one_thing(self) -> RuleSection:
        given = {name for name in ("when", "pathway", OTHERWISE) if getattr(self, name) is not None}
        if given not in ({"when", "pathway"}, {OTHERWISE}):
            got = ", ".join(sorted(given)) or "nothing"
            raise ValueError(f"got {got}; expected when and pathway, or for the last rule otherwise alone")
        if self.when is not None:
            parse_condition(self.when)
        return self


def _as_rules(value: object) -> object:
    """Converts a mapping `class: pathway` to rules; returns other values unchanged."""
    if not isinstance(value, Mapping):
        return value
    rules = []
    for name, pathway in ((str(read_name(key)), pathway) for key, pathway in value.items()):
        if not isinstance(read_name(pathway), str):
            raise ValueError(f"{name}: got {pathway!r}, expected the name or uuid of a pathway")
        rules.append({OTHERWISE: pathway} if name == OTHERWISE else {"when": f"has({name!r})", "pathway": pathway})
    return rules


def _ends_with_otherwise(rules: tuple[RuleSection, ...]) -> tuple[RuleSection, ...]:
    places = [place for place, rule in enumerate(rules, start=1) if rule.otherwise is not None]
    if not places:
        raise ValueError(f"{OTHERWISE} is missing: add it as the last rule, with the pathway of all other tasks")
    if places != [len(rules)]:
        raise ValueError(f"{OTHERWISE} is rule {places[0]} of {len(rules)}, expected once, as the last")
    return rules


def _as_number(value: object) -> object:
    if isinstance(value, float | int) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, str):
        parse_number(value)
    return value


_TEXT = {"type": "string"}
_RULE = {
    "type": "object",
    "properties": {"when": _TEXT, "pathway": _TEXT, OTHERWISE: _TEXT},
    "additionalProperties": False,
    "oneOf": [{"required": ["when", "pathway"]}, {"required": [OTHERWISE], "maxProperties": 1}],
}
_RULES_SCHEMA = {
    "anyOf": [
        {"type": "array", "items": _RULE, "contains": {"required": [OTHERWISE]}, "minItems": 1},
        {"type": "object", "additionalProperties": _TEXT, "required": [OTHERWISE]},
    ]
}
Rules = Annotated[
    tuple[RuleSection, ...],
    BeforeValidator(_as_rules),
    AfterValidator(_ends_with_otherwise),
    WithJsonSchema(_RULES_SCHEMA),
]
NumberExpression = Annotated[str, BeforeValidator(_as_number), WithJsonSchema({"type": ["string", "number"]})]


def make_router(rules: tuple[RuleSection, ...], pathway: str | None, priority: str | None) -> Router:
    """Returns a router for the rules, or else for the single pathway. Without either, it moves no task."""
    written = [(rule.when, rule.pathway or rule.otherwise or "") for rule in rules]
    if not written and pathway is not None:
        written = [(None, pathway)]
    return read_router(written, priority)
