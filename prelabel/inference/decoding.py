"""Videos of many tasks as one stream of batches: the next is opened while the last is decoded and looked at."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prelabel.config.sections import ReaderSection
from prelabel.data.frames import FrameBatch, Media, VideoInfo
from prelabel.data.scene_cuts import SceneCutDetector
from prelabel.errors import FrameCountError, ReadError
from prelabel.media.cuda_streams import to_device
from prelabel.media.open import OpenMedia, open_media, read_in_order
from prelabel.media.select import ReaderChoice
from prelabel.runtime.interrupts import Stopped
from prelabel.runtime.prefetch import one_ahead


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
        began: `time.perf_counter()` when its decoding began.
        seconds: busy time by stage, decode; final when the video ends.
        given_up: to be set by who needs no more of its batches.
        finder: of cuts, which sees each batch before it is handed on; None: pictures, none of which follows another.
    """

    video: Video
    info: VideoInfo
    choice: ReaderChoice
    wanted: NDArray[np.int64]
    complaint: str
    began: float
    seconds: dict[str, float] = field(default_factory=lambda: {"decode": 0.0})
    given_up: threading.Event = field(default_factory=threading.Event)
    finder: SceneCutDetector | None = None


@dataclass(frozen=True, slots=True)
class EndOfVideo:
    """All batches of a video came before this.

    Attributes:
        error: why there are no more; None if it was read to its end. A video that cannot be opened has no beginning.
    """

    error: Exception | None = None


Decoded = BeginOfVideo | FrameBatch | EndOfVideo


@dataclass(frozen=True, slots=True)
class _OpenVideo:
    """A video that can be read now.

    Attributes:
        video: which.
        media: its reader, entered.
        wanted: int64 (M,), frames to look at, rising.
        complaint: in which way its frames are not as many as promised; empty if they are.
        release: closes the reader and gives the files up.
    """

    video: Video
    media: OpenMedia
    wanted: NDArray[np.int64]
    complaint: str
    release: ExitStack


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

        Args:
            videos: asked for, and opened, on threads beside this one: the next while the last is decoded.

        Raises:
            Stopped: somebody asked twice to stop.
        """
        videos = iter(videos)

        def open_next() -> _OpenVideo | EndOfVideo | None:
            video = next(videos, None)
            return None if video is None else self._open(video)

        with closing(one_ahead(open_next, _close, name="open")) as opened:
            for item in opened:
                end = EndOfVideo()
                try:
                    if isinstance(item, EndOfVideo):
                        end = item
                    else:
                        with item.release:
                            yield from self._read(item)
                except Stopped:
                    raise
                except Exception as error:  # handed on: the run judges whether it is the task's own
                    end = EndOfVideo(error)
                yield end

    def _open(self, video: Video) -> _OpenVideo | EndOfVideo:
        try:
            with ExitStack() as stack:
                stack.enter_context(video.release)
                media = stack.enter_context(open_media(video.media, self.reader, self.folder))
                wanted, complaint = self._select(video, media)
                return _OpenVideo(video, media, wanted, complaint, stack.pop_all())
        except Exception as error:  # handed on: the run judges whether it is the task's own
            return EndOfVideo(error)

    def _select(self, video: Video, media: OpenMedia) -> tuple[NDArray[np.int64], str]:
        """Returns the frames to look at, and in which way they are not as many as promised."""
        there, promised, title = media.reader.info.num_frames, video.promised_frames, video.title
        complaint = count_complaint(there, promised)
        if complaint and self.frames == "strict":
            raise FrameCountError(f"{title}: {complaint}")
        num_frames = there if promised is None else min(there, promised)
        wanted = select_frames(num_frames, media.keyframes, self.reader)
        if num_frames and not len(wanted):
            raise ReadError(f"{title}: reader.frame_ranges: none of its {num_frames} frames is within")
        return wanted, complaint

    def _read(self, opened: _OpenVideo) -> Iterator[BeginOfVideo | FrameBatch]:
        reader, video, wanted = opened.media.reader, opened.video, opened.wanted
        info = reader.info
        finder = SceneCutDetector() if video.media.kind == "video" else None
        began = time.perf_counter()
        begin = BeginOfVideo(video, info, opened.media.choice, wanted, opened.complaint, began, finder=finder)
        yield begin
        read = read_in_order(reader, wanted, self.batch_size(info), video.title)
        look = None if finder is None else lambda batch: finder.add(batch.data, batch.frame_indices)
        batches = timed(to_device(read, self.device, look), begin.seconds, "decode")
        with closing(batches):
            for batch in batches:
                if begin.given_up.is_set():
                    return
                yield batch
                del batch


def _close(item: _OpenVideo | EndOfVideo) -> None:
    if isinstance(item, _OpenVideo):
        item.release.close()


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
