"""Labels by object instance, for formats that hold tracks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from prelabel.data.label_map import LabelledVideo


def object_instances(
    video: LabelledVideo, single: NDArray[np.bool_] | None = None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.bool_]]]:
    """Yields for each object instance its rows, int64 (K,) in frame order, and bool (K,): the object leaves after it.

    An object leaves if the next inferred frame has no label of it. Frames between that no detector has seen are no gap.

    Args:
        video: with N labels.
        single: bool (N,): labels that become an instance of their own. Default: those without a track.
    """
    found = video.detections
    instance = found.instance
    if single is not None:
        instance = np.where(single, len(found) + np.arange(len(found)), instance)
    order = np.argsort(instance, kind="stable")  # rows of one instance stay in frame order
    for rows in np.split(order, np.flatnonzero(np.diff(instance[order])) + 1):
        if len(rows):  # a video without labels has one empty part
            place = np.searchsorted(found.frames_looked_at, found.frame_index[rows])
            yield rows, np.append(np.diff(place) > 1, True)
