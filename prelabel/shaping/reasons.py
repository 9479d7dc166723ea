"""What is left to label, and how many detections are left out for which reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prelabel.detections import VideoDetections
from prelabel.shaping.keyframes import Thinning

DropReason = Literal[
    "ignored",
    "unmapped",
    "no_keypoints",
    "low_confidence",
    "empty",
    "too_small",
    "too_large",
    "aspect",
    "out_of_zone",
    "duplicate",
    "overlapping",
    "flicker",
    "over_max_per_frame",
    "untracked",
    "short_track",
]
"""In the order in which they are looked at; the last two are of `prelabel.tracking`."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """How many detections were left out, and why.

    Attributes:
        counts: by reason, then by the detector's class name; only what is not zero.
    """

    counts: Mapping[DropReason, Mapping[str, int]]

    @property
    def total(self) -> int:
        """All of them."""
        return sum(sum(by_class.values()) for by_class in self.counts.values())


@dataclass(frozen=True, slots=True)
class Shaped:
    """Detections that become labels, and the count of those that do not.

    Attributes:
        detections: within their frames, of mapped classes, each with an area at five decimals.
        dropped: all others, counted.
        thinning: what keeping few boxes of each track has saved; None where all are kept.
    """

    detections: VideoDetections
    dropped: Dropped
    thinning: Thinning | None = None


def count_by_class(class_id: NDArray[np.int64], class_names: tuple[str, ...]) -> dict[str, int]:
    """Returns how often each class comes; only what is not zero.

    >>> count_by_class(np.array([1, 1]), ("car", "bus"))
    {'bus': 2}
    """
    counts = np.bincount(class_id, minlength=len(class_names))
    return {name: int(num) for name, num in zip(class_names, counts, strict=True) if num}
