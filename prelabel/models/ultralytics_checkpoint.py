"""Ultralytics at work: nothing installed, fetched or reported behind the user's back."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from prelabel.errors import MachineError, WeightsError

_log = logging.getLogger(__name__)


def load_checkpoint(path: Path) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Returns the model of a .pt file, as saved, and the checkpoint around it.

    Raises:
        WeightsError: if the file holds none.
    """
    from ultralytics.nn import tasks

    asked = tasks.SAFE_LOAD
    try:
        tasks.SAFE_LOAD = True
        return _read_checkpoint(path)
    except WeightsError as refused:
        if "outside the supported" not in str(refused):
            raise
        # The user named this file, and Ultralytics itself would run it; a fetched one has passed its sha256.
        _log.warning("%s: holds classes of its own, so loading it runs code from the file", path)
        tasks.SAFE_LOAD = False
        return _read_checkpoint(path)
    finally:
        tasks.SAFE_LOAD = asked


def _read_checkpoint(path: Path) -> tuple[torch.nn.Module, dict[str, Any]]:
    from ultralytics.nn import tasks

    try:
        model, checkpoint = tasks.load_checkpoint(str(path.absolute()))
        return model, checkpoint
    except (RuntimeError, TypeError, AttributeError, ModuleNotFoundError, KeyError, EOFError) as error:
        raise WeightsError(f"{path}: is no Ultralytics checkpoint that this version can load: {error}") from error


def names_in_order(names: Mapping[int, str]) -> tuple[str, ...]:
    """Returns class names by class id."""
    return tuple(str(names[index]) for index in sorted(names))


@contextmanager
def contained() -> Iterator[None]:
    """Lets Ultralytics work offline, apart from the user's settings; leaves environment, threads and Pillow alone."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prelabel" / "ultralytics"
    wanted = {
        "YOLO_OFFLINE": "true",  # it looks names up on import, to know whether there is a network
        "YOLO_AUTOINSTALL": "false",
        "YOLO_VERBOSE": "false",
        "YOLO_CONFIG_DIR": os.environ.get("YOLO_CONFIG_DIR", str(home)),
    }
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(f"{home}: {error.strerror}: set XDG_CACHE_HOME to a folder that is yours") from error
    before = {name: os.environ.get(name) for name in (*wanted, "OMP_NUM_THREADS")}
    os.environ.update(wanted)
    num_threads = torch.get_num_threads()  # Ultralytics leaves one core of two idle on a CPU
    open_image = Image.open  # ultralytics 8.4 puts its own in its place, which wants to install a package
    try:
        import torchvision  # noqa: F401, its NMS is used only if it is imported first
        from ultralytics.utils import SETTINGS

        dict.update(SETTINGS, sync=False)  # telemetry off in this process; the settings file stays as it is
        yield
    except ImportError as error:
        raise MachineError(f"'ultralytics': its packages cannot be imported: {error}") from error
    finally:
        Image.open = open_image
        torch.set_num_threads(num_threads)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
