"""Reads the frames of labels again and makes masks from their boxes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from prelabel.config.sections import ReaderSection
from prelabel.data.detections import VideoDetections
from prelabel.data.frames import FrameBatch, Media
from prelabel.data.geometry import Mask
from prelabel.errors import DetectError, PrelabelError, raised_as
from prelabel.media.cuda import await_frames
from prelabel.plugins.protocols import Refiner
from prelabel.plugins.traits import traits_of
from prelabel.runtime.prefetch import prefetch

if TYPE_CHECKING:
    from prelabel.media.open import FramePolicy


@dataclass(frozen=True, slots=True)
class MediaAccess:
    """How a task's frames are read again.

    Attributes:
        open: returns a context in which the task's media are on this machine.
        check_stop: called before every batch; raises an error to stop.
    """

    open: Callable[[], AbstractContextManager[Media]]
    check_stop: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class Refinement:
    """How boxes become masks.

    Attributes:
        refiner: makes the masks.
        reader: the config's section `reader`. What it says about the choice of frames does not matter here.
        folder: the config's folder; plug-in paths are relative to it.
        frames: what to do if frames are missing.
        batch_size: frames per batch.
    """

    refiner: Refiner
    reader: ReaderSection
    folder: Path
    frames: FramePolicy
    batch_size: int
    # A run makes the masks of new tasks on the thread of inference, and those of stored tasks where it saves labels.
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def refine(
        self, found: VideoDetections, rows: NDArray[np.int64], media: MediaAccess, title: str
    ) -> tuple[VideoDetections, str | None]:
        """Returns the detections with a mask in some rows, and which of these lack one because frames cannot be read.

        A row keeps None if the refiner has no mask for it. The text is None if all frames are read.

        Args:
            found: labels of the media.
            rows: rising numbers of rows to make masks for. Only their frames are decoded.
            media: the media of the labels.
            title: what errors call the media.

        Raises:
            ReadError: frames cannot be read.
            DetectError: the refiner raised, or broke its contract.
        """
        if not len(rows):
            return found, None
        from prelabel.media.open import open_frames  # imports decoders, which `prelabel --help` does not need

        geometry, frame_of_row, num_read = found.geometry.copy(), found.frame_index[rows], 0
        device = traits_of(self.refiner).device
        on_gpu = device if device is not None and device.startswith("cuda") else None
        every_frame = self.reader.model_copy(update={"stride": 1, "only_keyframes": False, "frame_ranges": ()})
        with (
            media.open() as files,
            open_frames(files, every_frame, self.folder, self.frames, title=title) as opened,
        ):
            batches = opened.batches(np.unique(frame_of_row), self.batch_size, device=on_gpu)
            with closing(prefetch(batches, max_items=1, name="refine")) as decoded:
                for batch in decoded:
                    media.check_stop()
                    await_frames(batch)
                    of_frames = [
                        rows[slice(*np.searchsorted(frame_of_row, [frame, frame + 1]))]
                        for frame in batch.frame_indices.tolist()
                    ]
                    masks = self.masks(batch, [found.xyxy[of_frame] for of_frame in of_frames])
                    for of_frame, of_boxes in zip(of_frames, masks, strict=True):
                        geometry[of_frame] = np.fromiter(of_boxes, object, len(of_boxes))
                        num_read += len(of_frame)
                    del batch
        lacking = f"refine: {opened.partial}: {len(rows) - num_read} boxes have no mask" if opened.partial else None
        return replace(found, geometry=geometry), lacking

    def masks(self, batch: FrameBatch, boxes: list[NDArray[np.float32]]) -> list[list[Mask | None]]:
        """Returns the refiner's masks for the boxes of each frame, after checking that there is one for each.

        Raises:
            DetectError: the refiner raised, or returned something else.
        """
        name = type(self.refiner).__name__
        with self._lock, raised_as(DetectError, f"refine: {name}", PrelabelError):
            masks = [list(of_frame) for of_frame in self.refiner.refine(batch, boxes)]
        if [len(of_frame) for of_frame in masks] != [len(of_frame) for of_frame in boxes]:
            raise DetectError(f"refine: {name} did not return one mask for each box of each frame")
        other = next((each for of_frame in masks for each in of_frame if not isinstance(each, Mask | None)), None)
        if other is not None:
            raise DetectError(f"refine: {name} returned {type(other).__name__}, expected prelabel.Mask or None")
        return masks
