"""What is known of a task once it was looked at: what its rules may ask."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from prelabel.detections import VideoDetections
from prelabel.frames import VideoInfo
from prelabel.label_map import LabelMap

Value: TypeAlias = float | str | bool | None
"""Of an expression; None: there is none."""


@dataclass(frozen=True, slots=True)
class Facts:
    """A task and what was found in it: columns of one row a box, after shaping.

    Attributes:
        title: the task's.
        info: of its media; None where nobody has opened them.
        metadata: the client metadata of the task's data.
        class_names: by index.
        class_index: int64 (N,).
        frame_index: int64 (N,).
        instance: int64 (N,), which object instance the box is of.
        confidence: float32 (N,); NaN where nobody measured one, as in the gaps of a track.
        num_frames_seen: frames that were looked at.
    """

    title: str
    info: VideoInfo | None = None
    metadata: Mapping[str, object] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    class_index: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    frame_index: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    instance: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    confidence: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    num_frames_seen: int = 0

    def property(self, name: str) -> Value:
        """Returns the title, or what is known of the media."""
        info = self.info
        if name == "title":
            return self.title
        if info is None:
            return None
        return {
            "kind": "video" if info.average_fps > 0 else "images",
            "width": info.width,
            "height": info.height,
            "num_frames": info.num_frames,
            "fps": info.average_fps,
            "duration_seconds": info.duration_seconds,
        }[name]

    def entry(self, keys: tuple[str, ...]) -> Value:
        """Returns an entry of the metadata, None where there is none or it is no plain value."""
        found: object = self.metadata
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found if isinstance(found, float | int | str) else None

    def count(self, classes: Collection[str]) -> int:
        """Returns how many object instances there are of some classes; of none named, of all."""
        return len(np.unique(self.instance[self._of(classes)]))

    def num_boxes(self, classes: Collection[str]) -> int:
        """Returns how many boxes there are, on all frames."""
        return int(self._of(classes).sum())

    def frame_share(self, classes: Collection[str]) -> float | None:
        """Returns the share of the frames looked at on which there is a box."""
        if not self.num_frames_seen:
            return None
        return min(1.0, len(np.unique(self.frame_index[self._of(classes)])) / self.num_frames_seen)

    def confidence_at(self, statistic: str, classes: Collection[str]) -> float | None:
        """Returns `min`, `max`, `mean`, or the percentile `p0` … `p100`, of the boxes' confidence; None without boxes.

        Percentiles between two boxes lie on a straight line, as `numpy.percentile` has it.
        """
        measured = self.confidence[self._of(classes)].astype(np.float64)
        measured = measured[~np.isnan(measured)]
        if not len(measured):
            return None
        if statistic == "mean":
            return float(measured.mean())
        percent = {"min": 0.0, "max": 100.0}.get(statistic)
        return float(np.percentile(measured, float(statistic[1:]) if percent is None else percent))

    def _of(self, classes: Collection[str]) -> NDArray[np.bool_]:
        if not classes:
            return np.ones(len(self.class_index), np.bool_)
        wanted = [index for index, name in enumerate(self.class_names) if name in classes]
        return np.isin(self.class_index, wanted)


def facts_of(
    title: str,
    info: VideoInfo,
    detections: VideoDetections,
    label_map: LabelMap,
    metadata: Mapping[str, object],
) -> Facts:
    """Returns what is known of a task whose detections were shaped; its classes are the ontology's objects."""
    return Facts(
        title=title,
        info=info,
        metadata=metadata,
        class_names=tuple(category.name for category in label_map.categories),
        class_index=label_map.category_index[detections.class_id],
        frame_index=detections.frame_index,
        instance=detections.instance,
        confidence=np.where(detections.interpolated, np.float32(np.nan), detections.confidence),
        num_frames_seen=len(detections.inferred_frames),
    )
