"""Models of the Hugging Face hub, or in a folder as `save_pretrained` writes it. Code from the hub is never run."""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from prelabel.errors import MachineError, WeightsError
from prelabel.models.weights import Weights, sha256_of
from prelabel.runtime.files import read_json

if TYPE_CHECKING:
    from types import ModuleType

    import torch

_FILES = ["*.json", "*.safetensors", "*.txt", "README.md"]
"""Files that are fetched: weights and settings. Python files and pickles are left out, since they can run code."""
_NOT_WRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


def resolve_hub_weights(weights: str, revision: str | None) -> Weights:
    """Returns the folder that a path or a hub id names, and fetches a hub id unless it is in the hub's cache.

    Args:
        weights: a folder, or a hub id such as PekingU/rtdetr_v2_r18vd.
        revision: of a hub id, a commit, tag or branch.

    Raises:
        WeightsError: there is no such folder or model, or it cannot be fetched. The message says what to do.
    """
    named = Path(weights).expanduser()
    if named.is_dir():
        return Weights(path=named.absolute(), sha256=sha256_of(named), name=named.name)
    if not _HUB_ID.fullmatch(weights):
        raise WeightsError(f"weights {weights!r}: no such folder, and no hub id (OWNER/NAME) either")
    folder = _fetch(weights, revision)
    return Weights(path=folder, sha256=sha256_of(folder), name=weights)


def import_transformers(section: str) -> ModuleType:
    """Returns the package transformers, without its progress bars and warnings.

    Args:
        section: of the config, for the error.

    Raises:
        MachineError: it is not installed.
    """
    try:
        import transformers
    except ImportError as error:
        raise MachineError(f"{section}.use: transformers is not installed: install prelabel[transformers]") from error
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    library: ModuleType = transformers
    return library


def model_type_of(weights: Weights) -> str:
    """Returns the `model_type` in config.json; empty if the file holds no mapping."""
    content = read_json(weights.path / "config.json", WeightsError)
    return str(content.get("model_type")) if isinstance(content, dict) else ""


def load_processor(loader: Any, weights: Weights) -> Any:
    """Returns the processor of a model.

    Args:
        loader: a class of transformers with `from_pretrained`.
        weights: the model's folder.

    Raises:
        WeightsError: its settings are missing, or cannot be read.
    """
    names = ("preprocessor_config.json", "processor_config.json")
    if not any((weights.path / name).is_file() for name in names):
        raise WeightsError(f"{weights.path}: preprocessor_config.json is missing: it says how frames are prepared")
    try:
        return loader.from_pretrained(weights.path, local_files_only=True, trust_remote_code=False)
    except (ValueError, OSError, ImportError) as error:
        raise WeightsError(f"{weights.path}: preprocessor_config.json: {first_line(error)}") from error


def load_network(loader: Any, weights: Weights, kind: str) -> torch.nn.Module:
    """Returns a network in float32, on the CPU.

    Args:
        loader: a class of transformers with `from_pretrained`.
        weights: the model's folder.
        kind: what the model has to be, in words, such as `a detector`.

    Raises:
        WeightsError: the model is of another kind, its file is damaged or of another model, or some of its weights are
            missing and would be random.
        MachineError: the model needs a package that is not installed.
    """
    import torch
    from safetensors import SafetensorError

    try:
        network, loading = loader.from_pretrained(
            weights.path,
            dtype=torch.float32,
            use_safetensors=True,  # the other format is a pickle, which can run code
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            local_files_only=True,
            trust_remote_code=False,
        )
    except ImportError as error:
        package = re.search(r"requires the (\w+) library", str(error))
        needs = f"needs the package {package[1]}: uv pip install {package[1]}" if package else first_line(error)
        raise MachineError(f"{weights.name}: {needs}") from error
    except SafetensorError as error:
        raise WeightsError(
            f"{weights.path}: a safetensors file is damaged or cut off: get it again ({error})"
        ) from error
    except (ValueError, OSError, KeyError, RuntimeError) as error:
        if "Unrecognized configuration class" in str(error):
            model_type = model_type_of(weights)
            raise WeightsError(f"{weights.path}: config.json: model_type {model_type!r} is not {kind}") from error
        raise WeightsError(f"{weights.path}: cannot be loaded as {kind}: {first_line(error)}") from error
    # transformers fills missing weights with random values and only prints a report.
    absent, others = sorted(loading["missing_keys"]), sorted(name for name, *_ in loading["mismatched_keys"])
    if others:
        raise WeightsError(
            f"{weights.path}: {len(others)} weights do not have the shapes that config.json says ({others[0]}, …): the "
            "two files are of different models"
        )
    if absent:
        raise WeightsError(f"{weights.path}: {len(absent)} weights are missing ({absent[0]}, …): they would be random")
    checked: torch.nn.Module = network
    return checked


def licence_of(folder: Path) -> str | None:
    """Returns the licence in the header of the model's README; None if there is none."""
    page = folder / "README.md"
    text = page.read_text(errors="replace") if page.is_file() else ""
    head = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    try:
        facts = yaml.safe_load(head.group(1)) if head else None
    except yaml.YAMLError:
        return None
    licence = facts.get("license") if isinstance(facts, dict) else None
    return licence if isinstance(licence, str) else None


def first_line(error: BaseException) -> str:
    """Returns the first line of an error that is not empty, or else the error's name."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _fetch(hub_id: str, revision: str | None) -> Path:
    """Returns the folder of a hub id, and fetches it unless it is in the hub's cache.

    Raises:
        WeightsError: the model or its revision does not exist, the model is gated, or it cannot be fetched. The message
            says what to do.
        MachineError: huggingface_hub is not installed.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError as error:
        raise MachineError(f"weights {hub_id!r}: the hub needs transformers: install prelabel[transformers]") from error
    folder = f"models/{hub_id.rpartition('/')[2]}"
    by_hand = (
        f"on a machine with network: hf download {hub_id} --local-dir {folder}; then copy that folder here and set "
        f"weights: {folder}"
    )
    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=_FILES))
    except GatedRepoError as error:
        raise WeightsError(f"weights {hub_id!r}: are gated: accept their terms on the hub and set HF_TOKEN") from error
    except RepositoryNotFoundError as error:
        raise WeightsError(f"weights {hub_id!r}: the hub has no such model, or it is private: set HF_TOKEN") from error
    except RevisionNotFoundError as error:
        raise WeightsError(
            f"weights {hub_id!r}: has no revision {revision!r}: set revision to one of its commits, tags or branches"
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        if isinstance(error, OSError) and error.errno in _NOT_WRITABLE:
            raise WeightsError(
                f"weights {hub_id!r}: cannot be stored in the hub's cache: {error}: make room, or set HF_HOME to "
                "another folder"
            ) from error
        raise WeightsError(f"weights {hub_id!r}: the hub cannot be reached: fetch it {by_hand}") from error
