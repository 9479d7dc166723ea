"""What a change of a config key affects. Sections and the `Options` of plug-ins state it for each field."""

from __future__ import annotations

from enum import Enum

from pydantic import BaseModel


class Affects(Enum):
    """Which cached results become invalid if a config key changes.

    A field states it next to its type: `replicas: Annotated[int, Affects.NOTHING] = 1`.
    """

    NOTHING = "nothing"
    """No results: the key changes only the speed, safety or output of a run."""
    DETECTIONS = "detections"
    """The model's results: inference runs again."""
    LABELS = "labels"
    """The labels: raw detections are labelled again, without the model."""
    PLACE = "place"
    """The source and destination of tasks, and the location of files."""


def affects_of(model: type[BaseModel], key: str) -> Affects | None:
    """Returns what a field of a model affects; None if the field does not state it."""
    field = model.model_fields.get(key)
    return next((each for each in field.metadata if isinstance(each, Affects)), None) if field is not None else None
