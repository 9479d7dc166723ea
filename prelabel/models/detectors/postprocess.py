"""Turns a network's output into detections on the host: NMS, tables of rows, masks.

A table holds the boxes of N images: float32 (N, max_det, 6 or more). Its columns are x1, y1, x2, y2, confidence, class
id, then those of the head, such as mask coefficients or keypoints. Unused rows have a confidence of -1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from prelabel.data.geometry import Mask
from prelabel.models.detectors.host import CLASS_OFFSET, NmsConfig, Rows, nms_rows

BATCHED_CANDIDATES = 512
"""`MAX_CANDIDATES` for `nms_batched`. YOLO11n yields 310 on a street with fifty objects, at a confidence of 0.05."""
MAX_ROUNDS = 12
"""The most rounds of `nms_batched`. The same street takes 6."""
_BATCHED_IMAGES = 64  # images per step, to bound memory: the overlaps of all pairs take 64 MB for 64 images
_NO_ROW = -1.0


def filter_rows(rows: torch.Tensor, config: NmsConfig) -> torch.Tensor:
    """Returns a table of the rows that pass `conf`, `class_ids` and `max_det`, for heads that need no NMS.

    Args:
        rows: (N, K, 6 or more), highest confidence first, columns as in a table.
        config: its `iou` is not used.
    """
    rows = rows.float()
    return table_of_kept(rows, _is_candidate(rows[..., 4], rows[..., 5], config), config.max_det)


def sort_rows(rows: torch.Tensor) -> torch.Tensor:
    """Returns rows (N, K, 6 or more) sorted by confidence, highest first."""
    order = rows[..., 4].argsort(dim=1, descending=True, stable=True)
    return rows.gather(1, order[..., None].expand(-1, -1, rows.shape[-1]))


def nms_per_image(prediction: torch.Tensor, num_classes: int, config: NmsConfig) -> torch.Tensor:
    """Returns a table, on the host, of the boxes that NMS keeps, image by image. It waits for the device.

    Args:
        prediction: (N, 4 + num_classes + E, A): centre x, centre y, width, height, confidence of each class, then E
            further values of the head.
        num_classes: number of classes in the prediction.
        config: which boxes are kept.
    """
    images = prediction.float().numpy(force=True)
    return table_of_frames([torch.from_numpy(nms_rows(image, num_classes, config)) for image in images], config.max_det)


def nms_batched(
    prediction: torch.Tensor, num_classes: int, config: NmsConfig, *, num_candidates: int = BATCHED_CANDIDATES
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the table of `nms_per_image`, for all images at once and without waiting for a GPU.

    The shape of torchvision's NMS result depends on the number of kept boxes, so the host must wait for that number.
    During that wait, once per image, the GPU is idle. Here all shapes are known in advance.

    Greedy NMS drops a box if it overlaps a kept box of higher confidence. Each round applies this rule to all pairs,
    using the result of the round before. Round k decides every box that depends on a chain of at most k others. Once a
    round changes nothing, all boxes are decided, and the result equals greedy NMS.

    Args:
        prediction: as for `nms_per_image`.
        num_classes: number of classes in the prediction.
        config: which boxes are kept.
        num_candidates: the most boxes per image that are compared.

    Returns:
        The table, and a bool scalar: whether it is exact. It is not exact if an image has more candidates or needs more
        rounds.
    """
    confidence, class_id = _best_class(prediction, num_classes)
    ranked = confidence.where(_is_candidate(confidence, class_id, config), -1.0)
    scores, order = ranked.sort(dim=1, descending=True, stable=True)
    num = min(num_candidates, scores.shape[1])
    has_all_candidates = (scores[:, num:] < 0).all()
    scores, order = scores[:, :num], order[:, :num]
    boxes, extras = (
        columns.gather(2, order[:, None].expand(-1, columns.shape[1], -1)).transpose(1, 2)
        for columns in (prediction[:, :4], prediction[:, 4 + num_classes :])
    )
    rows = _rows(boxes, scores, class_id.gather(1, order), extras)
    decided = [_decide(part, config) for part in rows.split(_BATCHED_IMAGES)]
    keep = torch.cat([kept for kept, _ in decided])
    is_exact = torch.stack([has_all_candidates, *(is_final for _, is_final in decided)]).all()
    return table_of_kept(rows, keep, config.max_det), is_exact


def _decide(rows: torch.Tensor, config: NmsConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns which rows (N, K, 6 or more) NMS keeps, bool (N, K), and whether the last round changed nothing."""
    overlaps = _overlaps(_move_apart(rows, config), config.iou).float()
    candidates = rows[..., 4] > config.conf
    keep, is_final = candidates, torch.ones((), dtype=torch.bool, device=rows.device)
    for _ in range(MAX_ROUNDS):  # a fixed number, since a check for convergence would wait for the device
        before = keep
        keep = candidates & (torch.bmm(before[:, None].float(), overlaps)[:, 0] == 0)
        is_final = (keep == before).all()
    return keep, is_final


def _overlaps(boxes: torch.Tensor, iou: float) -> torch.Tensor:
    """Returns whether box i overlaps the later box j by more than `iou`, bool (N, K, K).

    The order of operations is that of torchvision's NMS kernel, so rounding is the same too.
    """
    areas = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    top_left = torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    sides = (torch.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:]) - top_left).clamp_(min=0)
    shared = sides[..., 0] * sides[..., 1]
    return (shared / (areas[:, :, None] + areas[:, None] - shared) > iou).triu(diagonal=1)


def _best_class(prediction: torch.Tensor, num_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    confidence, class_id = prediction[:, 4 : 4 + num_classes].max(dim=1)
    return confidence.float(), class_id


def _is_candidate(confidence: torch.Tensor, class_id: torch.Tensor, config: NmsConfig) -> torch.Tensor:
    passes = confidence > config.conf
    if config.class_ids is None:
        return passes
    return passes & torch.isin(class_id.long(), _on_device(config.class_ids, confidence.device))


@lru_cache(maxsize=16)  # without the cache, every batch would copy them to the GPU, and the thread would wait
def _on_device(class_ids: tuple[int, ...], device: torch.device) -> torch.Tensor:
    return torch.tensor(class_ids, dtype=torch.int64, device=device)


def _rows(boxes: torch.Tensor, confidence: torch.Tensor, class_id: torch.Tensor, extras: torch.Tensor) -> torch.Tensor:
    """Returns rows (..., 6 + E) for boxes (..., 4) given as centre and size."""
    centre, half = boxes[..., :2].float(), boxes[..., 2:].float() / 2
    columns = [centre - half, centre + half, confidence[..., None], class_id[..., None].float(), extras.float()]
    return torch.cat(columns, dim=-1)


def _move_apart(rows: torch.Tensor, config: NmsConfig) -> torch.Tensor:
    """Returns the boxes (..., 4) of rows, shifted so that only boxes of one class overlap, unless `agnostic`."""
    return rows[..., :4] if config.agnostic else rows[..., :4] + rows[..., 5:6] * CLASS_OFFSET


def table_of_frames(frames: Sequence[torch.Tensor], max_det: int) -> torch.Tensor:
    """Combines the rows of several frames, each (up to max_det, 6 or more), into a table.

    >>> table_of_frames([torch.zeros(1, 6), torch.zeros(0, 6)], 2)[..., 4].tolist()
    [[0.0, -1.0], [-1.0, -1.0]]
    """
    table = frames[0].new_full((len(frames), max_det, frames[0].shape[1]), _NO_ROW, dtype=torch.float32)
    for place, rows in zip(table, frames, strict=True):
        place[: len(rows)] = rows
    return table


def table_of_kept(rows: torch.Tensor, keep: torch.Tensor, max_det: int) -> torch.Tensor:
    """Returns a table of the first `max_det` kept rows per image, without waiting for a GPU.

    Args:
        rows: float32 (N, K, 6 or more).
        keep: bool (N, K), which rows are kept.
        max_det: the most rows per image.

    >>> rows = torch.arange(3.0)[None, :, None].expand(1, 3, 6)
    >>> table_of_kept(rows, torch.tensor([[False, True, True]]), 2)[0, :, 4].tolist()
    [1.0, 2.0]
    """
    num_images, _, num_columns = rows.shape
    table = rows.new_full((num_images, max_det + 1, num_columns), _NO_ROW)
    place = keep.cumsum(1) - 1
    place = place.where(keep & (place < max_det), max_det)  # all other rows go to one extra place, which is cut off
    table.scatter_(1, place[..., None].expand(-1, -1, num_columns), rows)
    return table[:, :max_det]


class HostCopy:
    """Copies a tensor to the host; from a CUDA device without blocking the thread.

    The host memory is pinned. A copy to other memory would block until the GPU has finished all earlier work.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        self._copied: torch.cuda.Event | None = None
        if tensor.device.type != "cuda":
            self._host = tensor.cpu()
            return
        self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        self._host.copy_(tensor, non_blocking=True)
        self._copied = torch.cuda.Event()
        self._copied.record(torch.cuda.current_stream(tensor.device))

    def wait(self) -> NDArray[np.float32]:
        """Waits for the copy and returns the values, in the tensor's dtype."""
        if self._copied is not None:
            self._copied.synchronize()
        values: NDArray[np.float32] = self._host.numpy()
        return values


def copy_table(
    table: torch.Tensor, is_exact: torch.Tensor | None, compute_exactly: Callable[[], torch.Tensor]
) -> Callable[[], NDArray[np.float32]]:
    """Starts the copy of a table to the host, and returns a function that waits for it.

    Args:
        table: (N, max_det, 6 or more).
        is_exact: a bool scalar of `nms_batched`; None if the table is known to be exact.
        compute_exactly: returns the table by `nms_per_image`; called if the table is not exact.
    """
    num_frames = len(table)
    if is_exact is not None:  # appended as one more image, so that one copy brings both to the host
        table = torch.cat([table, is_exact.float().expand(1, *table.shape[1:])])
    copied = HostCopy(table)

    def wait() -> NDArray[np.float32]:
        rows, flag = np.split(copied.wait(), [num_frames])
        return rows if flag.all() else compute_exactly().cpu().numpy()

    return wait


def rows_of_table(table: NDArray[np.float32]) -> list[Rows]:
    """Returns each frame's rows of a table on the host, without unused rows and boxes without area.

    A box outside the frame has no area after clipping.

    >>> rows = [[0, 0, 2, 2, 0.5, 1], [3, 0, 3, 2, 0.5, 1], [0, 0, 0, 0, -1, 0]]
    >>> [len(rows) for rows in rows_of_table(np.array([rows], np.float32))]
    [1]
    """
    is_box = (table[..., 4] >= 0) & (table[..., 2] > table[..., 0]) & (table[..., 3] > table[..., 1])
    return [rows[keep] for rows, keep in zip(table, is_box, strict=True)]


@dataclass(frozen=True, slots=True)
class PixelWindow:
    """The part of a frame that holds an object's mask.

    Attributes:
        left: first column of the part, in pixels of the frame.
        top: first row of the part, in pixels of the frame.
        pixels: bool (height, width), on the device: which pixels belong to the object.
    """

    left: int
    top: int
    pixels: torch.Tensor


def masks_of_windows(frames: Sequence[Sequence[PixelWindow]]) -> list[NDArray[np.object_]]:
    """Returns the masks of each frame's windows, object (n,); None for a window without a set pixel.

    The windows of all frames reach the host in one copy, since each copy waits for the GPU.
    """
    windows = [window for of_frame in frames for window in of_frame]
    values = np.zeros(0, np.bool_)
    if windows:
        values = HostCopy(torch.cat([window.pixels.reshape(-1) for window in windows])).wait().astype(np.bool_)
    ends = np.cumsum([window.pixels.numel() for window in windows])
    masks = iter(
        Mask.of(part.reshape(window.pixels.shape), window.left, window.top)
        for window, part in zip(windows, np.split(values, ends[:-1]), strict=False)
    )
    columns = []
    for of_frame in frames:
        column = np.full(len(of_frame), None, object)
        for row in range(len(of_frame)):
            column[row] = next(masks)
        columns.append(column)
    return columns
