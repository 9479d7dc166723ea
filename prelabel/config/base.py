"""What a section of the config is: frozen, checked, closed to unknown keys or open to a plug-in's own."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]


def _as_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


ClassName = Annotated[str, BeforeValidator(_as_text)]


class Section(BaseModel):
    """A part of the config: frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PluginSection(BaseModel):
    """A part of the config that names a plug-in: what is not ours is the plug-in's own option."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    @property
    def options(self) -> dict[str, Any]:
        """The plug-in's own options, as they stand in the config."""
        return dict(self.model_extra or {})

    @property
    def own_keys(self) -> list[str]:
        """What the section knows besides."""
        return list(type(self).model_fields)
