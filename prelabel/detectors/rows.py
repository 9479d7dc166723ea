"""A network's boxes, on its device, as what the rest of the program works with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from prelabel.detections import Detections


def detections_from_rows(frames: Sequence[torch.Tensor]) -> list[Detections]:
    """Returns one `Detections` a frame, brought to the host in one transfer.

    Boxes without an area are left out: cutting to the frame makes them of boxes that lie outside it.

    Args:
        frames: for each frame (N, 6): x1, y1, x2, y2 in pixels of the frame, confidence, class id.

    >>> [len(d) for d in detections_from_rows([torch.tensor([[0, 0, 2, 2, 0.5, 1], [3, 0, 3, 2, 0.5, 1]])])]
    [1]
    """
    if not frames:
        return []
    counts = [len(rows) for rows in frames]
    table = torch.cat([rows.float() for rows in frames]).cpu().numpy()
    return [_detections(rows) for rows in np.split(table, np.cumsum(counts)[:-1])]


def _detections(rows: np.ndarray) -> Detections:
    rows = rows[(rows[:, 2] > rows[:, 0]) & (rows[:, 3] > rows[:, 1])]
    return Detections(xyxy=rows[:, :4], confidence=rows[:, 4].clip(0, 1), class_id=rows[:, 5].astype(np.int64))
