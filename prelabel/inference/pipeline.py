"""Videos one after the other: index, reader, batches, detector, columns."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from prelabel.config.sections import ReaderSection
from prelabel.data.detections import Detections, VideoDetections, concatenate
from prelabel.data.frames import FrameBatch, VideoInfo
from prelabel.errors import FrameCountError, ReadError
from prelabel.inference.batch_runner import BatchRunner, BatchSizes
from prelabel.inference.decoding import BeginOfVideo, Decoded, EndOfVideo, Video, VideoDecoding
from prelabel.media.cuda_streams import await_frames
from prelabel.media.select import ReaderChoice
from prelabel.runtime.interrupts import Stopped, StopSignal
from prelabel.runtime.prefetch import prefetch
from prelabel.runtime.process_settings import trim_memory
from prelabel.runtime.progress import Progress

MAX_WAITING_BATCHES = 2
MAX_WAITING_BYTES = 512_000_000


@dataclass(frozen=True, slots=True)
class Inference:
    """What became of one video.

    Attributes:
        info: the video as it is shown.
        detections: as the detector gave them, before any shaping.
        reader: which reader read it.
        partial: what is missing and why; None if the video was read whole.
        seconds: busy time by stage: decode, detect.
        began: `time.perf_counter()` by stage, when it began with the video.
        cuts: int64 (K,), frames with which a new shot begins.
    """

    info: VideoInfo
    detections: VideoDetections
    reader: ReaderChoice
    partial: str | None
    seconds: dict[str, float] = field(default_factory=dict)
    began: dict[str, float] = field(default_factory=dict)
    cuts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What all videos of a run go through.

    Attributes:
        reader: the config's section.
        folder: the config's folder, to which plug-in paths are relative.
        runner: of the detector.
        batch_size: frames a batch.
        frames: what to do when frames are missing: `strict` fails the video, `warn` keeps what was read.
        progress: told of every batch.
        stop: asked before every batch.
        fit_batch: gives the frames a batch for a height and a width in pixels; None: `batch_size` holds for all.
        device: to which frames are brought for the detector; None: it takes them where they are.
    """

    reader: ReaderSection
    folder: Path
    runner: BatchRunner
    batch_size: int
    frames: Literal["strict", "warn"]
    progress: Progress
    stop: StopSignal
    fit_batch: Callable[[int, int], int] | None = None
    device: str | None = None

    def infer(self, videos: Iterable[Video]) -> Generator[Inference | Exception, None, None]:
        """Yields what the detector finds in each video, in their order; a video's own failure is yielded, not raised.

        A video is opened while the one before is decoded, and its first batches are decoded while the detector still
        works on that.

        - `ReadError`: frames are missing or damaged, or their count is not the promised one, and `frames` is strict.
        - `DetectError`: the detector raised or broke its contract.

        Args:
            videos: asked for on a thread of its own, one ahead of the one that is decoded.

        Raises:
            Stopped: somebody asked twice to stop.
        """
        sizes = BatchSizes(self.fit_batch, self.batch_size)
        decoding = VideoDecoding(
            self.reader,
            self.folder,
            self.frames,
            self.device,
            partial(self._batch_size, sizes),
        )
        stream = prefetch(
            decoding.read(videos),
            max_items=MAX_WAITING_BATCHES,
            max_bytes=MAX_WAITING_BYTES,
            num_bytes=lambda item: item.num_bytes if isinstance(item, FrameBatch) else 0,
            num_items=_num_items,
            name="decode",
            tell_waiting=partial(self.progress.waiting, "decode"),
        )
        with closing(stream), closing(sizes):
            for first in stream:
                yield self._infer(first, stream, sizes)

    def _infer(self, first: Decoded, stream: Iterator[Decoded], sizes: BatchSizes) -> Inference | Exception:
        """Returns what becomes of the video that begins with `first`; takes all that is its own from the stream."""
        if isinstance(first, EndOfVideo) and first.error is not None:
            return first.error
        assert isinstance(first, BeginOfVideo)
        sizes.find(first.info.height, first.info.width)
        batches = _BatchesOf(first, stream)
        try:
            return self._detect(first, batches)
        except Stopped:
            raise
        except Exception as error:  # handed on: the run judges whether it is the task's own
            batches.give_up()
            return error
        finally:
            trim_memory()

    def _detect(self, video: BeginOfVideo, batches: Iterable[FrameBatch]) -> Inference:
        title = video.video.title
        self.progress.begin(title, len(video.wanted), video.video.task_id)
        results: list[tuple[int, Detections]] = []
        began, busy_before = time.perf_counter(), self.runner.busy_seconds
        damage = ""
        try:
            for found in self.runner.run(self._watch(batches), title):
                results.extend(found)
                self.progress.frames(len(found))
        except FrameCountError:  # frame numbers are not to be trusted, under any policy
            raise
        except ReadError as error:
            if self.frames == "strict" or not results:
                raise
            damage = str(error)
        damage = damage or self._short(results, video.wanted, title)
        return Inference(
            info=video.info,
            detections=concatenate(results),
            reader=video.choice,
            partial="; ".join(text for text in (video.complaint, damage) if text) or None,
            seconds={**video.seconds, "detect": self.runner.busy_seconds - busy_before},
            began={"decode": video.began, "detect": began},
            cuts=np.zeros(0, np.int64) if video.finder is None else video.finder.cuts(),
        )

    def _watch(self, batches: Iterable[FrameBatch]) -> Iterator[FrameBatch]:
        for batch in batches:
            self.stop.check()
            await_frames(batch)
            yield batch
            del batch

    def _batch_size(self, sizes: BatchSizes, info: VideoInfo) -> int:
        size = sizes.wait(info.height, info.width)
        return min(size, self.runner.most_frames or size)

    def _short(self, results: Sequence[tuple[int, Detections]], wanted: NDArray[np.int64], title: str) -> str:
        if len(results) == len(wanted):
            return ""
        complaint = f"the reader ended after {len(results)} of {len(wanted)} frames without an error"
        if self.frames == "strict" or not results:
            raise FrameCountError(f"{title}: {complaint}")
        return complaint


class _BatchesOf:
    """The batches of one video, from a stream that goes on with the next one. An iterator that is taken once."""

    def __init__(self, video: BeginOfVideo, stream: Iterator[Decoded]) -> None:
        self._video, self._stream = video, stream
        self._has_ended = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> FrameBatch:
        """Raises: Exception: whatever ended the video early."""
        if self._has_ended:
            raise StopIteration
        item = next(self._stream)
        if isinstance(item, FrameBatch):
            return item
        self._has_ended = True
        if isinstance(item, EndOfVideo) and item.error is not None:
            raise item.error
        raise StopIteration

    def give_up(self) -> None:
        """Passes over what is left of the video, which is decoded no further."""
        self._video.given_up.set()
        with suppress(Exception):  # the video has failed already
            for _ in self:
                pass


def _num_items(item: Decoded) -> int:
    """Counts batches, and videos that have none: else all of those would be opened ahead."""
    if isinstance(item, BeginOfVideo):
        return int(not len(item.wanted))
    return int(isinstance(item, FrameBatch) or item.error is not None)
