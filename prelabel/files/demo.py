"""The demo: a short clip with known contents that comes with the package."""

from __future__ import annotations

import shutil
from pathlib import Path

from prelabel.files.folder_source import FolderSource

CLIP_NAME = "demo.mp4"
TRUTH_NAME = "demo.truth.json"
FOLDER = Path(__file__).parent
"""Where both lie in the package."""


class DemoSource(FolderSource):
    """The demo's clip, copied into the output with its ground truth, so that all of the demo lies in one folder."""

    def __init__(self, output: Path) -> None:
        output.mkdir(parents=True, exist_ok=True)
        for name in (CLIP_NAME, TRUTH_NAME):
            shipped, copy = FOLDER / name, output / name
            if not copy.exists() or copy.stat().st_size != shipped.stat().st_size:
                shutil.copy2(shipped, copy)  # with its time: a task whose file has another counts as changed
        super().__init__(output / CLIP_NAME, output)
