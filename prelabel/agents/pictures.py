"""Pictures of many tasks as one stream, so that a classifier gets full batches however few each task has."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from prelabel.agents.task_agent import Fetched
from prelabel.config import ReaderSection
from prelabel.errors import FrameCountError, ReadError
from prelabel.frames import FrameBatch, VideoInfo
from prelabel.interrupts import Stopped, StopSignal
from prelabel.pipeline.decoding import count_complaint, select_frames, timed
from prelabel.protocols import Task
from prelabel.reading import open_media, read_in_order

if TYPE_CHECKING:
    import torch

_READ_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of a task.

    Attributes:
        frame_index: which of the task's.
        image: uint8 (H, W, 3), RGB, nobody else's.
    """

    frame_index: int
    image: torch.Tensor

    @property
    def num_bytes(self) -> int:
        """Of the picture."""
        return int(self.image.numel())


@dataclass(frozen=True, slots=True)
class EndOfTask:
    """All pictures of a task came before this.

    Attributes:
        task: whose.
        info: of its media; None if they could not be read.
        reader: which reader read them, and why that one.
        partial: what is missing and why; None if they were read whole.
        error: why they could not be read; None if they could.
        seconds: busy time by stage: fetch, decode.
        began: `time.perf_counter()` when reading began.
    """

    task: Task
    info: VideoInfo | None = None
    reader: str = ""
    partial: str | None = None
    error: Exception | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    began: float = 0.0


@dataclass(frozen=True, slots=True)
class PictureReader:
    """Reads what a classifier is to see of each task.

    Attributes:
        reader: the config's section.
        folder: the config's, to which plug-in paths are relative.
        frames_per_video: looked at in a video, spread evenly; None: all that `reader` leaves.
        frames: what to do when frames are missing: `strict` fails the task, `warn` keeps what was read.
        stop: asked before every batch.
        begun: told of a task's title, how many pictures it has, and its key.
    """

    reader: ReaderSection
    folder: Path
    frames_per_video: int | None
    frames: Literal["strict", "warn"]
    stop: StopSignal
    begun: Callable[[str, int, str], None]

    def read(self, fetched: Iterable[Fetched]) -> Iterator[Picture | EndOfTask]:
        """Yields each task's pictures and their end; closes `release` of each. A task's own failure is its end.

        Raises:
            Stopped: somebody asked twice to stop.
        """
        for item in fetched:
            try:
                with item.release:
                    end = yield from self._read(item)
            except Stopped:
                raise
            except Exception as error:  # handed on: the run judges whether it is the task's own
                end = EndOfTask(item.task, error=error)
            yield end

    def _read(self, item: Fetched) -> Generator[Picture, None, EndOfTask]:
        title, began = item.task.title, time.perf_counter()
        with open_media(item.media, self.reader, self.folder) as opened:
            info = opened.reader.info
            complaint = count_complaint(info.num_frames, item.task.num_frames)
            if complaint and self.frames == "strict":
                raise FrameCountError(f"{title}: {complaint}")
            wanted = self._choose(item, info, opened.keyframes)
            self.begun(title, len(wanted), item.task.key)
            seconds = {"fetch": item.seconds, "decode": 0.0}
            read = timed(read_in_order(opened.reader, wanted, _READ_AT_ONCE, title), seconds, "decode")
            damage = yield from self._pictures(read, wanted, title)
        partial = "; ".join(text for text in (complaint, damage) if text) or None
        choice = f"{opened.choice.use} ({opened.choice.reason})"
        return EndOfTask(item.task, info, choice, partial, seconds=seconds, began=began)

    def _choose(self, item: Fetched, info: VideoInfo, keyframes: NDArray[np.int64] | None) -> NDArray[np.int64]:
        num_frames = min(info.num_frames, info.num_frames if item.task.num_frames is None else item.task.num_frames)
        frames = select_frames(num_frames, keyframes, self.reader)
        if not len(frames):
            raise ReadError(f"{item.task.title}: none of its {num_frames} frames is to be looked at")
        return spread(frames, self.frames_per_video) if item.media.kind == "video" else frames

    def _pictures(
        self, batches: Iterator[FrameBatch], wanted: NDArray[np.int64], title: str
    ) -> Generator[Picture, None, str]:
        """Yields the pictures, and returns what is missing in words."""
        num = 0
        try:
            for batch in batches:
                self.stop.check()
                for frame_index, image in zip(batch.frame_indices.tolist(), batch.data, strict=True):
                    num += 1
                    yield Picture(frame_index, image.clone())  # the reader uses its memory again
        except FrameCountError:  # frame numbers are not to be trusted, under any policy
            raise
        except ReadError as error:
            if self.frames == "strict" or not num:
                raise
            return str(error)
        if num == len(wanted):
            return ""
        complaint = f"the reader ended after {num} of {len(wanted)} frames without an error"
        if self.frames == "strict" or not num:
            raise FrameCountError(f"{title}: {complaint}")
        return complaint


def spread(frames: NDArray[np.int64], num: int | None) -> NDArray[np.int64]:
    """Returns `num` of the frames, evenly spread, from the middle of as many equal parts; all if there are no more.

    >>> spread(np.arange(100), 4).tolist()
    [12, 37, 62, 87]
    """
    if num is None or len(frames) <= num:
        return frames
    return frames[((np.arange(num) + 0.5) * len(frames) / num).astype(np.int64)]
