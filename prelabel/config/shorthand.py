"""Options of the command line that stand for config keys, such as `--weights` for `detector.weights`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MODEL = "model"
"""In `SHORTHANDS`: the section of the config's detector or classifier."""
SHORTHANDS = {
    "weights": "model.weights",
    "conf": "model.conf",
    "classes": "model.classes",
    "device": "model.device",
    "tracks": "labels.instances",
    "stride": "reader.stride",
    "output": "source.output",
    "path": "source.path",
}


def expand_shorthands(given: Mapping[str, object], model_section: str) -> dict[str, Any]:
    """Returns the config keys that options stand for, with their values.

    Args:
        given: values by the option's name; None: it was not given.
        model_section: `detector` or `classifier`.

    >>> expand_shorthands({"conf": 0.4, "tracks": True, "stride": None, "classes": "car,7"}, "detector")
    {'detector.conf': 0.4, 'labels.instances': 'tracks', 'detector.classes': ['car', 7]}
    """
    settings: dict[str, Any] = {}
    for name, value in given.items():
        if value is None or value is False:
            continue
        key = SHORTHANDS[name].replace(MODEL, model_section)
        settings[key] = _value_of(name, value)
    return settings


def _value_of(name: str, value: object) -> object:
    if name == "tracks":
        return "tracks"
    if name == "classes":  # ids are numbers, all else is a name
        words = [word.strip() for word in str(value).split(",")]
        return [int(word) if word.isdigit() else word for word in words if word]
    if name == "path" and isinstance(value, list):
        return str(value[0]) if len(value) == 1 else [str(each) for each in value]
    return str(value) if name == "output" else value
