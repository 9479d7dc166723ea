"""Pictures for those who bring none."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def textured_frames() -> NDArray[np.uint8]:
    """Returns uint8 (3, 184, 320, 3) of textured noise."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (3, 23, 40, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)
