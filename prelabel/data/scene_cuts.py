"""Finds hard scene cuts by how much the image changes from one inferred frame to the next.

The rule is that of PySceneDetect's AdaptiveDetector (https://www.scenedetect.com, BSD-3-Clause): a change is a cut when
it is large, and several times as large as the changes around it. Here "around" is the largest neighbour instead of
their mean, so that a flash, which is two large changes side by side, ends no track.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch


THUMBNAIL_HEIGHT, THUMBNAIL_WIDTH, SAMPLES = 18, 32, 2
MIN_CHANGE = 12.0
"""Mean difference of green values, 0..255."""
MIN_RATIO = 3.0
NUM_NEIGHBOURS = 2


class SceneCutDetector:
    """Takes batches of frames, and returns at the end where shots begin; holds no frame.

    The changes stay on the frames' device until then: to copy each to the host would wait for the GPU. Frames may be
    added on another thread and CUDA stream than `cuts` is called on, once all of them are done.
    """

    def __init__(self) -> None:
        self._indices: list[NDArray[np.int64]] = []
        self._changes: list[torch.Tensor] = []
        self._last: torch.Tensor | None = None

    def add(self, data: torch.Tensor, frame_indices: NDArray[np.int64]) -> None:
        """Notes how much each frame differs from the one before it.

        Args:
            data: uint8 (N, H, W, 3), on any device.
            frame_indices: int64 (N,), rising from batch to batch.
        """
        small = thumbnails(data)
        before = small.roll(1, dims=0)
        before[0] = small[0] if self._last is None else self._last
        self._indices.append(frame_indices)
        self._changes.append((small - before).abs().mean(dim=(1, 2)))
        self._last = small[-1]

    def cuts(self) -> NDArray[np.int64]:
        """Returns the frames, int64 (K,), with which a new shot begins."""
        if not self._changes:
            return np.zeros(0, np.int64)
        import torch

        return find_cuts(np.concatenate(self._indices), torch.cat(self._changes).cpu().numpy())


def thumbnails(data: torch.Tensor) -> torch.Tensor:
    """Returns small pictures of frames, float32 (N, height, width), 0..255, on the frames' device.

    Green alone, which is most of what the eye calls bright, and only some pixels, about 2 by 2 for each of the
    thumbnail's: the cost does not grow with the frame's size.

    Args:
        data: uint8 (N, H, W, 3), on any device.
    """
    import torch

    step_y = max(1, data.shape[1] // (THUMBNAIL_HEIGHT * SAMPLES))
    step_x = max(1, data.shape[2] // (THUMBNAIL_WIDTH * SAMPLES))
    green = data[:, ::step_y, ::step_x, 1].to(torch.float32)
    size = (min(THUMBNAIL_HEIGHT, green.shape[1]), min(THUMBNAIL_WIDTH, green.shape[2]))
    return torch.nn.functional.adaptive_avg_pool2d(green, size)


def find_cuts(frame_indices: NDArray[np.int64], changes: NDArray[np.float32]) -> NDArray[np.int64]:
    """Returns the frames, int64 (K,), with which a new shot begins.

    Args:
        frame_indices: int64 (M,), rising: those that were looked at.
        changes: float32 (M,), of each to the one before it; the first is 0.

    >>> find_cuts(np.arange(6), np.array([0, 2, 40, 3, 2, 2], np.float32)).tolist()
    [2]
    >>> find_cuts(np.arange(6), np.array([0, 2, 40, 40, 2, 2], np.float32)).tolist()  # a flash
    []
    """
    padded = np.pad(changes, NUM_NEIGHBOURS)
    shifts = [shift for shift in range(2 * NUM_NEIGHBOURS + 1) if shift != NUM_NEIGHBOURS]
    around = np.max([padded[shift : shift + len(changes)] for shift in shifts], axis=0)
    is_cut = (changes >= MIN_CHANGE) & (changes >= MIN_RATIO * around)
    cuts: NDArray[np.int64] = frame_indices[is_cut]
    return cuts
