"""Several agent stages of one project in one config: each becomes a config of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prelabel.config.sections import AGENT_SECTIONS, Config
from prelabel.errors import ConfigError, did_you_mean
from prelabel.files import safe_name

STAGES, STAGE = "stages", "stage"
_ALTERNATIVES = (AGENT_SECTIONS, ("pathway", "routing"))
"""Of these sections a config has one: where a stage has its own, those of all stages do not count."""


def split_stages(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the values of one config a stage: its own sections, and of the others those that stand for all.

    A config without `stages` is returned as it is. With a key `stage` beside `stages` only that one is returned.

    Args:
        values: sections by name, as they are written.

    Raises:
        ConfigError: the stages are not a list of sections, two are the same, or there is none of the name asked for.

    >>> [first, second] = split_stages({
    ...     "source": {"output": "out"}, "detector": {"weights": "demo"},
    ...     "stages": [{"stage": "A"}, {"stage": "B", "agent": {"use": "mine.py:f"}}],
    ... })
    >>> first["source"], second["source"], "detector" in second
    ({'output': 'out/A', 'stage': 'A'}, {'output': 'out/B', 'stage': 'B'}, False)
    """
    if STAGES not in values:
        return [dict(values)]
    entries = values[STAGES]
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{STAGES}: got {entries!r:.60}, expected a list: - {{stage: …, detector: …, pathway: …}}")
    names = [_name_of(entry, place) for place, entry in enumerate(entries)]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise ConfigError(f"{STAGES}: {repeated!r} is there {names.count(repeated)} times: name each stage once")
    common = {key: value for key, value in values.items() if key not in (STAGES, STAGE)}
    chosen = str(values.get(STAGE, ""))
    if STAGE in values and chosen not in names:
        raise ConfigError(f"{STAGE}: {chosen!r} is none of the stages of this config: {did_you_mean(chosen, names)}")
    wanted = [chosen] if STAGE in values else names
    return [_merged(common, entry) for entry, name in zip(entries, names, strict=True) if name in wanted]


def _name_of(entry: object, place: int) -> str:
    where = f"{STAGES}.{place}"
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where}: got {entry!r:.60}, expected sections: stage, detector, pathway, …")
    name = entry.get(STAGE)
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{where}.{STAGE}: got {name!r:.60}, expected the title or uuid of an agent stage")
    known = [STAGE, *(key for key in Config.model_fields if key != "source")]
    for key in entry:
        if key not in known:
            hint = "is the same for all stages: leave it out" if key == "source" else did_you_mean(str(key), known)
            raise ConfigError(f"{where}.{key}: is not a key of a stage: {hint}")
    return name


def _merged(common: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    left_out = {key for keys in _ALTERNATIVES if entry.keys() & set(keys) for key in keys}
    sections = {key: value for key, value in common.items() if key not in left_out}
    source = common.get("source")
    source = dict(source) if isinstance(source, Mapping) else {}
    if source.get("use", "encord") != "encord" or "path" in source:
        raise ConfigError(f"{STAGES}: are those of an Encord workflow, and the source is another")
    if STAGE in source:
        raise ConfigError(f"source.{STAGE}: leave it out: each of the {STAGES} has its own")
    name = str(entry[STAGE])
    source |= {STAGE: name, "output": str(Path(str(source.get("output", "out"))) / safe_name(name.replace("/", "_")))}
    return {**sections, **{key: value for key, value in entry.items() if key != STAGE}, "source": source}
