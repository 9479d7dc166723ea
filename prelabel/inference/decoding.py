"""Decodes videos one by one on a thread, and opens the next one while a video is decoded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prelabel.config.sections import ReaderSection
from prelabel.data.frames import FrameBatch, Media, SceneCutDetector, VideoInfo
from prelabel.media.open import FramePolicy, OpenFrames, open_frames
from prelabel.runtime.interrupts import Stopped
from prelabel.runtime.prefetch import one_ahead, prefetch

MAX_WAITING_BATCHES = 2
MAX_WAITING_BYTES = 512_000_000


@dataclass(frozen=True, slots=True)
class Video:
    """A task's media on this machine.

    Attributes:
        media: its files.
        title: name of the media in errors and progress.
        promised_frames: number of frames that the platform states; None if unknown.
        task_id: the task's key, for progress.
        release: context that is exited once the files are no longer needed.
    """

    media: Media
    title: str
    promised_frames: int | None = None
    task_id: str = ""
    release: AbstractContextManager[object] = field(default_factory=nullcontext)


@dataclass(slots=True, eq=False)
class OpenVideo:
    """An open video, or the error that prevented opening it.

    Attributes:
        video: the video.
        opened: its frames, or the error.
        release: closes the reader and exits the video's `release`.
        began: `time.perf_counter()` when its decoding began.
        given_up: set by a consumer that needs no more batches.
        scene_cuts: inspects each batch before it is yielded; None for images, which are not a sequence.
    """

    video: Video
    opened: OpenFrames | Exception
    release: ExitStack
    began: float = 0.0
    given_up: threading.Event = field(default_factory=threading.Event)
    scene_cuts: SceneCutDetector | None = None

    @property
    def frames(self) -> OpenFrames:
        """The open frames; raises the error that prevented opening."""
        if isinstance(self.opened, Exception):
            raise self.opened
        return self.opened

    def cuts(self) -> NDArray[np.int64]:
        """Returns the first frame of each new shot, int64 (K,); call it after all batches are read."""
        return np.zeros(0, np.int64) if self.scene_cuts is None else self.scene_cuts.cuts()


@dataclass(frozen=True, slots=True)
class VideoDecoding:
    """Decodes videos ahead of the detector.

    Attributes:
        reader: the config's section `reader`.
        folder: the config's folder; plug-in paths are relative to it.
        policy: what to do if frames are missing.
        device: GPU to copy frames to; None: they are not copied.
        batch_size: returns the frames per batch; called on the decoding thread, after the consumer got the video.
        report_waiting: called with the number of batches that wait for the consumer.
    """

    reader: ReaderSection
    folder: Path
    policy: FramePolicy
    device: str | None
    batch_size: Callable[[VideoInfo], int]
    report_waiting: Callable[[int], None]

    def decode_ahead(self, videos: Iterable[Video]) -> Generator[tuple[OpenVideo, Iterator[FrameBatch]], None, None]:
        """Yields each video with an iterator of its batches, which raises the video's own errors.

        When the consumer asks for the next video, the rest of this one is dropped. Batches stay valid after their
        reader is closed.

        Args:
            videos: iterated and opened on threads, at most one ahead of the video that is decoded.

        Raises:
            Stopped: a second stop request.
        """
        # All videos share one bounded queue. The first batches of a video can wait in it while the last ones of the
        # previous video are detected, and memory stays bounded. For each video the queue holds the OpenVideo, its
        # batches, and at the end None or the error. Only `_decode`, `_take_batches` and this function rely on that.
        queue = prefetch(
            self._decode(videos),
            max_items=MAX_WAITING_BATCHES,
            max_bytes=MAX_WAITING_BYTES,
            num_bytes=lambda entry: entry.num_bytes if isinstance(entry, FrameBatch) else 0,
            num_items=_num_items,
            name="decode",
            tell_waiting=self.report_waiting,
        )
        with closing(queue):
            for video in queue:
                assert isinstance(video, OpenVideo)
                batches = _take_batches(queue)
                yield video, batches
                video.given_up.set()
                with suppress(Exception):  # the consumer no longer needs this video
                    for _ in batches:
                        pass

    def _decode(self, videos: Iterable[Video]) -> Iterator[OpenVideo | FrameBatch | Exception | None]:
        videos = iter(videos)

        def open_next() -> OpenVideo | None:
            video = next(videos, None)
            return None if video is None else self._open(video)

        with closing(one_ahead(open_next, lambda video: video.release.close(), name="open")) as opened:
            for video in opened:
                end: Exception | None = None
                try:
                    with video.release:
                        video.began = time.perf_counter()
                        yield video
                        yield from self._batches(video)
                except Stopped:
                    raise
                except Exception as error:  # passed to the consumer: the run decides whether it fails only the task
                    end = error
                yield end

    def _open(self, video: Video) -> OpenVideo:
        try:
            with ExitStack() as stack:
                stack.enter_context(video.release)
                frames = stack.enter_context(
                    open_frames(video.media, self.reader, self.folder, self.policy, video.promised_frames, video.title)
                )
                scene_cuts = SceneCutDetector() if video.media.kind == "video" else None
                return OpenVideo(video, frames, stack.pop_all(), scene_cuts=scene_cuts)
        except Exception as error:  # passed to the consumer: the run decides whether it fails only the task
            return OpenVideo(video, error, ExitStack())

    def _batches(self, video: OpenVideo) -> Iterator[FrameBatch]:
        frames, scene_cuts = video.frames, video.scene_cuts

        def inspect(batch: FrameBatch) -> None:
            if scene_cuts is not None:
                scene_cuts.add(batch.decoded, batch.frame_indices)

        size = self.batch_size(frames.info)
        with closing(frames.batches(frames.wanted, size, device=self.device, inspect=inspect)) as batches:
            for batch in batches:
                if video.given_up.is_set():
                    return
                yield batch
                del batch  # a reader reuses the memory once nothing refers to the batch


def _take_batches(queue: Iterator[OpenVideo | FrameBatch | Exception | None]) -> Iterator[FrameBatch]:
    """Yields one video's batches from the queue, up to its end entry."""
    for entry in queue:
        if isinstance(entry, FrameBatch):
            yield entry
            del entry
        elif isinstance(entry, Exception):
            raise entry
        else:
            return


def _num_items(entry: OpenVideo | FrameBatch | Exception | None) -> int:
    """Returns 1 for a batch, an error or a video without frames, else 0.

    Videos without frames have no batches. If they did not count, the queue would let all of them be opened ahead.
    """
    if isinstance(entry, OpenVideo):
        return int(isinstance(entry.opened, OpenFrames) and not len(entry.opened.wanted))
    return int(entry is not None)
