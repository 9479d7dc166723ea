"""Fingerprints: hashes of the config values that decide a result, so that a run knows what an earlier one has done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from prelabel.config.base import PluginSection, Section
from prelabel.config.sections import Config
from prelabel.plugins.affects import Affects, affects_of
from prelabel.plugins.load import Plugin, load_plugin


def fingerprint(decides: Mapping[str, object]) -> str:
    """Returns a SHA-256, in hexadecimal, of what decides a result."""
    return hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()


def values_affecting(
    section: Section | PluginSection, *effects: Affects, plugin: Plugin | None = None
) -> dict[str, Any]:
    """Returns the values of a section whose keys affect one of `effects`.

    Args:
        section: of a config.
        effects: wanted.
        plugin: that the section names. Its `Options` say what its own options affect; the section says it of all
            options that do not.
    """
    own = type(section)
    options = getattr(plugin.factory, "Options", None) if plugin is not None else None
    default = section.options_affect if isinstance(section, PluginSection) else None

    def affects(key: str) -> Affects | None:
        if key in own.model_fields:
            return affects_of(own, key)
        said = affects_of(options, key) if isinstance(options, type) and issubclass(options, BaseModel) else None
        return said or default

    return {key: value for key, value in section.model_dump(mode="json").items() if affects(key) in effects}


def config_fingerprint(config: Config) -> str:
    """Returns a hash of all values that decide what the labels of given media say."""
    effects = (Affects.DETECTIONS, Affects.LABELS)
    decides: dict[str, object] = values_affecting(config, *effects)
    for name in type(config).model_fields:
        section = getattr(config, name)
        if isinstance(section, Section | PluginSection):
            decides[name] = values_affecting(section, *effects)
    return fingerprint(decides)


def detection_key_hashes(config: Config, plugin: Plugin) -> dict[str, str]:
    """Returns a short hash of each value that decides the raw detections, by key, such as `reader.stride`.

    They tell which keys of two configs differ. They are hashes, since an option of a user's own detector may be a
    secret.

    Args:
        config: which has a detector.
        plugin: that detector.
    """
    values: dict[str, object] = {}
    for name, section, named in (("reader", config.reader, None), ("detector", config.detector, plugin)):
        if section is not None:
            affecting = values_affecting(section, Affects.DETECTIONS, plugin=named)
            values |= {f"{name}.{key}": value for key, value in affecting.items()}
    values |= values_affecting(config, Affects.DETECTIONS)
    return {key: fingerprint({key: value})[:12] for key, value in values.items()}


def frame_values(config: Config, folder: Path) -> dict[str, object]:
    """Returns what decides which frames of given media a model gets.

    Args:
        config: whose reader and policy.
        folder: the config's, to which plug-in paths are relative.
    """
    use = config.reader.use
    plugin = None if use == "auto" else load_plugin("reader", use, folder)
    return {
        "reader": values_affecting(config.reader, Affects.DETECTIONS, plugin=plugin),
        "reader_sha256": None if plugin is None else plugin.source_sha256,
        **values_affecting(config, Affects.DETECTIONS),
    }
