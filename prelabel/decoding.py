"""Videos of many tasks as one stream of batches: the next is opened and decoded while the last is looked at."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prelabel.config import ReaderSection
from prelabel.device_stream import to_device
from prelabel.errors import FrameCountError, ReadError
from prelabel.frames import FrameBatch, Media, VideoInfo
from prelabel.interrupts import Stopped
from prelabel.reader_choice import ReaderChoice
from prelabel.reading import open_media, read_in_order


@dataclass(frozen=True, slots=True)
class Video:
    """What is to be looked at.

    Attributes:
        media: files on this machine.
        title: what errors and progress call them.
        promised_frames: frames that the platform says there are; None where nothing promises a number.
        task_id: the task's key, for progress.
        release: left as soon as the files are no longer needed.
    """

    media: Media
    title: str
    promised_frames: int | None = None
    task_id: str = ""
    release: AbstractContextManager[object] = field(default_factory=nullcontext)


@dataclass(frozen=True, slots=True)
class BeginOfVideo:
    """The batches of a video come after this.

    Attributes:
        video: which.
        info: the video as it is shown.
        choice: which reader reads it.
        wanted: int64 (M,), frames to look at, rising.
        complaint: in which way its frames are not as many as promised; empty if they are.
        began: `time.perf_counter()` when it was opened.
        seconds: busy time by stage, decode; final when the video ends.
        given_up: to be set by who needs no more of its batches.
    """

    video: Video
    info: VideoInfo
    choice: ReaderChoice
    wanted: NDArray[np.int64]
    complaint: str
    began: float
    seconds: dict[str, float] = field(default_factory=lambda: {"decode": 0.0})
    given_up: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class EndOfVideo:
    """All batches of a video came before this.

    Attributes:
        error: why there are no more; None if it was read to its end. A video that cannot be opened has no beginning.
    """

    error: Exception | None = None


Decoded = BeginOfVideo | FrameBatch | EndOfVideo


@dataclass(frozen=True, slots=True)
class VideoDecoding:
    """Reads videos one after the other.

    Attributes:
        reader: the config's section.
        folder: the config's folder, to which plug-in paths are relative.
        frames: what to do when frames are missing: `strict` fails the video, `warn` keeps what was read.
        device: to which frames are brought; None: they stay where they are.
        batch_size: gives the frames a batch; called once the beginning was handed on.
    """

    reader: ReaderSection
    folder: Path
    frames: Literal["strict", "warn"]
    device: str | None
    batch_size: Callable[[VideoInfo], int]

    def read(self, videos: Iterable[Video]) -> Iterator[Decoded]:
        """Yields each video's beginning, its batches and its end; leaves `release` of each before its end.

        A video's own failure is its end. Batches stay good when their reader is closed.

        Raises:
            Stopped: somebody asked twice to stop.
        """
        for video in videos:
            end = EndOfVideo()
            try:
                with video.release:
                    yield from self._read(video)
            except Stopped:
                raise
            except Exception as error:  # handed on: the run judges whether it is the task's own
                end = EndOfVideo(error)
            yield end

    def _read(self, video: Video) -> Iterator[BeginOfVideo | FrameBatch]:
        began = time.perf_counter()
        with open_media(video.media, self.reader, self.folder) as opened:
            info, title = opened.reader.info, video.title
            complaint = count_complaint(info.num_frames, video.promised_frames)
            if complaint and self.frames == "strict":
                raise FrameCountError(f"{title}: {complaint}")
            num_frames = min(
                info.num_frames, info.num_frames if video.promised_frames is None else video.promised_frames
            )
            wanted = select_frames(num_frames, opened.keyframes, self.reader)
            if num_frames and not len(wanted):
                raise ReadError(f"{title}: reader.frame_ranges: none of its {num_frames} frames is within")
            begin = BeginOfVideo(video, info, opened.choice, wanted, complaint, began)
            yield begin
            read = read_in_order(opened.reader, wanted, self.batch_size(info), title)
            batches = timed(to_device(read, self.device), begin.seconds, "decode")
            with closing(batches):
                for batch in batches:
                    if begin.given_up.is_set():
                        return
                    yield batch
                    del batch


def select_frames(num_frames: int, keyframes: NDArray[np.int64] | None, section: ReaderSection) -> NDArray[np.int64]:
    """Returns the frames that a config asks to look at, int64 (M,), rising.

    Args:
        num_frames: frames there are.
        keyframes: int64 (K,), frames that decode on their own; None: all of them do.
        section: `frame_ranges` first, then `only_keyframes`, then every `stride`-th of what is left, by frame number.

    >>> select_frames(10, None, ReaderSection(stride=3, frame_ranges=((2, 8),))).tolist()
    [3, 6]
    """
    wanted = np.zeros(num_frames, bool)
    for first, last in section.frame_ranges or ((0, num_frames),):
        wanted[first : last + 1] = True
    if section.only_keyframes and keyframes is not None:
        alone = np.zeros(num_frames, bool)
        alone[keyframes[keyframes < num_frames]] = True
        return np.flatnonzero(wanted & alone)[:: section.stride].astype(np.int64)
    wanted[np.arange(num_frames) % section.stride != 0] = False
    return np.flatnonzero(wanted).astype(np.int64)


def count_complaint(num_frames: int, promised: int | None) -> str:
    """Returns in which way a file's number of frames is not the promised one; empty if it is, or none is promised."""
    if promised is None or promised == num_frames:
        return ""
    return f"the file has {num_frames} frames, the platform says {promised}"


def timed(
    upstream: Generator[FrameBatch, None, None], seconds: dict[str, float], stage: str
) -> Generator[FrameBatch, None, None]:
    """Yields what `upstream` does, and adds the time that `upstream` was busy to `seconds[stage]`."""
    with closing(upstream):
        while True:
            began = time.perf_counter()
            batch = next(upstream, None)
            seconds[stage] += time.perf_counter() - began
            if batch is None:
                return
            yield batch
            del batch
