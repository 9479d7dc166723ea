"""One video: index, reader, batches, detector, columns."""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prelabel.batch_runner import BatchRunner
from prelabel.config import ReaderSection
from prelabel.cuts import CutFinder
from prelabel.detections import Detections, VideoDetections, concatenate
from prelabel.device_stream import await_frames, to_device
from prelabel.errors import FrameCountError, ReadError
from prelabel.frames import FrameBatch, Media, VideoInfo
from prelabel.interrupts import StopSignal
from prelabel.prefetch import prefetch
from prelabel.progress import Progress
from prelabel.protocols import VideoReader
from prelabel.reader_choice import ReaderChoice
from prelabel.reading import open_media, read_in_order

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
        cuts: int64 (K,), frames with which a new shot begins.
    """

    info: VideoInfo
    detections: VideoDetections
    reader: ReaderChoice
    partial: str | None
    seconds: dict[str, float] = field(default_factory=dict)
    cuts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What all videos of a run go through.

    Attributes:
        reader: the config's section.
        folder: the config's folder, to which plug-in paths are relative.
        runner: of the detector.
        batch_size: frames a batch.
        frames: what to do when frames are missing: `strict` fails the task, `warn` keeps what was read.
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

    def infer(self, media: Media, title: str, promised_frames: int | None, task_id: str = "") -> Inference:
        """Returns what the detector finds in the media.

        Args:
            media: files on this machine.
            title: what errors and progress call them.
            promised_frames: frames that the platform says there are; None where nothing promises a number.
            task_id: the task's key, for progress.

        Raises:
            ReadError: frames are missing or damaged, or their count is not the promised one, and `frames` is strict.
            DetectError: the detector raised or broke its contract.
            Stopped: somebody asked twice to stop.
        """
        with open_media(media, self.reader, self.folder) as opened:
            info = opened.reader.info
            complaint = count_complaint(info.num_frames, promised_frames)
            if complaint and self.frames == "strict":
                raise FrameCountError(f"{title}: {complaint}")
            num_frames = min(info.num_frames, promised_frames if promised_frames is not None else info.num_frames)
            wanted = select_frames(num_frames, opened.keyframes, self.reader)
            if num_frames and not len(wanted):
                raise ReadError(f"{title}: reader.frame_ranges: none of its {num_frames} frames is within")
            self.progress.begin(title, len(wanted), task_id)
            finder = CutFinder() if media.kind == "video" else None  # pictures do not follow one from another
            found, seconds, damage = self._detect(opened.reader, wanted, title, finder)
        _give_memory_back()
        partial = "; ".join(text for text in (complaint, damage) if text) or None
        cuts = finder.cuts() if finder is not None else np.zeros(0, np.int64)
        return Inference(info, found, opened.choice, partial, seconds, cuts)

    def _detect(
        self, reader: VideoReader, wanted: NDArray[np.int64], title: str, finder: CutFinder | None
    ) -> tuple[VideoDetections, dict[str, float], str]:
        """Returns the detections, busy seconds by stage, and what is missing, in words."""
        results: list[tuple[int, Detections]] = []
        seconds, busy_before = {"decode": 0.0, "detect": 0.0}, self.runner.busy_seconds
        damage = ""
        batch_size = self._batch_size(reader.info)
        read = read_in_order(reader, wanted, batch_size, title)
        decoded = timed(to_device(read, self.device), seconds, "decode")
        batches = prefetch(
            decoded,
            max_items=MAX_WAITING_BATCHES,
            max_bytes=MAX_WAITING_BYTES,
            num_bytes=lambda batch: batch.num_bytes,
            name="decode",
            tell_waiting=partial(self.progress.waiting, "decode"),
        )
        try:
            for found in self.runner.run(self._watch(batches, finder), title):
                results.extend(found)
                self.progress.frames(len(found))
        except FrameCountError:  # frame numbers are not to be trusted, under any policy
            raise
        except ReadError as error:
            if self.frames == "strict" or not results:
                raise
            damage = str(error)
        finally:
            batches.close()
            seconds["detect"] = self.runner.busy_seconds - busy_before
        return concatenate(results), seconds, damage or self._short(results, wanted, title)

    def _watch(self, batches: Iterator[FrameBatch], finder: CutFinder | None) -> Iterator[FrameBatch]:
        for batch in batches:
            self.stop.check()
            await_frames(batch)
            if finder is not None:
                finder.add(batch.data, batch.frame_indices)
            yield batch
            del batch

    def _batch_size(self, info: VideoInfo) -> int:
        size = self.batch_size if self.fit_batch is None else self.fit_batch(info.height, info.width)
        return min(size, self.runner.most_frames or size)

    def _short(self, results: Sequence[tuple[int, Detections]], wanted: NDArray[np.int64], title: str) -> str:
        if len(results) == len(wanted):
            return ""
        complaint = f"the reader ended after {len(results)} of {len(wanted)} frames without an error"
        if self.frames == "strict" or not results:
            raise FrameCountError(f"{title}: {complaint}")
        return complaint


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


def _give_memory_back() -> None:
    """Returns freed frames to the system: glibc keeps blocks of their size, and labels are made beside them."""
    with contextlib.suppress(AttributeError, OSError):  # another C library has no such call
        ctypes.CDLL(None).malloc_trim(0)


def count_complaint(num_frames: int, promised: int | None) -> str:
    """Returns in which way a file's number of frames is not the promised one; empty if it is, or none is promised."""
    if promised is None or promised == num_frames:
        return ""
    return f"the file has {num_frames} frames, the platform says {promised}"


def timed(upstream: Iterator[FrameBatch], seconds: dict[str, float], stage: str) -> Iterator[FrameBatch]:
    """Yields what `upstream` does, and adds the time that `upstream` was busy to `seconds[stage]`."""
    try:
        while True:
            began = time.perf_counter()
            batch = next(upstream, None)
            seconds[stage] += time.perf_counter() - began
            if batch is None:
                return
            yield batch
            del batch
    finally:
        if isinstance(upstream, Generator):
            upstream.close()
