"""The source of the demo: a short clip with known contents, for a first run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from prelabel.config.sections import Config
from prelabel.config.source import CLOSED, OutputFolder, PreviewKind, SourceSection
from prelabel.files.folder_source import FolderSource
from prelabel.plugins.affects import Affects
from prelabel.plugins.protocols import Task
from prelabel.runtime.shared import Shared

CLIP_NAME = "demo.mp4"
TRUTH_NAME = "demo.truth.json"
FOLDER = Path(__file__).parent
"""The folder of both files in the package."""


class DemoSection(SourceSection):
    """A short clip with known contents, which comes with the package."""

    model_config = CLOSED

    use: Annotated[Literal["demo"], Affects.PLACE] = "demo"
    output: Annotated[OutputFolder, Affects.PLACE] = Field(
        Path("out/demo"), description="folder for the clip and for everything that a run writes"
    )
    preview: Annotated[PreviewKind, Affects.NOTHING] = Field(
        "both", description="draw the boxes after the run: clip | sheet | both | none"
    )

    @property
    def truth_file(self) -> Path:
        """Path of the copy of the ground truth in the output folder."""
        return self.run_folder / TRUTH_NAME

    @property
    def preview_kind(self) -> PreviewKind:
        """The value of the key `preview`."""
        return self.preview


class DemoSource(FolderSource):
    """The source of the demo's clip.

    It copies the clip and its ground truth into the output folder, so that everything about the demo is in one folder.
    """

    Section: ClassVar[type[SourceSection]] = DemoSection

    def __init__(self, output: Path) -> None:
        """Copies nothing yet; `prepare` does.

        Args:
            output: folder for the clip and everything that a run writes.
        """
        super().__init__(output / CLIP_NAME, output)
        self._folder = output

    @classmethod
    def from_config(cls, config: Config, shared: Shared) -> DemoSource:
        """Returns the source that a config describes."""
        return cls(config.source.run_folder)

    def prepare(self) -> None:
        """Copies the clip and the ground truth, unless the copies exist."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for name in (CLIP_NAME, TRUTH_NAME):
            shipped, copy = FOLDER / name, self._folder / name
            if not copy.exists() or copy.stat().st_size != shipped.stat().st_size:
                shutil.copy2(shipped, copy)  # also copies the modification time, which is part of the task's identity

    def _list(self) -> list[Task]:
        self.prepare()
        return super()._list()

    def owns(self, key: str, title: str) -> bool:
        """Returns whether a stored task is the clip."""
        return key == CLIP_NAME
