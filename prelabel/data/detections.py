"""The detections of a frame, and of a whole video as columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prelabel.data.geometry import as_geometry_column

Scalar = TypeVar("Scalar", bound=np.generic)

ROW_COLUMNS = ("frame_index", "xyxy", "confidence", "class_id", "track_id", "interpolated", "geometry")
"""The fields of `VideoDetections` that have one entry for each row."""


def _no_geometry() -> NDArray[np.object_]:
    return np.zeros(0, object)


@dataclass(frozen=True, slots=True)
class Detections:
    """The detections of one frame.

    The class converts lists and host tensors to arrays.

    Attributes:
        xyxy: float32 (N, 4), corners x1, y1, x2, y2 in pixels of the displayed frame.
        confidence: float32 (N,), 0..1.
        class_id: int64 (N,), index into the detector's `class_names`.
        geometry: object (N,), a `Mask`, `Polygons`, a `RotatedBox` or `Keypoints` from `prelabel.data.geometry` within
            the box, or None for a box alone. By default, all are None.

    Raises:
        ValueError: shapes differ, a value is not finite, x2 < x1 or y2 < y1, or a confidence is outside 0..1.
    """

    xyxy: NDArray[np.float32]
    confidence: NDArray[np.float32]
    class_id: NDArray[np.int64]
    geometry: NDArray[np.object_] = field(default_factory=_no_geometry)

    def __post_init__(self) -> None:
        xyxy = _as_boxes(self.xyxy)
        object.__setattr__(self, "xyxy", xyxy)
        object.__setattr__(self, "confidence", _as_column(self.confidence, np.float32, len(xyxy), "confidence"))
        object.__setattr__(self, "class_id", _as_column(self.class_id, np.int64, len(xyxy), "class_id"))
        object.__setattr__(self, "geometry", as_geometry_column(self.geometry, len(xyxy)))
        if not np.isfinite(xyxy).all():
            raise ValueError("xyxy: got NaN or infinity, expected pixels")
        if (xyxy[:, 2:] < xyxy[:, :2]).any():
            raise ValueError("xyxy: got x2 < x1 or y2 < y1, expected corners x1, y1, x2, y2")
        if not ((self.confidence >= 0) & (self.confidence <= 1)).all():
            raise ValueError("confidence: got a value outside 0..1")
        if (self.class_id < 0).any():
            raise ValueError("class_id: got a negative value, expected an index into class_names")

    def __len__(self) -> int:
        return len(self.xyxy)

    @classmethod
    def empty(cls) -> Detections:
        """Returns an instance without detections."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


@dataclass(frozen=True, slots=True)
class VideoDetections:
    """The detections of a video, one row for each, in frame order.

    Attributes:
        frame_index: int64 (N,), 0-based, presentation order, not falling.
        xyxy: float32 (N, 4), corners x1, y1, x2, y2 in pixels of the displayed frame.
        confidence: float32 (N,), 0..1.
        class_id: int64 (N,), index into the detector's `class_names`.
        track_id: int64 (N,), -1 for a box without a track.
        inferred_frames: int64 (M,), the frames that the detector has seen, also those without detections; rising.
        interpolated: bool (N,), whether the box was not detected but filled in between two boxes of a track. Its
            confidence is 0. By default, no box is.
        geometry: object (N,), in addition to the box, as in `Detections`.
    """

    frame_index: NDArray[np.int64]
    xyxy: NDArray[np.float32]
    confidence: NDArray[np.float32]
    class_id: NDArray[np.int64]
    track_id: NDArray[np.int64]
    inferred_frames: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    interpolated: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    geometry: NDArray[np.object_] = field(default_factory=_no_geometry)

    def __post_init__(self) -> None:
        num = len(self.frame_index)
        if not len(self.interpolated):
            object.__setattr__(self, "interpolated", np.zeros(num, np.bool_))
        if not len(self.geometry):
            object.__setattr__(self, "geometry", np.full(num, None, object))
        for name in ROW_COLUMNS:
            if len(getattr(self, name)) != num:
                raise ValueError(f"{name}: got {len(getattr(self, name))} rows, expected {num}")
        if num and np.any(np.diff(self.frame_index) < 0):
            raise ValueError("frame_index: falls, expected presentation order")

    def __len__(self) -> int:
        return len(self.frame_index)

    def where(self, keep: NDArray[np.bool_]) -> VideoDetections:
        """Returns the rows for which `keep`, bool (N,), is true; `inferred_frames` does not change."""
        return self.take(np.flatnonzero(keep))

    def take(self, rows: NDArray[np.int64]) -> VideoDetections:
        """Returns some rows, given by their numbers, in the given order; `inferred_frames` does not change."""
        return replace(self, **{name: getattr(self, name)[rows] for name in ROW_COLUMNS})

    def rows_on(self, frame_index: int) -> slice:
        """Returns the rows of one frame."""
        return slice(*np.searchsorted(self.frame_index, [frame_index, frame_index + 1]).tolist())

    @property
    def has_geometry(self) -> NDArray[np.bool_]:
        """Whether each row has geometry in addition to its box, bool (N,)."""
        return self.geometry.astype(np.bool_)

    @property
    def frames_looked_at(self) -> NDArray[np.int64]:
        """The frames that the detector has seen or that have a row, int64, rising."""
        is_first = np.diff(self.frame_index, prepend=-1) != 0  # many rows have few frames, so this is quicker
        return np.union1d(self.inferred_frames, self.frame_index[is_first])

    @property
    def instance(self) -> NDArray[np.int64]:
        """The number of each row's object instance, int64 (N,), from 0 by first appearance.

        Each track is an instance, and so is each row without a track.
        """
        if not (self.track_id >= 0).any():
            return np.arange(len(self))
        key = np.where(self.track_id >= 0, self.track_id, -1 - np.arange(len(self)))
        _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
        rank = np.empty(len(first), np.int64)
        rank[np.argsort(first)] = np.arange(len(first))
        return rank[inverse.reshape(-1)]


def concatenate(frames: Iterable[tuple[int, Detections]]) -> VideoDetections:
    """Returns the detections of frames as columns.

    Args:
        frames: (frame_index, detections) of each frame, in presentation order.
    """
    indices: list[int] = []
    found: list[Detections] = []
    for frame_index, detections in frames:
        indices.append(frame_index)
        found.append(detections)
    counts = [len(detections) for detections in found]
    inferred = np.asarray(indices, np.int64)
    return VideoDetections(
        frame_index=np.repeat(inferred, counts),
        xyxy=_stack([d.xyxy for d in found], np.zeros((0, 4), np.float32)),
        confidence=_stack([d.confidence for d in found], np.zeros(0, np.float32)),
        class_id=_stack([d.class_id for d in found], np.zeros(0, np.int64)),
        track_id=np.full(sum(counts), -1, np.int64),
        inferred_frames=inferred,
        geometry=_stack([d.geometry for d in found], _no_geometry()),
    )


def merge(parts: Sequence[VideoDetections]) -> VideoDetections:
    """Returns the rows of several parts of one video in frame order, and on a frame in the order of the parts.

    Args:
        parts: of the video; the result has the `inferred_frames` of the first part.
    """
    order = np.argsort(np.concatenate([part.frame_index for part in parts]), kind="stable")
    columns = {name: np.concatenate([getattr(part, name) for part in parts])[order] for name in ROW_COLUMNS}
    return replace(parts[0], **columns)


def _stack(arrays: Sequence[NDArray[Scalar]], empty: NDArray[Scalar]) -> NDArray[Scalar]:
    return np.concatenate(arrays) if arrays else empty


def _as_boxes(values: ArrayLike) -> NDArray[np.float32]:
    boxes = np.asarray(values, dtype=np.float32)
    if boxes.size == 0:
        return np.zeros((0, 4), np.float32)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"xyxy: got shape {boxes.shape}, expected (N, 4)")
    return boxes


def _as_column(values: ArrayLike, dtype: type[np.generic], num: int, name: str) -> NDArray[np.generic]:
    column = np.asarray(values, dtype=dtype)
    if column.shape != (num,):
        raise ValueError(f"{name}: got shape {column.shape}, expected ({num},)")
    return column
