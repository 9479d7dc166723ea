"""Runs a detector over videos and returns their detections."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prelabel.config.sections import ReaderSection
from prelabel.data.detections import Detections, VideoDetections, concatenate
from prelabel.data.frames import FrameBatch, VideoInfo
from prelabel.inference.batch_runner import BatchRunner, BatchSizes
from prelabel.inference.decoding import OpenVideo, Video, VideoDecoding
from prelabel.media.choose import ReaderChoice
from prelabel.media.cuda import await_frames
from prelabel.media.open import FramePolicy
from prelabel.runtime.interrupts import Stopped, StopSignal
from prelabel.runtime.process_settings import trim_memory
from prelabel.runtime.progress import Progress


@dataclass(frozen=True, slots=True)
class Inference:
    """The raw detections of one video.

    Attributes:
        info: the video as displayed.
        detections: as the detector returned them.
        reader: the reader that read the video.
        partial: what is missing and why; None if the video was read completely.
        seconds: busy time by step: decode, detect.
        began: `time.perf_counter()` at which each step began with the video.
        cuts: int64 (K,), first frame of each new shot.
    """

    info: VideoInfo
    detections: VideoDetections
    reader: ReaderChoice
    partial: str | None
    seconds: dict[str, float]
    began: dict[str, float]
    cuts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Decodes and detects all videos of a run.

    Attributes:
        reader: the config's section `reader`.
        folder: the config's folder; plug-in paths are relative to it.
        runner: runs the detector.
        batch_size: frames per batch.
        frames: what to do if frames are missing: `strict` fails the video, `warn` uses the frames that were read.
        progress: is informed of every batch.
        stop: checked before every batch.
        fit_batch: returns the frames per batch for a height and a width in pixels; None: `batch_size` for all.
        device: GPU to copy frames to for the detector; None: they are not copied.
    """

    reader: ReaderSection
    folder: Path
    runner: BatchRunner
    batch_size: int
    frames: FramePolicy
    progress: Progress
    stop: StopSignal
    fit_batch: Callable[[int, int], int] | None = None
    device: str | None = None

    def infer(self, videos: Iterable[Video]) -> Generator[Inference | Exception, None, None]:
        """Yields the detections or the failure of each video, in order.

        A video is opened while the previous one is decoded. Its first batches are decoded while the detector still
        works on the previous one. The failure of a video is yielded, not raised:

        - `ReadError`: frames are missing or damaged, or their number is not the promised one, and `frames` is `strict`.
        - `DetectError`: the detector raised or broke its contract.

        Args:
            videos: iterated on a thread, one ahead of the video that is decoded.

        Raises:
            Stopped: a second stop request.
        """
        sizes = BatchSizes(self.fit_batch, self.batch_size)

        def batch_size(info: VideoInfo) -> int:
            size = sizes.wait(info.height, info.width)
            return min(size, self.runner.most_frames or size)

        report_waiting = partial(self.progress.waiting, "decode")
        decoding = VideoDecoding(self.reader, self.folder, self.frames, self.device, batch_size, report_waiting)
        # Close `sizes` first: the decoding thread may wait for a batch size that will never be found.
        with closing(decoding.decode_ahead(videos)) as decoded, closing(sizes):
            for video, batches in decoded:
                try:
                    result: Inference | Exception = self._infer(video, batches, sizes)
                except Stopped:
                    raise
                except Exception as error:  # yielded: the run decides whether it fails only the task
                    video.given_up.set()
                    result = error
                finally:
                    trim_memory()
                yield result
                del result

    def _infer(self, video: OpenVideo, batches: Iterator[FrameBatch], sizes: BatchSizes) -> Inference:
        frames, title = video.frames, video.video.title
        # The decoding thread waits for this size. Finding it runs the detector, so it happens on the detector's thread.
        sizes.find(frames.info.height, frames.info.width)
        self.progress.begin(title, len(frames.wanted), video.video.task_id)
        results: list[tuple[int, Detections]] = []
        began, busy_before = time.perf_counter(), self.runner.busy_seconds
        for found in self.runner.run(self._until_stopped(batches), title):
            results.extend(found)
            self.progress.frames(len(found))
        return Inference(
            info=frames.info,
            detections=concatenate(results),
            reader=frames.choice,
            partial=frames.partial,
            seconds={"decode": frames.decode_seconds, "detect": self.runner.busy_seconds - busy_before},
            began={"decode": video.began, "detect": began},
            cuts=video.cuts(),
        )

    def _until_stopped(self, batches: Iterator[FrameBatch]) -> Iterator[FrameBatch]:
        for batch in batches:
            self.stop.check()
            await_frames(batch)
            yield batch
            del batch
