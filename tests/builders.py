"""Small builders: what a test needs, in a line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

import numpy as np
import torch

from prelabel import Detections, FrameBatch, Media, VideoDetections, VideoInfo
from prelabel.data.surfaces import Orientation, Surfaces


def detections(xyxy=(), confidence=None, class_id=None) -> Detections:
    num = len(xyxy)
    return Detections(
        np.array(xyxy, np.float32).reshape(-1, 4),
        np.full(num, 0.9) if confidence is None else confidence,
        np.zeros(num) if class_id is None else class_id,
    )


def video_detections(rows: Sequence[tuple], inferred_frames: Sequence[int] | None = None) -> VideoDetections:
    """Rows are (frame_index, xyxy, confidence, class_id)."""
    frames = np.array([row[0] for row in rows], np.int64)
    return VideoDetections(
        frame_index=frames,
        xyxy=np.array([row[1] for row in rows], np.float32).reshape(-1, 4),
        confidence=np.array([row[2] for row in rows], np.float32),
        class_id=np.array([row[3] for row in rows], np.int64),
        track_id=np.full(len(rows), -1, np.int64),
        inferred_frames=np.unique(frames) if inferred_frames is None else np.array(inferred_frames, np.int64),
    )


def batch(num: int = 1, first: int = 0, height: int = 48, width: int = 64) -> FrameBatch:
    data = torch.zeros((num, height, width, 3), dtype=torch.uint8)
    indices = np.arange(first, first + num)
    return FrameBatch(data, indices, indices / 25.0)


def noise_surfaces(
    num: int,
    height: int,
    width: int,
    color_space: str = "bt709",
    *,
    is_full_range: bool = False,
    bits: int = 8,
    orientation: Orientation = Orientation(),  # noqa: B008, it is frozen
) -> Surfaces:
    """Frames of `height` x `width` as stored; each sample is random within the range."""
    samples = np.random.default_rng(0).integers(16 << (bits - 8), 236 << (bits - 8), (num, height * 3 // 2, width))
    planes = samples.astype(np.uint8) if bits == 8 else (samples << 6).astype(np.uint16)
    return Surfaces(torch.from_numpy(planes), color_space, is_full_range, orientation)


class ListReader:
    """A reader of frames that were never a file; frame i is filled with i. Fails at `broken` if asked to."""

    def __init__(self, media: Media, num_frames: int = 10, broken: int | None = None, error: Exception | None = None):
        self.info = VideoInfo(width=8, height=4, num_frames=num_frames, average_fps=10.0, duration_seconds=1.0)
        self.broken, self.error = broken, error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        return None

    def batches(self, frame_indices: np.ndarray, batch_size: int) -> Iterator[FrameBatch]:
        for start in range(0, len(frame_indices), batch_size):
            indices = frame_indices[start : start + batch_size]
            if self.broken is not None and (indices >= self.broken).any():
                if self.error is not None:
                    raise self.error
                return
            data = torch.from_numpy(indices).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 4, 8, 3).clone()
            yield FrameBatch(data, indices, indices / 10.0)


class NumberDetector:
    """Finds on each frame one box that tells the frame's number by its place: x1 = the frame's first byte."""

    class_names = ("thing", "other")

    def __init__(self, raises_at: int | None = None, class_id: int = 0, drop_results: int = 0):
        self.raises_at, self.class_id, self.drop_results = raises_at, class_id, drop_results
        self.batch_sizes: list[int] = []

    def detect(self, batch: FrameBatch) -> list[Detections]:
        self.batch_sizes.append(len(batch))
        if self.raises_at is not None and self.raises_at in batch.frame_indices:
            raise RuntimeError("out of luck")
        found = [self._box(float(frame.flatten()[0])) for frame in batch.data]
        return found[: len(found) - self.drop_results]

    def _box(self, x: float) -> Detections:
        return Detections(xyxy=[[x, 0, x + 1, 1]], confidence=[0.5], class_id=[self.class_id])
