"""A task's files and frames, as a user's function gets them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from prelabel.config.sections import ReaderSection
from prelabel.data.frames import Media, VideoInfo
from prelabel.errors import ReadError
from prelabel.media.open import FramePolicy, OpenFrames, open_frames
from prelabel.runtime.interrupts import StopSignal
from prelabel.runtime.progress import Progress

if TYPE_CHECKING:
    from PIL.Image import Image


FRAMES_A_BATCH = 8


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame of a video, or a picture.

    Attributes:
        frame_index: 0-based, as the platform counts.
        pts_seconds: time at which it is shown.
        array: uint8 (H, W, 3), RGB, displayed orientation.
    """

    frame_index: int
    pts_seconds: float
    array: NDArray[np.uint8]

    @property
    def image(self) -> Image:
        """The same, as Pillow has it."""
        from PIL import Image

        return Image.fromarray(self.array)


@dataclass(frozen=True)
class TaskMedia:
    """The files of a task, here until the function returns, and their frames by the reader of the config.

    Attributes:
        media: the files.
        title: of the task.
        key: of the task.
        promised_frames: frames that the platform says there are; None where nothing promises a number.
        reader: the config's section.
        folder: what plug-in paths are relative to.
        policy: `strict`: frames that are missing fail the task; `warn`: what can be read is read.
        progress: told of every batch.
        stop: asked before every batch.
    """

    media: Media
    title: str
    key: str
    promised_frames: int | None
    reader: ReaderSection
    folder: Path
    policy: FramePolicy
    progress: Progress
    stop: StopSignal
    _seen: list[VideoInfo] = field(default_factory=list, repr=False)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files: one of a video, a picture or a document, several of an image group, in frame order."""
        return self.media.paths

    @property
    def path(self) -> Path:
        """The file.

        Raises:
            ReadError: there are several.
        """
        if len(self.paths) != 1:
            raise ReadError(f"{self.title}: is {len(self.paths)} files: use media.paths")
        return self.paths[0]

    @cached_property
    def info(self) -> VideoInfo:
        """The video, or the pictures, as they are shown.

        Raises:
            ReadError: they cannot be read, or are of a kind that has no frames.
        """
        with self._open():
            return self._seen[0]

    @property
    def known_info(self) -> VideoInfo | None:
        """The same, if it was read already."""
        return self._seen[0] if self._seen else None

    def frames(self, frame_indices: Iterable[int] | None = None) -> Iterator[Frame]:
        """Yields frames in order, read afresh at each call.

        Args:
            frame_indices: which, rising; default: those that the config's section `reader` says, all if it says none.

        Raises:
            ReadError: as soon as one cannot be had; a stream ends short only under `frames: warn`.
        """
        with self._open() as opened:
            wanted = opened.wanted if frame_indices is None else self._checked(frame_indices, opened)
            self.progress.begin(self.title, len(wanted), self.key)
            with closing(opened.batches(wanted, FRAMES_A_BATCH)) as batches:
                for batch in batches:
                    self.stop.check()
                    arrays = batch.data.cpu().numpy()
                    for number, index in enumerate(batch.frame_indices.tolist()):
                        yield Frame(index, float(batch.pts_seconds[number]), arrays[number].copy())
                    self.progress.frames(len(batch))

    def image(self, frame_index: int = 0) -> Image:
        """Returns a frame as Pillow has it; raises as `frame` does."""
        return self.frame(frame_index).image

    def frame(self, frame_index: int = 0) -> Frame:
        """Returns a frame.

        Raises:
            ReadError: it cannot be had, under `frames: warn` too.
        """
        (frame,) = self.frames([frame_index])
        return frame

    @contextmanager
    def _open(self) -> Iterator[OpenFrames]:
        if self.media.kind not in ("video", "images"):
            raise ReadError(f"{self.title}: is of a kind that has no frames: media.path is the file itself")
        with open_frames(self.media, self.reader, self.folder, self.policy, self.promised_frames, self.title) as opened:
            self._seen.append(opened.info)
            yield opened

    def _checked(self, frame_indices: Iterable[int], opened: OpenFrames) -> NDArray[np.int64]:
        wanted, num_frames = np.array(list(frame_indices), np.int64), opened.info.num_frames
        if (np.diff(wanted) < 1).any() or (len(wanted) and not 0 <= wanted[0] <= wanted[-1] < num_frames):
            raise ReadError(f"{self.title}: frames: expected rising numbers from 0 to {num_frames - 1}")
        return wanted
