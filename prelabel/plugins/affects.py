"""What a change of a config key affects; a section and a plug-in's `Options` say it for each of their fields."""

from __future__ import annotations

from enum import Enum

from pydantic import BaseModel


class Affects(Enum):
    """Which earlier results a changed key makes unfit.

    A field says it beside its type: `replicas: Annotated[int, Affects.NOTHING] = 1`.
    """

    NOTHING = "nothing"
    """How fast, how safe or how chatty a run is: every earlier result still holds."""
    DETECTIONS = "detections"
    """What the model gives: the media are looked at again."""
    LABELS = "labels"
    """What raw detections become: they are labelled again, without the model."""
    PLACE = "place"
    """Where tasks come from and go, and where files lie."""


def affects_of(model: type[BaseModel], key: str) -> Affects | None:
    """Returns what a field of a model affects; None where it does not say."""
    field = model.model_fields.get(key)
    return next((each for each in field.metadata if isinstance(each, Affects)), None) if field is not None else None
