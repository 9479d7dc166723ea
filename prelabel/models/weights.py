"""Finds, checks and fetches weights, given by name, path or URL."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
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
    """Facts about a model, read from `models/NAME.yaml`. Other keys in the file are notes.

    Attributes:
        name: name of the model, for people; by default the card's file name.
        file: name of the weights file, which is next to the card or in another models folder.
        sha256: sha256 of the weights file, 64 hexadecimal digits.
        url: address of the published file.
        licence: SPDX identifier of the weights' licence.
        use: the detector or classifier that loads the weights.
        format: form of an ONNX graph's outputs, as in `detector.format`; None: found from the outputs.
        classes: names by class id; None if the weights have their own.
        builder: torchvision's function that builds the network.
        builder_args: keyword arguments for the builder.
        source: origin of the weights and of the sha256.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str
    file: str = Field(pattern=r"^[^/\\]+$")
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    url: str | None = Field(default=None, pattern=r"^https?://")
    licence: str
    use: str
    format: str | None = None
    classes: tuple[str, ...] | None = None
    builder: str | None = None
    builder_args: dict[str, Any] = Field(default_factory=dict)
    source: str | None = None


def find_card(weights: str, folders: Sequence[Path] | None = None) -> ModelCard | None:
    """Returns the card with this name, or whose file has this name.

    Returns None if there is no such card, or if the working directory holds a file of this name.

    Raises:
        WeightsError: the card cannot be read.
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


def plugin_for(
    section: str, options: Mapping[str, object], built_in: str, by_ending: Mapping[str, str] | None = None
) -> str:
    """Returns the plug-in that loads the weights: the card's, or the one for the file's ending.

    Args:
        section: section of the config: detector or classifier.
        options: the section's keys; `weights` says which weights.
        built_in: built-in plug-ins, in words, for the error message.
        by_ending: plug-ins by the ending of the files or URLs that they load.

    Raises:
        ConfigError: neither a card nor the ending names a plug-in.
    """
    known = f"{built_in}, module:Name or mine.py:Mine"
    weights = options.get("weights")
    if not isinstance(weights, str):
        for key in options:
            if get_close_matches(key.lower(), ["weights"], cutoff=0.7):
                raise ConfigError(f"{section}.{key}: is not a key of the config: did you mean 'weights'?")
        raise ConfigError(f"{section}: has no weights: add weights: NAME_OR_PATH, or use: {known}")
    card = find_card(weights)
    if card is not None:
        return card.use
    for ending, use in (by_ending or {}).items():
        if urlsplit(weights).path.endswith(ending):
            return use
    hint = did_you_mean(weights, card_names())
    raise ConfigError(
        f"{section}.weights: {redact(weights)!r} is not a model card ({hint}); "
        f"a file or an address also needs use: {known}"
    )


def read_card(path: Path) -> ModelCard:
    """Reads a model card.

    Raises:
        WeightsError: the file is no card. The message names the key.
    """
    content = read_yaml(path, WeightsError)
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: is not a model card: expected keys such as file, licence and use")
    try:
        return ModelCard.model_validate({"name": path.stem, **content})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise WeightsError(f"{path}: {where}: {first['msg']}") from error


def named_model_folders() -> list[Path]:
    """Returns the model folders that `PRELABEL_MODELS` names."""
    return [Path(name).expanduser() for name in os.environ.get(MODELS_VARIABLE, "").split(os.pathsep) if name]


def model_folders() -> list[Path]:
    """Returns the folders that are searched for cards and weights, in order."""
    package = Path(__file__).resolve().parents[1]
    # A source checkout has models/ next to the package. A wheel has the same files inside the package.
    candidates = [*named_model_folders(), Path.cwd() / "models", package.parent / "models", package / "model_cards"]
    return list(dict.fromkeys(candidates))


# These formats hold only numbers and a graph. All others can run code when they are loaded.
_INERT_SUFFIXES = frozenset({".onnx", ".safetensors"})
_LIMITS = DownloadLimits(connect_seconds=10.0, backoff=replace(DOWNLOAD_BACKOFF, attempts=3))
"""Fewer attempts than for media, since the user is waiting for the weights."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights on this machine.

    Attributes:
        path: absolute path of the file, or of the folder for formats that are folders.
        sha256: sha256 of the file, or of a folder's names and contents.
        name: name of the card, or of the file without its suffix.
        card: the card that led to the weights; None without a card.
    """

    path: Path
    sha256: str
    name: str
    card: ModelCard | None = None

    @property
    def licence(self) -> str | None:
        """The licence on the card; None without a card."""
        return self.card.licence if self.card else None


def resolve_weights(weights: str, *, folders: Sequence[Path] | None = None) -> Weights:
    """Returns the weights that a config names, and fetches them if necessary.

    The name of a card (or of its file) comes first, then a path, then a file of that name in a models folder. Files
    are fetched only if a card or the URL gives their sha256, since weights are code. Formats that cannot run code need
    no sha256.

    Args:
        weights: `yolo11n`, `runs/best.pt`, `https://host/best.pt#sha256=…`.
        folders: folders to search for cards and files, in order; by default `$PRELABEL_MODELS`, `models/`, and the
            cards that come with the package. The user's cache is searched after them.

    Raises:
        ConfigError: the value is empty, or its address is malformed.
        WeightsError: the weights cannot be found or fetched, or have another sha256. The message says what to do.
    """
    folders = model_folders() if folders is None else folders
    if not weights.strip():
        raise ConfigError("weights: got nothing, expected a model's name, a path or an address")
    if re.match(r"^https?://", weights):
        return _from_address(weights)
    card = find_card(weights, folders)
    if card is not None:
        return _from_card(card, folders)
    path = find_file(weights, [Path(), *folders])
    if path is None:
        raise WeightsError(_not_found(weights, folders))
    return Weights(path=path, sha256=sha256_of(path), name=path.stem)


def find_file(name: str, folders: Sequence[Path] | None = None) -> Path | None:
    """Returns the file of this name, or the OpenVINO folder, in the folders; by default in all model folders."""
    folders = [*model_folders(), cache_folder()] if folders is None else folders
    for path in (folder / name for folder in folders):
        # OpenVINO's format is a folder with the graph as an .xml file.
        if path.is_file() or any(path.glob("*.xml")):
            return path.absolute()
    return None


def user_cache() -> Path:
    """Returns the folder of all that can be fetched or made again: `$XDG_CACHE_HOME/prelabel`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prelabel"


def cache_folder() -> Path:
    """Returns the cache folder of fetched weights: `$XDG_CACHE_HOME/prelabel/models`."""
    return user_cache() / "models"


def sha256_of(path: Path) -> str:
    """Returns the sha256 of a file, or of the relative names and contents of a folder's files."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for file_path in sorted(path.rglob("*")):
        if file_path.is_file():
            digest.update(f"{file_path.relative_to(path).as_posix()} {sha256_of(file_path)}\n".encode())
    return digest.hexdigest()


def fetch(url: str, target: Path, sha256: str | None) -> str:
    """Fetches a file and returns its sha256.

    The file gets its final name only after it is complete and has passed its sha256 check.

    Raises:
        WeightsError: the file cannot be fetched or has another sha256. The message says what to do.
    """
    _log.info("fetching %s to %s", shown(url), target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder,
            requests.Session() as session,  # unlike sessions for signed links, it may log in by .netrc or the URL
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
            fetched.replace(target)  # atomic, since both paths are on one file system
    except FetchError as error:
        raise WeightsError(_not_fetched(url, target, sha256, str(error).removeprefix(f"{target.name}: "))) from error
    except OSError as error:
        raise WeightsError(_not_fetched(url, target, sha256, error.strerror or type(error).__name__)) from error
    return found


def shown(url: str) -> str:
    """Returns a URL without the parts that may be secret: user, query and fragment.

    >>> shown("https://me:key@host/a/best.pt?token=1#x")
    'https://host/a/best.pt'
    """
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _from_card(card: ModelCard, folders: Sequence[Path]) -> Weights:
    """Returns a card's weights. A file in a models folder is used even if its sha256 differs, with a warning."""
    placed = find_file(card.file, folders)
    path = placed or find_file(card.file, [cache_folder()]) or _fetch_card(card)
    found = sha256_of(path)
    if card.sha256 is None or found == card.sha256:
        return Weights(path=path, sha256=found, name=card.name, card=card)
    difference = f"{path}: sha256 is {found}, the card '{card.name}' says {card.sha256}"
    if placed is None:
        raise WeightsError(
            f"{difference}: the file has changed since it was fetched: remove it, and the run fetches it again"
        )
    _log.warning("%s: these are not the published weights: the run uses them and records this sha256", difference)
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
    # One folder per URL, since files of different URLs may have the same name.
    target = cache_folder() / hashlib.sha256(url.encode()).hexdigest()[:12] / name
    if target.is_file() and (not sha256 or sha256_of(target) == sha256):
        return Weights(path=target, sha256=sha256_of(target), name=target.stem)
    return Weights(path=target, sha256=fetch(url, target, sha256 or None), name=target.stem)


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
