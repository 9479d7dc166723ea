"""A short clip with known contents: what a newcomer runs first."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from prelabel.config.sections import Config
from prelabel.config.source import CLOSED, PreviewKind, SourceSection
from prelabel.files.folder_source import FolderSource, FolderTask
from prelabel.plugins.affects import Affects
from prelabel.runtime.shared import Shared

CLIP_NAME = "demo.mp4"
TRUTH_NAME = "demo.truth.json"
FOLDER = Path(__file__).parent
"""Where both are in the package."""


class DemoSection(SourceSection):
    """A short clip with known contents, which comes with the package."""

    model_config = CLOSED

    use: Annotated[Literal["demo"], Affects.PLACE] = "demo"
    output: Annotated[Path, Affects.PLACE] = Field(
        Path("out/demo"), description="folder for the clip and for everything that a run writes"
    )
    preview: Annotated[PreviewKind, Affects.NOTHING] = Field(
        "both", description="draw the boxes after the run: clip | sheet | both | none"
    )

    @property
    def truth_file(self) -> Path:
        """The copy of the ground truth in the output."""
        return self.output / TRUTH_NAME

    @property
    def preview_kind(self) -> PreviewKind:
        """The key `preview`."""
        return self.preview


class DemoSource(FolderSource):
    """The demo's clip, copied into the output with its ground truth, so that all of the demo is in one folder."""

    Section: ClassVar[type[SourceSection]] = DemoSection

    def __init__(self, output: Path) -> None:
        """Copies nothing yet."""
        super().__init__(output / CLIP_NAME, output)
        self._folder = output

    @classmethod
    def from_config(cls, config: Config, shared: Shared) -> DemoSource:
        """Returns the source of a config."""
        return cls(config.source.output)

    def prepare(self) -> None:
        """Copies clip and ground truth, unless they are there."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for name in (CLIP_NAME, TRUTH_NAME):
            shipped, copy = FOLDER / name, self._folder / name
            if not copy.exists() or copy.stat().st_size != shipped.stat().st_size:
                shutil.copy2(shipped, copy)  # with its time: a task whose file has another counts as changed

    def _list(self) -> list[FolderTask]:
        self.prepare()
        return super()._list()

    def owns(self, key: str, title: str) -> bool:
        """Tells whether a stored task is the clip."""
        return key == CLIP_NAME
