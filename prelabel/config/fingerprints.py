"""Hashes of all that decides what is found, by which a run knows what an earlier one has found already."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from prelabel.config.sections import DECODING_KEYS, Config
from prelabel.plugins.load import load_plugin


def digest_of(decides: Mapping[str, object]) -> str:
    """Returns a hash of what decides something."""
    return hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()


def digests_by_key(config: Config) -> dict[str, str]:
    """Returns short hashes of the values that decide what a detector finds, by key, such as `reader.stride`.

    They tell which keys of two configs differ. The values themselves stay in the config: an option of somebody's own
    detector may be a secret.
    """
    detector = {} if config.detector is None else config.detector.model_dump(mode="json", exclude={"batch_size"})
    reader = config.reader.model_dump(mode="json", exclude=DECODING_KEYS)
    sections = {"reader": reader, "detector": detector}
    values = {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}
    return {key: digest_of({key: value})[:12] for key, value in {**values, "frames": config.frames}.items()}


def reader_decides(config: Config, folder: Path) -> dict[str, object]:
    """Returns what decides which pictures a model sees of given media.

    Args:
        config: whose reader and policy.
        folder: the config's, to which plug-in paths are relative.
    """
    use = config.reader.use
    return {
        "reader": config.reader.model_dump(mode="json", exclude=DECODING_KEYS),
        "reader_sha256": None if use == "auto" else load_plugin("reader", use, folder).source_sha256,
        "frames": config.frames,
    }
