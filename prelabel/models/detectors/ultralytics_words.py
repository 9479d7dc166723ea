"""Words for Ultralytics' open-vocabulary models, YOLO-World and YOLOE.

Their text encoders are not part of the weights. They run once for a list of words. The result is an ordinary checkpoint
with the words as its classes. It is cached, and every engine runs it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prelabel.data.words import plain_text, refuse_repeated
from prelabel.errors import ConfigError, MachineError, WeightsError
from prelabel.models.ultralytics_models import contained, load_checkpoint
from prelabel.models.weights import MODELS_VARIABLE, Weights, cache_folder, find_file, sha256_of

if TYPE_CHECKING:
    import torch

_CLIP_PACKAGE = "git+https://github.com/ultralytics/CLIP.git"
_ASSETS = "https://github.com/ultralytics/assets/releases/download/v8.4.0"
_CLIP_FOLDER = "https://openaipublic.azureedge.net/clip/models"
_ENCODERS = {
    # Addresses as in ultralytics 8.4 and in its package clip.
    "clip": f"{_CLIP_FOLDER}/40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt",
    "mobileclip": f"{_ASSETS}/mobileclip_blt.ts",
    "mobileclip2": f"{_ASSETS}/mobileclip2_b.ts",
}
_MODEL_CLASS = re.compile(rb"ultralytics\.nn\.tasks.{1,8}?(World|YOLOE)\w*Model", re.DOTALL)

Vocabulary = Literal["fixed", "own", "none"]
"""`fixed`: the classes cannot change; `own`: words can replace the weights' classes; `none`: the weights need words."""


def vocabulary_of(path: Path) -> Vocabulary:
    """Returns whether weights have classes, and whether they take words.

    Only an open-vocabulary checkpoint is loaded for that.
    """
    if not _names_word_model(path):
        return "fixed"
    with contained():
        model, _ = load_checkpoint(path)
    head: Any = model.model[-1]
    if hasattr(head, "lrpc") or getattr(head, "is_fused", False):
        return "fixed"
    return "own" if hasattr(model, "txt_feats") or hasattr(model, "pe") else "none"


def weights_for_words(weights: Weights, words: Sequence[str]) -> Weights:
    """Returns weights whose classes are the words. They are written to the cache unless they are there.

    Raises:
        ConfigError: the model cannot read a word, or two are the same to it.
        WeightsError: the text encoder is not on this machine. The message says what to fetch.
        MachineError: its package is not installed.
    """
    texts = [plain_text(word) for word in words]
    if "" in texts:
        raise ConfigError(f"words: the model cannot read {words[texts.index('')]!r}: name the thing in letters")
    refuse_repeated(words, texts)
    key = hashlib.sha256("\n".join([weights.sha256, *words]).encode()).hexdigest()[:12]
    target = cache_folder() / "words" / key / f"{weights.path.stem}.pt"
    if not _is_current(target):
        import torch

        with contained(), torch.no_grad():
            model, checkpoint = load_checkpoint(weights.path)
            encoder = _find_encoder(model, weights.name)
            _set_words(model, words, _encode(encoder, texts))
            kept = {name: checkpoint[name] for name in ("train_args", "license") if checkpoint.get(name)}
            _save({**kept, "model": model}, target)
        _encoder_record(target).write_text(f"{encoder.name}\n{sha256_of(encoder)}\n", encoding="utf-8")
    return replace(weights, path=target, sha256=sha256_of(target))


def _is_current(target: Path) -> bool:
    """Returns whether the checkpoint is in the cache, made by the text encoder of this machine, if it has one."""
    try:
        name, sha256 = _encoder_record(target).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return False
    encoder = find_file(name)
    return target.is_file() and (encoder is None or sha256_of(encoder) == sha256)


def _encoder_record(target: Path) -> Path:
    """Returns the file next to a checkpoint with the name and sha256 of the text encoder that made it."""
    return target.with_suffix(".encoder.txt")


def _names_word_model(path: Path) -> bool:
    """Returns whether a checkpoint's pickle names a class of YOLO-World or YOLOE. Nothing in it runs."""
    if path.suffix.lower() != ".pt" or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        return any(_MODEL_CLASS.search(archive.read(name)) for name in pickles)


def _set_words(model: Any, words: Sequence[str], features: torch.Tensor) -> None:
    """Makes words the classes of a model.

    Args:
        model: a YOLO-World or YOLOE model.
        words: its new classes.
        features: (1, N, D), the text encoder's output.
    """
    head = model.model[-1]
    if hasattr(head, "get_tpe"):
        model.set_classes(list(words), head.get_tpe(features))
        return
    model.txt_feats, head.nc, model.names = features, len(words), dict(enumerate(words))


def _encode(path: Path, texts: Sequence[str]) -> torch.Tensor:
    """Returns the text encoder's features, (1, N, D) float32, of length 1 each."""
    import torch
    from ultralytics.nn import text_model

    cpu = torch.device("cpu")
    encoder = text_model.MobileCLIPTS(cpu, str(path)) if path.suffix == ".ts" else text_model.CLIP(str(path), cpu)
    features: torch.Tensor = encoder.encode_text(encoder.tokenize(list(texts)))
    return features.float()[None]


def _find_encoder(model: Any, name: str) -> Path:
    """Returns the file of a model's text encoder.

    Raises:
        WeightsError: it is not on this machine. The message says what to fetch.
        MachineError: the package that it needs is not installed.
    """
    kind = str(getattr(model, "text_model", "clip")).partition(":")[0]
    address = _ENCODERS.get(kind)
    if address is None:
        raise WeightsError(f"{name}: reads words with {kind!r}, expected one of {', '.join(_ENCODERS)}")
    file = address.rpartition("/")[2]
    path = find_file(file)
    if path is None:
        raise WeightsError(
            f"{name}: reads words with a text encoder that is not here: fetch {address} and put it at models/{file} or "
            f"into a folder that ${MODELS_VARIABLE} names"
        )
    if importlib.util.find_spec("clip") is None:
        raise MachineError(f"{name}: reads words with the package clip: uv pip install {_CLIP_PACKAGE}")
    return path


def _save(checkpoint: dict[str, Any], target: Path) -> None:
    """Writes a checkpoint completely or not at all."""
    import torch

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        unfinished = Path(folder) / target.name
        torch.save(checkpoint, unfinished)
        unfinished.replace(target)
