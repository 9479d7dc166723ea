"""Weights by name, path or address: where they are looked for, how they are checked, and how they are fetched."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag, urlsplit

import requests
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prelabel.errors import ConfigError, FetchError, WeightsError, did_you_mean
from prelabel.runtime.download import DOWNLOAD_BACKOFF, DownloadLimits, download
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


# Formats that hold numbers and a graph. All others can run code when they are loaded.
_INERT_SUFFIXES = frozenset({".onnx", ".safetensors"})
_LIMITS = DownloadLimits(connect_seconds=10.0, backoff=replace(DOWNLOAD_BACKOFF, attempts=3))
"""Somebody sits and waits for weights."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights that are on this machine.

    Attributes:
        path: an absolute file, or a folder for formats that are one.
        sha256: of the file; of a folder's names and contents.
        name: the card's, or the file's without its suffix.
        card: the card they were found by; None for a bare file.
    """

    path: Path
    sha256: str
    name: str
    card: ModelCard | None = None

    @property
    def licence(self) -> str | None:
        """The card's licence."""
        return self.card.licence if self.card else None


def resolve_weights(weights: str, *, folders: Sequence[Path] | None = None) -> Weights:
    """Returns the weights that a config names, fetched first if need be.

    A card's name (or its file's name) comes first, then a path, then a file of that name in a models folder. Only what
    a card, or an address with its sha256, pins is fetched: weights are code.

    Args:
        weights: `yolo11n`, `runs/best.pt`, `https://host/best.pt#sha256=…`.
        folders: where cards and files are looked for, in order; by default `$PRELABEL_MODELS`, `models/`, and the
            cards that come with the package. The user's cache comes after them.

    Raises:
        WeightsError: if they are not to be had, or are not what they should be. It says what to do.
    """
    folders = model_folders() if folders is None else folders
    if not weights.strip():
        raise ConfigError("weights: got nothing, expected a model's name, a path or an address")
    if re.match(r"^https?://", weights):
        return _from_address(weights)
    card = find_card(weights, folders)
    if card is not None:
        return _from_card(card, folders)
    path = _find_file(weights, [Path(), *folders])
    if path is None:
        raise WeightsError(_not_found(weights, folders))
    return Weights(path=path, sha256=sha256_of(path), name=path.stem)


def cache_folder() -> Path:
    """Returns the folder that fetched weights are kept in: `$XDG_CACHE_HOME/prelabel/models`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prelabel" / "models"


def sha256_of(path: Path) -> str:
    """Returns the sha256 of a file, or of a folder's relative names and their contents."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for file_path in sorted(path.rglob("*")):
        if file_path.is_file():
            digest.update(f"{file_path.relative_to(path).as_posix()} {sha256_of(file_path)}\n".encode())
    return digest.hexdigest()


def fetch(url: str, target: Path, sha256: str | None) -> str:
    """Fetches a file and returns its sha256; the file has its name only once it is whole and as expected.

    Raises:
        WeightsError: if it cannot be had, or is another file. It says where to put it by hand.
    """
    _log.info("fetching %s to %s", shown(url), target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder,
            requests.Session() as session,  # unlike those for signed links, it may log in by .netrc or the address
        ):
            session.headers["Accept-Encoding"] = "identity"
            fetched = Path(folder) / target.name
            download(lambda: url, fetched, None, target.name, session=session, limits=_LIMITS)
            found = sha256_of(fetched)
            if sha256 is not None and found != sha256:
                raise WeightsError(
                    f"{shown(url)}: fetched a file with sha256 {found}, expected {sha256}: it is not the file that "
                    "was asked for and was thrown away. If its publisher has replaced it and you trust it, change the "
                    "sha256"
                )
            fetched.replace(target)
    except FetchError as error:
        raise WeightsError(_not_fetched(url, target, sha256, str(error).removeprefix(f"{target.name}: "))) from error
    except OSError as error:
        raise WeightsError(_not_fetched(url, target, sha256, error.strerror or type(error).__name__)) from error
    return found


def shown(url: str) -> str:
    """Returns an address without what may be secret in it: user, query and fragment.

    >>> shown("https://me:key@host/a/best.pt?token=1#x")
    'https://host/a/best.pt'
    """
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _from_card(card: ModelCard, folders: Sequence[Path]) -> Weights:
    """Returns a card's weights. A file that somebody put into a models folder is taken at that person's word."""
    placed = _find_file(card.file, folders)
    path = placed or _find_file(card.file, [cache_folder()]) or _fetch_card(card)
    found = sha256_of(path)
    if card.sha256 is None or found == card.sha256:
        return Weights(path=path, sha256=found, name=card.name, card=card)
    difference = f"{path}: sha256 is {found}, the card '{card.name}' says {card.sha256}"
    if placed is None:
        raise WeightsError(f"{difference}: what was fetched has changed since: remove it, and it is fetched anew")
    _log.warning("%s: not the published weights; used all the same, and kept on record by this sha256", difference)
    return Weights(path=path, sha256=found, name=card.name, card=card)


def _fetch_card(card: ModelCard) -> Path:
    target = cache_folder() / card.file
    if card.url is None:
        raise WeightsError(f"model '{card.name}': {card.file} is not here and its card has no url: {_where(card.file)}")
    if card.sha256 is None and not _is_inert(card.file):
        raise WeightsError(
            f"model '{card.name}': {card.file} is not here, and its card has no sha256 to check a fetched file by "
            f"(loading weights can run code in them). Fetch {shown(card.url)} yourself, {_where(card.file)}"
        )
    fetch(card.url, target, card.sha256)
    return target


def _from_address(address: str) -> Weights:
    url, fragment = urldefrag(address)
    name = Path(urlsplit(url).path).name
    key, _, sha256 = fragment.partition("=")
    if fragment and (key != "sha256" or not re.fullmatch(r"[0-9a-f]{64}", sha256)):
        raise ConfigError(f"weights: got #{fragment}, expected #sha256= and 64 lower-case hexadecimal digits")
    if not name:
        raise ConfigError(f"weights: {shown(url)} names no file")
    if not sha256 and not _is_inert(name):
        raise WeightsError(
            f"{shown(url)}: weights can run code when they are loaded, so they are fetched only with their sha256: "
            f"add #sha256=… to the address, or write a card (models/{Path(name).stem}.yaml: file, url, sha256, "
            f"licence, use), or fetch the file yourself and give its path"
        )
    # One folder an address: best.pt of one place is not best.pt of another.
    target = cache_folder() / hashlib.sha256(url.encode()).hexdigest()[:12] / name
    if target.is_file() and (not sha256 or sha256_of(target) == sha256):
        return Weights(path=target, sha256=sha256_of(target), name=target.stem)
    return Weights(path=target, sha256=fetch(url, target, sha256 or None), name=target.stem)


def _find_file(name: str, folders: Sequence[Path]) -> Path | None:
    for path in (folder / name for folder in folders):
        # A format that is a folder: OpenVINO's graph is an .xml file in it.
        if path.is_file() or any(path.glob("*.xml")):
            return path.absolute()
    return None


def _is_inert(name: str) -> bool:
    return Path(name).suffix.lower() in _INERT_SUFFIXES


def _not_found(weights: str, folders: Sequence[Path]) -> str:
    cards = card_names(folders)
    looked = ", ".join(str(folder) for folder in folders)
    if Path(weights).suffix or Path(weights).name != weights:
        return (
            f"weights '{weights}': no such file, neither at this path nor in {looked}; {did_you_mean(weights, cards)}"
        )
    return f"weights '{weights}': no model of this name; {did_you_mean(weights, cards)} (cards in {looked})"


def _not_fetched(url: str, target: Path, sha256: str | None, reason: str) -> str:
    expected = f" (sha256 {sha256})" if sha256 else ""
    return f"{target.name}: cannot be fetched from {shown(url)}: {reason}. Get it{expected}, {_where(target.name)}"


def _where(name: str) -> str:
    return f"and put it at models/{name}, into a folder that ${MODELS_VARIABLE} names, or at {cache_folder() / name}"
