"""Reads image files as frames. Each file is one frame and may have its own size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from prelabel.data.frames import FrameBatch, Media, VideoInfo
from prelabel.errors import MachineError, ReadError
from prelabel.media.batching import BatchMemory, FramePool, check_request, stack_batches

# EXIF orientations 5 to 8 swap width and height (CIPA DC-008, 4.6.4).
TURNED = (5, 6, 7, 8)
# ImportError: ultralytics replaces `Image.open`. For a file that is no image, its version imports another package.
UNREADABLE = (OSError, ValueError, SyntaxError, ImportError, Image.DecompressionBombError)
NAMED_AT_MOST = 8
"""The largest number of unreadable images to name."""


class ImageReader:
    """Reads images in file order and applies their EXIF rotation. A batch ends where the size changes.

    An image that cannot be read is left out. After the last image, a ReadError names those left out.

    Args:
        media: images.
        device: `auto` or `cpu`.

    Raises:
        MachineError: `device` is another one.
    """

    def __init__(self, media: Media, *, device: str = "auto") -> None:
        if device not in {"auto", "cpu"}:
            raise MachineError(f"reader images decodes on the CPU, got device {device!r}: set reader.device: auto")
        self._paths = media.paths
        self.pool: BatchMemory = FramePool()
        self._info: VideoInfo | None = None

    def __enter__(self) -> Self:
        sizes = [_displayed_size(path) for path in self._paths]
        known = [size for size in sizes if size is not None]
        if not known:
            others = f", nor are the other {len(sizes) - 1}" if len(sizes) > 1 else ""
            raise ReadError(f"{self._paths[0].name}: not an image that Pillow can open{others}")
        # An image that cannot be opened is never returned, so it may borrow the first one's size.
        frame_sizes = tuple(size or known[0] for size in sizes)
        self._info = VideoInfo(
            width=known[0][0],
            height=known[0][1],
            num_frames=len(sizes),
            frame_sizes=frame_sizes if len(set(frame_sizes)) > 1 else (),
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._info = None

    @property
    def info(self) -> VideoInfo:
        """The images as displayed; `frame_sizes` is set if their sizes differ."""
        if self._info is None:
            raise ValueError("the reader is not open: read inside `with`")
        return self._info

    def batches(self, frame_indices: NDArray[np.int64], batch_size: int) -> Iterator[FrameBatch]:
        """Yields the requested images in order; their `pts_seconds` are 0.

        Raises:
            ReadError: after the last image, if some could not be read.
        """
        num_frames = self.info.num_frames
        wanted = check_request(frame_indices, batch_size, num_frames)
        failures: list[str] = []
        pictures = self._read(wanted, failures)
        size = min(batch_size, max(len(wanted), 1))  # do not allocate a whole batch for a single image
        yield from stack_batches(pictures, np.zeros(num_frames), size, self.pool)
        if failures:
            more = f"; and {len(failures) - NAMED_AT_MOST} more" if len(failures) > NAMED_AT_MOST else ""
            named = "; ".join(failures[:NAMED_AT_MOST]) + more
            raise ReadError(f"{len(failures)} of {num_frames} images could not be read: {named}")

    def _read(self, wanted: NDArray[np.int64], failures: list[str]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        for number in wanted.tolist():
            try:
                yield number, read_picture(self._paths[number])
            except UNREADABLE as error:
                failures.append(f"{self._paths[number].name}: {error}")


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Returns an image, (H, W, 3) uint8 RGB, with its EXIF rotation applied.

    Raises:
        OSError: the file is missing, cut off or no image. For some damage Pillow raises another of `UNREADABLE`.
    """
    with Image.open(path) as image:
        ImageOps.exif_transpose(image, in_place=True)  # a copy would cost as much as decoding, even without a rotation
        if image.mode == "RGB":
            return np.asarray(image)
        if image.mode.startswith("I;16"):
            # Pillow's own conversion clips 16 bits at 255.
            return np.asarray(Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB"))
        return np.asarray(image.convert("RGB"))


def _displayed_size(path: Path) -> tuple[int, int] | None:
    """Returns the displayed width and height from the file header; None if it is no image."""
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation) in TURNED
            return (image.height, image.width) if turned else image.size
    except UNREADABLE:
        return None
