"""Detects small objects in large frames: runs the detector on the frame and on overlapping tiles, and merges boxes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from prelabel.data.boxes import box_areas, iou_matrix
from prelabel.data.detections import Detections
from prelabel.data.frames import FrameBatch
from prelabel.data.geometry import move_geometry
from prelabel.plugins.protocols import Detector
from prelabel.plugins.traits import start_batch

SAME_IOU = 0.5
"""Two boxes of one class from two views are the same object if their IoU is at least this."""
SAME_PART = 0.5
"""A box cut off by a tile is the same object as a box of another view if at least this part of it lies in that box."""


class Tiles(BaseModel):
    """How a frame is cut up."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int = Field(640, ge=32, description="sides of a tile, in pixels of the frame")
    overlap: float = Field(0.2, ge=0, le=0.9, description="least part of a tile that it shares with the next")


class TiledDetector:
    """Runs a detector on each whole frame and on its tiles.

    If a tile cuts off an object, the box comes from a view that shows the whole object. That is the next tile if the
    object is smaller than the overlap, and the whole frame otherwise.
    """

    def __init__(self, detector: Detector, tiles: Tiles) -> None:
        self._detector, self._tiles = detector, tiles

    @property
    def class_names(self) -> Sequence[str]:
        """The detector's class names."""
        return self._detector.class_names

    def detect(self, batch: FrameBatch) -> list[Detections]:
        """Returns one `Detections` per frame, with boxes in pixels of the whole frame."""
        return self.start(batch)()

    def start(self, batch: FrameBatch) -> Callable[[], list[Detections]]:
        """Starts detection on a batch and returns a function that waits for the result.

        Each view is started before the function waits for the view before it.
        """
        num_frames, (height, width) = len(batch), batch.shape[1:3]
        views: list[_View] = []
        awaited: Callable[[], _View] | None = None
        for x1, y1, x2, y2 in [(0, 0, width, height), *windows(width, height, self._tiles)]:
            part = FrameBatch(batch.data[:, y1:y2, x1:x2].contiguous(), batch.frame_indices, batch.pts_seconds)
            begun = partial(_finish, start_batch(self._detector, part), (x1, y1, x2, y2), (width, height))
            if awaited is not None:
                views.append(awaited())
            awaited = begun

        def finish() -> list[Detections]:
            assert awaited is not None
            seen = [*views, awaited()]
            return [_merge([view.frames[place] for view in seen]) for place in range(num_frames)]

        return finish


def _finish(
    waiting: Callable[[], list[Detections]], window: tuple[int, int, int, int], frame_size: tuple[int, int]
) -> _View:
    return _View.of(waiting(), window, frame_size)


def windows(width: int, height: int, tiles: Tiles) -> Iterator[tuple[int, int, int, int]]:
    """Yields x1, y1, x2, y2 of a frame's tiles, row by row; nothing if the frame fits into one tile.

    >>> list(windows(1000, 640, Tiles(size=640, overlap=0.2)))
    [(0, 0, 640, 640), (360, 0, 1000, 640)]
    """
    if width <= tiles.size and height <= tiles.size:
        return
    columns, rows = _spans(width, tiles), _spans(height, tiles)
    for (top, bottom), (left, right) in itertools.product(rows, columns):
        yield left, top, right, bottom


def _spans(length: int, tiles: Tiles) -> list[tuple[int, int]]:
    """Returns the fewest evenly spaced spans that cover a length with the required overlap."""
    if length <= tiles.size:
        return [(0, length)]
    step = tiles.size * (1 - tiles.overlap)
    num = math.ceil((length - tiles.size) / step) + 1
    starts = np.linspace(0, length - tiles.size, num).round().astype(int).tolist()
    return [(start, start + tiles.size) for start in starts]


@dataclass(frozen=True, slots=True)
class _Found:
    """Detections of one view of one frame, in pixels of the frame.

    `is_cut`, bool (N,), marks boxes at an edge of the view that lies inside the frame.
    """

    detections: Detections
    is_cut: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _View:
    frames: list[_Found]

    @classmethod
    def of(cls, found: Sequence[Detections], window: tuple[int, int, int, int], frame_size: tuple[int, int]) -> _View:
        x1, y1, x2, y2 = window
        inner_edges = np.array([x1 > 0, y1 > 0, x2 < frame_size[0], y2 < frame_size[1]])
        limits = np.array([1, 1, x2 - x1 - 1, y2 - y1 - 1])
        frames = []
        for each in found:
            at_edge = np.concatenate([each.xyxy[:, :2] <= limits[:2], each.xyxy[:, 2:] >= limits[2:]], axis=1)
            moved = each.xyxy + np.array([x1, y1, x1, y1], np.float32)
            is_cut: NDArray[np.bool_] = np.any(at_edge & inner_edges, axis=1)
            geometry = np.full(len(each), None, object)
            for row in np.flatnonzero(each.geometry.astype(np.bool_)):
                geometry[row] = move_geometry(each.geometry[row], x1, y1)
            frames.append(_Found(Detections(moved, each.confidence, each.class_id, geometry), is_cut))
        return cls(frames)


def _merge(views: Sequence[_Found]) -> Detections:
    """Merges the boxes of one frame's views: whole boxes win over cut ones, then higher confidence wins.

    Boxes of the same view are never merged, since the detector has already done NMS on them.
    """
    xyxy = np.concatenate([view.detections.xyxy for view in views])
    confidence = np.concatenate([view.detections.confidence for view in views])
    class_id = np.concatenate([view.detections.class_id for view in views])
    geometry = np.concatenate([view.detections.geometry for view in views])
    is_cut = np.concatenate([view.is_cut for view in views])
    view_of = np.repeat(np.arange(len(views)), [len(view.is_cut) for view in views])
    order = np.lexsort((-confidence, is_cut))
    xyxy, confidence, class_id, geometry = xyxy[order], confidence[order], class_id[order], geometry[order]
    is_cut, view_of = is_cut[order], view_of[order]

    overlap = iou_matrix(xyxy, xyxy)
    in_common = overlap / (1 + overlap) * (box_areas(xyxy)[:, None] + box_areas(xyxy)[None])
    part_of_other = in_common / np.maximum(box_areas(xyxy), 1e-6)[None]
    same = (overlap >= SAME_IOU) | (is_cut[None] & (part_of_other >= SAME_PART))
    same &= (class_id[:, None] == class_id[None]) & (view_of[:, None] != view_of[None])
    same = np.triu(same, k=1)
    gone = np.zeros(len(xyxy), np.bool_)
    for rank in np.flatnonzero(same.any(axis=1)):
        if not gone[rank]:
            gone |= same[rank]
    return Detections(xyxy[~gone], confidence[~gone], class_id[~gone], geometry[~gone])
