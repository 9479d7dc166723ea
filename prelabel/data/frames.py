"""Media files, facts about a video, batches of its frames, and scene cuts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prelabel.data.surfaces import Surfaces
from prelabel.runtime.buckets import BucketFile

if TYPE_CHECKING:
    import torch

Frames: TypeAlias = "NDArray[Any] | torch.Tensor"
"""Frames as an array on the host, or as a tensor on any device."""
MediaKind = Literal["video", "images", "file", "none"]


@dataclass(frozen=True, slots=True)
class Media:
    """The local files of a task.

    Attributes:
        kind: `video` is one file of many frames; `images` is one file for each frame; `file` is one file without
            frames, such as audio or a document; `none` is no file, because the run does not need it.
        paths: the video's file, or the images' files in frame order.
    """

    kind: MediaKind
    paths: tuple[Path, ...]

    def __post_init__(self) -> None:
        may_be = {"none": (0, 0), "images": (1, len(self.paths))}.get(self.kind, (1, 1))
        if not may_be[0] <= len(self.paths) <= may_be[1]:
            raise ValueError(f"media of kind {self.kind!r}: got {len(self.paths)} files")


@dataclass(frozen=True, slots=True)
class FileLink:
    """A file that can be downloaded.

    Attributes:
        url: a signed link, which works for some minutes; a secret, so it is not printed.
        num_bytes: the size of the file; None if it is not known.
        suffix: the suffix for the local copy, such as `.mp4`.
    """

    url: str = field(repr=False)
    num_bytes: int | None
    suffix: str


@dataclass(frozen=True, slots=True)
class MediaLocation:
    """Where the media of a task are, as plain values, so that a worker on another machine can open them.

    Attributes:
        kind: as in `Media`; None if only the content of the file says it.
        paths: files that every worker sees at the same path.
        links: files to download, in frame order, if there are no paths.
    """

    kind: MediaKind | None
    paths: tuple[Path, ...] = ()
    links: tuple[FileLink | BucketFile, ...] = ()


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """Facts about a video, or about the images of a task.

    Attributes:
        width: of the displayed frame in pixels, after rotation.
        height: of the displayed frame in pixels, after rotation.
        num_frames: number of frames that are shown when FFmpeg decodes the video from start to end.
        average_fps: frames per second over the whole video; 0.0 for images.
        duration_seconds: from the first shown frame to the end of the last; 0.0 for images.
        rotation_degrees: clockwise rotation that the file asks for: 0, 90, 180 or 270; already applied to frames.
        frame_sizes: (width, height) of each frame if the images of a task differ in size; else empty.
    """

    width: int
    height: int
    num_frames: int
    average_fps: float = 0.0
    duration_seconds: float = 0.0
    rotation_degrees: int = 0
    frame_sizes: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"size: got {self.width} x {self.height}, expected 1 x 1 or more")
        if self.num_frames < 0:
            raise ValueError(f"num_frames: got {self.num_frames}, expected 0 or more")
        if self.rotation_degrees not in (0, 90, 180, 270):
            raise ValueError(f"rotation_degrees: got {self.rotation_degrees}, expected 0, 90, 180 or 270")
        if self.frame_sizes and len(self.frame_sizes) != self.num_frames:
            raise ValueError(f"frame_sizes: got {len(self.frame_sizes)} for {self.num_frames} frames")

    def sizes(self, frame_index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns width and height of the requested frames in pixels, int64 (N, 2).

        >>> VideoInfo(width=4, height=3, num_frames=2).sizes(np.array([1, 0])).tolist()
        [[4, 3], [4, 3]]
        """
        if self.frame_sizes:
            return np.asarray(self.frame_sizes, np.int64)[frame_index]
        return np.tile(np.array([self.width, self.height], np.int64), (len(frame_index), 1))

    def size_of(self, frame_index: int) -> tuple[int, int]:
        """Returns width and height of one frame in pixels."""
        return self.frame_sizes[frame_index] if self.frame_sizes else (self.width, self.height)


class FrameBatch:
    """Frames that a detector processes together.

    A detector may read the batch but not write to it. The reader may reuse the batch's memory once the detector has
    returned. `data` and `array` show the same memory: torch is imported only if somebody asks for a tensor.

    Attributes:
        decoded: what the reader gave: RGB frames as in `frames`, or surfaces, from which `frames` is made when somebody
            asks for it.
        frame_indices: int64 (N,), 0-based, presentation order, rising.
        pts_seconds: float64 (N,), time at which each frame is shown, from the first shown frame.
        ready: on a GPU, the event after which the data may be read; None if they may be read now. A detector can ignore
            it, because the current stream of its thread already waits for the event.
    """

    def __init__(
        self,
        data: torch.Tensor | NDArray[np.uint8] | Surfaces,
        frame_indices: ArrayLike,
        pts_seconds: ArrayLike,
        ready: torch.cuda.Event | None = None,
    ) -> None:
        self.decoded: Frames | Surfaces = data
        self.frame_indices: NDArray[np.int64] = np.asarray(frame_indices, np.int64)
        self.pts_seconds: NDArray[np.float64] = np.asarray(pts_seconds, np.float64)
        self.ready = ready
        num = len(self.frame_indices)
        if len(self.shape) != 4 or self.shape[0] != num or self.shape[3] != 3:
            raise ValueError(f"data: got shape {self.shape}, expected ({num}, H, W, 3)")
        if not isinstance(data, Surfaces) and not str(data.dtype).endswith("uint8"):
            raise ValueError(f"data: got {data.dtype}, expected uint8")
        if len(self.pts_seconds) != num:
            raise ValueError(f"pts_seconds: got {len(self.pts_seconds)} values for {num} frames")

    def __len__(self) -> int:
        return len(self.frame_indices)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number, height, width and channels of the frames."""
        return tuple(self.decoded.shape)

    @cached_property
    def frames(self) -> Frames:
        """The frames, uint8 (N, H, W, 3), RGB, displayed orientation: an array, or a tensor on the host or a device."""
        return self.decoded.rgb() if isinstance(self.decoded, Surfaces) else self.decoded

    @property
    def data(self) -> torch.Tensor:
        """The frames as a tensor, uint8 (N, H, W, 3), RGB, on the host or on a device."""
        return _tensor(self.frames)

    @property
    def array(self) -> NDArray[np.uint8]:
        """The frames as an array on the host, uint8 (N, H, W, 3), RGB; copied only if they are on a device."""
        frames = self.frames
        return frames if isinstance(frames, np.ndarray) else frames.numpy(force=True)

    @property
    def source(self) -> torch.Tensor | Surfaces:
        """The frames as the reader gave them, an array as a tensor."""
        return self.decoded if isinstance(self.decoded, Surfaces) else _tensor(self.decoded)

    @property
    def memory(self) -> torch.Tensor:
        """The tensor that the reader filled: RGB frames, or the planes of surfaces."""
        return self.source.planes if isinstance(self.source, Surfaces) else self.source

    def to(self, device: torch.device | str) -> FrameBatch:
        """Returns the batch on a device, surfaces as surfaces. The current stream copies it, if it is not there."""
        # A copy to a Mac's GPU would go on while the reader writes the next frames into the same memory.
        moved, source = self.memory.to(device, non_blocking=str(device).startswith("cuda")), self.source
        decoded = replace(source, planes=moved) if isinstance(source, Surfaces) else moved
        return FrameBatch(decoded, self.frame_indices, self.pts_seconds)

    def part(self, start: int, stop: int) -> FrameBatch:
        """Returns the frames from `start` up to but not including `stop`, without copying them.

        Both count within the batch.
        """
        place = slice(start, stop)
        return FrameBatch(self.decoded[place], self.frame_indices[place], self.pts_seconds[place], self.ready)

    @property
    def num_bytes(self) -> int:
        """The size in bytes of what the reader gave."""
        decoded = self.decoded
        return decoded.planes.nbytes if isinstance(decoded, Surfaces) else math.prod(self.shape)


def _tensor(frames: Frames) -> torch.Tensor:
    if not isinstance(frames, np.ndarray):
        return frames
    import torch

    return torch.from_numpy(frames)


THUMBNAIL_HEIGHT, THUMBNAIL_WIDTH, SAMPLES = 18, 32, 2
MIN_CHANGE = 12.0
"""Least change at a scene cut: the mean difference of green values, 0..255."""
MIN_RATIO = 3.0
NUM_NEIGHBOURS = 2


class SceneCutDetector:
    """Detects scene cuts from batches of frames, without keeping the frames.

    The changes stay on the frames' device until `cuts` is called, because copying each to the host would wait for the
    GPU. `add` may run on another thread and CUDA stream than `cuts`. `cuts` may be called once all of this work is
    done.
    """

    def __init__(self) -> None:
        self._indices: list[NDArray[np.int64]] = []
        self._changes: list[Frames] = []
        self._last: Frames | None = None

    def add(self, frames: Frames | Surfaces, frame_indices: NDArray[np.int64]) -> None:
        """Stores how much each frame differs from the one before it.

        Args:
            frames: uint8 (N, H, W, 3), an array, or a tensor on any device; or surfaces.
            frame_indices: int64 (N,), rising from batch to batch.
        """
        small = thumbnails(frames)
        last = small[:1] if self._last is None else self._last
        self._indices.append(frame_indices)
        self._changes += [abs(small[:1] - last).mean((1, 2)), abs(small[1:] - small[:-1]).mean((1, 2))]
        self._last = small[-1:]

    def cuts(self) -> NDArray[np.int64]:
        """Returns the first frame of each new shot, int64 (K,)."""
        if not self._changes:
            return np.zeros(0, np.int64)
        if isinstance(self._changes[0], np.ndarray):
            changes = np.concatenate(self._changes)
        else:
            import torch

            changes = torch.cat(self._changes).cpu().numpy()
        return find_cuts(np.concatenate(self._indices), changes)


def thumbnails(frames: Frames | Surfaces) -> Frames:
    """Returns small images of frames, float32 (N, height, width), 0..255, on the frames' device.

    They show green only, which contributes most to brightness. Each of their pixels averages about 2 by 2 pixels of the
    frame, so the cost does not grow with the frame's size.

    Args:
        frames: uint8 (N, H, W, 3), an array, or a tensor on any device; or surfaces.
    """
    step_y = max(1, frames.shape[1] // (THUMBNAIL_HEIGHT * SAMPLES))
    step_x = max(1, frames.shape[2] // (THUMBNAIL_WIDTH * SAMPLES))
    green = _every(frames, step_y, step_x)[..., 1]
    down, across = _sums(green.shape[1], THUMBNAIL_HEIGHT), _sums(green.shape[2], THUMBNAIL_WIDTH)
    areas = np.outer(down.sum(axis=1), across.sum(axis=1))
    if isinstance(green, np.ndarray):
        return down @ green.astype(np.float32) @ across.T / areas
    import torch

    down, across, areas = (torch.from_numpy(values).to(green.device) for values in (down, across, areas))
    return down @ green.float() @ across.T / areas


def _every(frames: Frames | Surfaces, step_y: int, step_x: int) -> Frames:
    """Returns every step_y-th row and every step_x-th column, uint8 RGB."""
    if not isinstance(frames, Surfaces):
        return frames[:, ::step_y, ::step_x]
    import torch

    height, width = frames.shape[1:3]
    rows = torch.arange(0, height, step_y, device=frames.device)
    return frames.pixels(rows, torch.arange(0, width, step_x, device=frames.device))


@lru_cache(maxsize=16)  # frames of a run have few different sizes
def _sums(num_in: int, max_out: int) -> NDArray[np.float32]:
    """Returns the matrix that sums `num_in` values in at most `max_out` groups, float32 (out, in)."""
    num_out = min(num_in, max_out)
    place, columns = np.arange(num_out)[:, None], np.arange(num_in)
    first, stop = place * num_in // num_out, -(-(place + 1) * num_in // num_out)
    return ((columns >= first) & (columns < stop)).astype(np.float32)


def find_cuts(frame_indices: NDArray[np.int64], changes: NDArray[np.float32]) -> NDArray[np.int64]:
    """Returns the first frame of each new shot, int64 (K,).

    Args:
        frame_indices: int64 (M,), the compared frames, rising.
        changes: float32 (M,), change of each frame from the one before it; the first is 0.

    >>> find_cuts(np.arange(6), np.array([0, 2, 40, 3, 2, 2], np.float32)).tolist()
    [2]
    >>> find_cuts(np.arange(6), np.array([0, 2, 40, 40, 2, 2], np.float32)).tolist()  # a flash
    []
    """
    # A flash or fast motion gives several large changes in a row. A cut gives one that is much larger than its
    # neighbours.
    padded = np.pad(changes, NUM_NEIGHBOURS)
    shifts = [shift for shift in range(2 * NUM_NEIGHBOURS + 1) if shift != NUM_NEIGHBOURS]
    around = np.max([padded[shift : shift + len(changes)] for shift in shifts], axis=0)
    is_cut = (changes >= MIN_CHANGE) & (changes >= MIN_RATIO * around)
    cuts: NDArray[np.int64] = frame_indices[is_cut]
    return cuts
