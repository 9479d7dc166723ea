"""Built engines, kept from run to run, and built again when anything that goes into them has changed."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

_KEY_FILE = "key.json"


@dataclass(frozen=True, slots=True)
class EngineKey:
    """All that decides what a built engine computes and where it runs.

    Attributes:
        weights_sha256: of the weights that it is built from.
        engine: onnx, openvino or tensorrt.
        device: the processor's or the GPU's name.
        input_shape: shapes that it takes, in words.
        precision: float32, float16 or bfloat16.
        head: which of a model's heads it holds.
        versions: of what writes the graph, and of what runs it.
    """

    weights_sha256: str
    engine: str
    device: str
    input_shape: str
    precision: str
    head: str
    versions: str

    @property
    def slot(self) -> str:
        """Name of its folder. Versions are not in it: an engine of other versions is replaced, not kept beside."""
        parts = (self.engine, self.precision, self.head, self.input_shape, self.device)
        return "-".join(re.sub(r"[^a-z0-9.]+", "_", part.lower()).strip("_") for part in parts)


def engines_folder() -> Path:
    """Returns the folder that built engines are kept in: `$XDG_CACHE_HOME/prelabel/engines`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prelabel" / "engines"


def built_engine(key: EngineKey, build: Callable[[Path], None]) -> Path:
    """Returns the folder of an engine: the kept one if it was built under this very key, else a new one.

    Args:
        key: of the engine.
        build: writes the engine into an empty folder. What it raises is raised, and nothing is kept.
    """
    place = engines_folder() / key.weights_sha256[:12] / key.slot
    if _is_built(place, key):
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{place.name}."[:100], dir=place.parent))
    try:
        build(unfinished)
        (unfinished / _KEY_FILE).write_text(json.dumps(asdict(key), indent=2), encoding="utf-8")
        shutil.rmtree(place, ignore_errors=True)
        try:
            unfinished.rename(place)
        except OSError:  # another process has put its own there
            if not _is_built(place, key):
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return place


def _is_built(place: Path, key: EngineKey) -> bool:
    try:
        return bool(json.loads((place / _KEY_FILE).read_text(encoding="utf-8")) == asdict(key))
    except (OSError, ValueError):
        return False
