"""Hard cuts, told from how much the picture changes between two frames that were looked at one after the other.

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

THUMBNAIL_HEIGHT, THUMBNAIL_WIDTH, SAMPLES = 18, 32, 4
MIN_CHANGE = 12.0
"""Mean difference of green values, 0..255."""
MIN_RATIO = 3.0
NUM_NEIGHBOURS = 2


def thumbnails(data: torch.Tensor) -> NDArray[np.float32]:
    """Returns small pictures of frames, float32 (N, height, width), 0..255.

    Green alone, which is most of what the eye calls bright, and only some pixels, about 4 by 4 for each of the
    thumbnail's: the cost does not grow with the frame's size.

    Args:
        data: uint8 (N, H, W, 3), on any device.
    """
    import torch

    step_y = max(1, data.shape[1] // (THUMBNAIL_HEIGHT * SAMPLES))
    step_x = max(1, data.shape[2] // (THUMBNAIL_WIDTH * SAMPLES))
    green = data[:, ::step_y, ::step_x, 1].to(torch.float32)
    size = (min(THUMBNAIL_HEIGHT, green.shape[1]), min(THUMBNAIL_WIDTH, green.shape[2]))
    small: NDArray[np.float32] = torch.nn.functional.adaptive_avg_pool2d(green, size).cpu().numpy()
    return small


def change_between(before: NDArray[np.float32], after: NDArray[np.float32]) -> float:
    """Returns the mean difference of two thumbnails of one size, 0..255."""
    return float(np.abs(after - before).mean())


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
