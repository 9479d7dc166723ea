"""Fingerprints: hashes of the config values that affect a result. They show whether a cached result is still valid."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prelabel.config.base import PluginSection, Section
from prelabel.config.sections import Config
from prelabel.plugins.affects import Affects, affects_of
from prelabel.plugins.load import Plugin, load_plugin


def fingerprint(decides: Mapping[str, object]) -> str:
    """Returns the SHA-256, in hexadecimal, of the values that affect a result."""
    return hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()


def values_affecting(
    section: Section | PluginSection, *effects: Affects, plugin: Plugin | None = None
) -> dict[str, Any]:
    """Returns the values of a section whose keys affect one of `effects`.

    A config that names what prelabel would choose anyway gives the same values: `use` is the name of the plug-in, and
    options with their default are left out.

    Args:
        section: a section of a config.
        effects: the effects to select.
        plugin: the plug-in that the section names. Its `Options` state what its options affect. For other options, the
            section's `options_affect` applies.
    """
    own, values = type(section), section.model_dump(mode="json")
    options = plugin.options_model if plugin is not None else None
    by_default = section.options_affect if isinstance(section, PluginSection) else None
    if plugin is not None and "use" in values:
        values["use"] = plugin.use

    def affects(key: str) -> Affects | None:
        if key in own.model_fields:
            return affects_of(own, key)
        field = None if options is None else options.model_fields.get(key)
        if options is None or field is None:
            return by_default
        return None if values[key] == field.default else affects_of(options, key) or by_default

    return {key: value for key, value in values.items() if affects(key) in effects}


def config_fingerprint(config: Config) -> str:
    """Returns the hash of all config values that affect the labels."""
    effects = (Affects.DETECTIONS, Affects.LABELS)
    decides: dict[str, object] = values_affecting(config, *effects)
    for name in type(config).model_fields:
        section = getattr(config, name)
        if isinstance(section, Section | PluginSection):
            decides[name] = values_affecting(section, *effects)
    return fingerprint(decides)


def detection_key_hashes(config: Config, plugin: Plugin) -> dict[str, str]:
    """Returns a short hash of each value that affects the raw detections, by key, such as `reader.stride`.

    The hashes show which keys of two configs differ. The values themselves are not stored, since an option of a user's
    detector may be a secret.

    Args:
        config: a config with a detector.
        plugin: plug-in of that detector.
    """
    values: dict[str, object] = {}
    for name, section, named in (("reader", config.reader, None), ("detector", config.detector, plugin)):
        if section is not None:
            affecting = values_affecting(section, Affects.DETECTIONS, plugin=named)
            values |= {f"{name}.{key}": value for key, value in affecting.items()}
    values |= values_affecting(config, Affects.DETECTIONS)
    return {key: fingerprint({key: value})[:12] for key, value in values.items()}


def frame_values(config: Config, folder: Path) -> dict[str, object]:
    """Returns the values that affect which frames a model gets.

    Args:
        config: the config with the reader and the frame policy.
        folder: the config's folder, which plug-in paths are relative to.
    """
    use = config.reader.use
    plugin = None if use == "auto" else load_plugin("reader", use, folder)
    return {
        "reader": values_affecting(config.reader, Affects.DETECTIONS, plugin=plugin),
        "reader_sha256": None if plugin is None else plugin.source_sha256,
        **values_affecting(config, Affects.DETECTIONS),
    }
