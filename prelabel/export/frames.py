"""Frames of a task's media, read again after a run: for exports with images, previews and pages."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from prelabel.assembly.assemble import Assembly
from prelabel.assembly.stored_detections import NEXT_STEP
from prelabel.data.frames import FrameBatch, Media
from prelabel.errors import ReadError
from prelabel.media.open import FramePolicy, open_frames
from prelabel.plugins.protocols import Task
from prelabel.store.class_probabilities import ClassRecord
from prelabel.store.raw_detections import RawRecord

BATCH_SIZE = 4
MAX_GAP_FRAMES = 300
"""Across longer gaps between wanted frames, opening the video again is faster than decoding the frames between."""


def read_frames(
    assembly: Assembly, task: Task, media: Media, record: RawRecord | ClassRecord, frame_indices: NDArray[np.int64]
) -> Iterator[FrameBatch]:
    """Yields frames of a task's media, read as the run read them.

    Args:
        assembly: of the config.
        task: named in errors.
        media: of the task, open.
        record: what a run stored of these media.
        frame_indices: int64 (M,), rising.

    Raises:
        ReadError: a frame cannot be read, or the media have changed since the run.
    """
    policy: FramePolicy = "strict" if record.partial is None else "warn"  # the run reported what a partial record lacks
    for part in np.split(frame_indices, np.flatnonzero(np.diff(frame_indices) > MAX_GAP_FRAMES) + 1):
        with open_frames(media, assembly.config.reader, assembly.folder, policy, title=task.title) as opened:
            if opened.info != record.info:
                raise ReadError(f"{task.title}: has changed since the run read it: {NEXT_STEP}")
            yield from opened.batches(part, BATCH_SIZE)


def read_images(
    assembly: Assembly, task: Task, record: RawRecord | ClassRecord, frame_indices: NDArray[np.int64]
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yields index and pixels, uint8 (H, W, 3) RGB, of frames of a task's media; see `read_frames`.

    Raises:
        TaskError: the media cannot be fetched or read, or have changed since the run.
    """
    with task.open() as media:
        for batch in read_frames(assembly, task, media, record, frame_indices):
            yield from zip(batch.frame_indices.tolist(), batch.data.cpu().numpy(), strict=True)
