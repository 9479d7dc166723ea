"""Masks from the device to the host: windows of pixels, those of a whole batch in one copy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from prelabel.data.detections import Detections
from prelabel.data.geometry import Mask

_NO_ROW = -1.0


def pad_rows(frames: Sequence[torch.Tensor], max_det: int) -> torch.Tensor:
    """Returns the table of each frame's rows, (up to max_det, 6 or more).

    >>> pad_rows([torch.zeros(1, 6), torch.zeros(0, 6)], 2)[..., 4].tolist()
    [[0.0, -1.0], [-1.0, -1.0]]
    """
    table = frames[0].new_full((len(frames), max_det, frames[0].shape[1]), _NO_ROW, dtype=torch.float32)
    for place, rows in zip(table, frames, strict=True):
        place[: len(rows)] = rows
    return table


def select_rows(rows: torch.Tensor, keep: torch.Tensor, max_det: int) -> torch.Tensor:
    """Returns the table of the rows that are kept, at most the first `max_det` of an image; waits for no device.

    Args:
        rows: float32 (N, K, 6 or more).
        keep: bool (N, K).
        max_det: rows an image at most.

    >>> rows = torch.arange(3.0)[None, :, None].expand(1, 3, 6)
    >>> select_rows(rows, torch.tensor([[False, True, True]]), 2)[0, :, 4].tolist()
    [1.0, 2.0]
    """
    num_images, _, num_columns = rows.shape
    table = rows.new_full((num_images, max_det + 1, num_columns), _NO_ROW)
    place = keep.cumsum(1) - 1
    place = place.where(keep & (place < max_det), max_det)  # what is not kept goes where nobody looks
    table.scatter_(1, place[..., None].expand(-1, -1, num_columns), rows)
    return table[:, :max_det]


class HostCopy:
    """A tensor on its way to the host, in pinned memory, so that nobody has to wait for it before it is needed."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._arrived: torch.cuda.Event | None = None
        if tensor.device.type == "cpu":
            self._host = tensor
            return
        self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        self._host.copy_(tensor, non_blocking=True)
        self._arrived = torch.cuda.Event()
        self._arrived.record(torch.cuda.current_stream(tensor.device))

    def wait(self) -> NDArray[np.float32]:
        """Returns the values once they are there; a tensor of another type than float32 gives its own."""
        if self._arrived is not None:
            self._arrived.synchronize()
        values: NDArray[np.float32] = self._host.numpy()
        return values


def boxes_of_table(table: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Returns each frame's rows, (n, 6 or more), of a table on the host.

    Boxes without an area are left out: cutting to the frame makes them of boxes that lie outside it.

    >>> rows = [[0, 0, 2, 2, 0.5, 1], [3, 0, 3, 2, 0.5, 1], [0, 0, 0, 0, -1, 0]]
    >>> [len(rows) for rows in boxes_of_table(np.array([rows], np.float32))]
    [1]
    """
    is_box = (table[..., 4] >= 0) & (table[..., 2] > table[..., 0]) & (table[..., 3] > table[..., 1])
    return [rows[keep] for rows, keep in zip(table, is_box, strict=True)]


def detections_of_rows(rows: NDArray[np.float32], geometry: NDArray[np.object_] | None = None) -> Detections:
    """Returns the detections of one frame's rows.

    Args:
        rows: (n, 6 or more).
        geometry: object (n,), what is known beyond the boxes; None: nothing.
    """
    known = np.full(len(rows), None, object) if geometry is None else geometry
    return Detections(rows[:, :4], rows[:, 4].clip(0, 1), rows[:, 5].astype(np.int64), known)


def detections_from_table(table: NDArray[np.float32]) -> list[Detections]:
    """Returns one `Detections` a frame of a table on the host, of boxes alone."""
    return [detections_of_rows(rows) for rows in boxes_of_table(table)]


@dataclass(frozen=True, slots=True)
class PixelWindow:
    """Which pixels of a part of a frame are a thing's.

    Attributes:
        left: of the part, in whole pixels of the frame.
        top: of the part.
        pixels: bool (height, width), on the device.
    """

    left: int
    top: int
    pixels: torch.Tensor


def masks_on_host(frames: Sequence[Sequence[PixelWindow]]) -> list[NDArray[np.object_]]:
    """Returns the masks of each frame's windows, object (n,); None of one in which no pixel is set."""
    windows = [window for found in frames for window in found]
    values = np.zeros(0, np.bool_)
    if windows:
        values = HostCopy(torch.cat([window.pixels.reshape(-1) for window in windows])).wait().astype(np.bool_)
    ends = np.cumsum([window.pixels.numel() for window in windows])
    masks = iter(
        Mask.of(part.reshape(window.pixels.shape), window.left, window.top)
        for window, part in zip(windows, np.split(values, ends[:-1]), strict=False)
    )
    columns = []
    for found in frames:
        column = np.full(len(found), None, object)
        for row in range(len(found)):
            column[row] = next(masks)
        columns.append(column)
    return columns
