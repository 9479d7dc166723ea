"""Model cards: what is known of a model, one YAML file each."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prelabel.errors import ConfigError, WeightsError, did_you_mean
from prelabel.runtime.redact import redact
from prelabel.runtime.yaml_files import read_yaml

MODELS_VARIABLE = "PRELABEL_MODELS"


class ModelCard(BaseModel):
    """What is known of a model: `models/NAME.yaml`. Keys beyond these are notes.

    Attributes:
        name: what people call the model; by default the card's file name.
        file: name of the weights file, beside the card or in another models folder.
        sha256: of the weights file, 64 hexadecimal digits.
        url: where the file is published.
        licence: SPDX identifier of the weights' licence.
        use: the detector that loads them.
        classes: names by class id; None where the weights carry their own.
        builder: torchvision's function that builds the network.
        builder_args: keyword arguments for it.
        source: where the weights, and the sha256, come from.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str
    file: str = Field(pattern=r"^[^/\\]+$")
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    url: str | None = Field(default=None, pattern=r"^https?://")
    licence: str
    use: str
    classes: tuple[str, ...] | None = None
    builder: str | None = None
    builder_args: dict[str, Any] = Field(default_factory=dict)
    source: str | None = None


def find_card(weights: str, folders: Sequence[Path] | None = None) -> ModelCard | None:
    """Returns the card of this name, or of the file of this name; None if there is none, or if such a file lies here.

    Raises:
        WeightsError: if the card cannot be read.
    """
    stem, suffix = Path(weights).stem, Path(weights).suffix
    if Path(weights).name != weights or (suffix and Path(weights).exists()):
        return None
    for folder in model_folders() if folders is None else folders:
        for name in (weights, stem):
            path = folder / f"{name}.yaml"
            if path.is_file():
                card = read_card(path)
                if weights in {name, card.file}:
                    return card
    return None


def card_names(folders: Sequence[Path] | None = None) -> list[str]:
    """Returns the names of all cards, sorted."""
    return sorted({path.stem for folder in folders or model_folders() for path in folder.glob("*.yaml")})


def plugin_for(section: str, weights: object, built_in: str, by_ending: Mapping[str, str] | None = None) -> str:
    """Returns which plug-in loads such weights: the card's, or the one whose files end like this.

    Args:
        section: of the config: detector or classifier.
        weights: as the config has them.
        built_in: plug-ins to name where nothing tells, in words.
        by_ending: plug-ins by the ending of files or addresses that they load.

    Raises:
        ConfigError: nothing tells.
    """
    known = f"{built_in}, module:Name or mine.py:Mine"
    if not isinstance(weights, str):
        raise ConfigError(f"{section}: names neither weights nor a {section}: add weights: CARD, or use: {known}")
    card = find_card(weights)
    if card is not None:
        return card.use
    for ending, use in (by_ending or {}).items():
        if urlsplit(weights).path.endswith(ending):
            return use
    hint = did_you_mean(weights, card_names())
    raise ConfigError(
        f"{section}.weights: {redact(weights)!r} is no model card, {hint}; for a file or address add use: {known}"
    )


def read_card(path: Path) -> ModelCard:
    """Returns a model card.

    Raises:
        WeightsError: if the file is no card; it names the key.
    """
    content = read_yaml(path, WeightsError)
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: is no model card: expected keys such as file, licence and use")
    try:
        return ModelCard.model_validate({"name": path.stem, **content})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise WeightsError(f"{path}: {where}: {first['msg']}") from error


def named_model_folders() -> list[Path]:
    """Returns the folders that the environment names."""
    return [Path(name).expanduser() for name in os.environ.get(MODELS_VARIABLE, "").split(os.pathsep) if name]


def model_folders() -> list[Path]:
    """Returns the folders where cards and weights are looked for, in order."""
    package = Path(__file__).resolve().parents[1]
    # A source checkout has models/ beside the package; a wheel has the same files inside it.
    candidates = [*named_model_folders(), Path.cwd() / "models", package.parent / "models", package / "model_cards"]
    return list(dict.fromkeys(candidates))
