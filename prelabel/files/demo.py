"""A clip with known contents, made on the spot: what a newcomer meets first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prelabel.data.frames import Media
from prelabel.plugins.protocols import Task
from prelabel.testing.scenes import SceneSpec, is_written, write_clip

CLIP_NAME = "demo.mp4"
TRUTH_NAME = "demo.truth.json"


@dataclass(frozen=True, slots=True)
class DemoTask:
    """The generated clip."""

    clip: Path
    spec: SceneSpec

    @property
    def key(self) -> str:
        """The clip's name."""
        return self.clip.name

    @property
    def title(self) -> str:
        """The clip's name."""
        return self.clip.name

    @property
    def identity(self) -> str:
        """What the clip is drawn from: the same spec draws the same frames."""
        return repr(self.spec)

    @property
    def num_frames(self) -> int:
        """Frames that are drawn."""
        return self.spec.num_frames

    @contextmanager
    def open(self) -> Iterator[Media]:
        """Yields the clip where it is."""
        yield Media("video", (self.clip,))


class DemoSource:
    """One generated clip with its ground truth beside it, drawn at once unless they are there. It has nowhere to go."""

    moves_tasks = False

    def __init__(self, output: Path, seed: int, num_frames: int) -> None:
        spec = SceneSpec(seed=seed, num_frames=num_frames)
        output.mkdir(parents=True, exist_ok=True)
        if not is_written(spec, output / CLIP_NAME, output / TRUTH_NAME):
            write_clip(spec, output / CLIP_NAME, output / TRUTH_NAME)
        self._task = DemoTask(output / CLIP_NAME, spec)

    def tasks(self) -> Iterator[Task]:
        """Yields the clip."""
        yield self._task

    def proceed(self, task: Task, pathway: str | None) -> None:
        """Does nothing: a file has nowhere to go."""

    def fail(self, task: Task, reason: str) -> None:
        """Does nothing: the report has the reason."""

    def count(self) -> int:
        """Returns 1: there is one clip."""
        return 1

    def describe(self) -> str:
        """Returns what will be worked on, in words."""
        return f"a generated clip of {self._task.num_frames} frames, {self._task.clip}"
