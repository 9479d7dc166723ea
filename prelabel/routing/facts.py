"""The facts about a task and its labels that routing rules can use."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from prelabel.data.detections import VideoDetections
from prelabel.data.frames import VideoInfo
from prelabel.data.label_map import LabelMap

Value: TypeAlias = float | str | bool | None
"""A fact, or a value that an expression computes from facts; None if it is missing."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts about a task and its labels. The columns have one row for each box.

    Attributes:
        title: of the task.
        info: of the media; None if the media were not opened.
        metadata: the client metadata of the task's data.
        class_names: by index.
        class_index: (N,) int64, index into `class_names`.
        frame_index: (N,) int64, 0-based.
        instance: (N,) int64, number of the object instance to which the box belongs.
        confidence: (N,) float32, 0..1; NaN for boxes that no model measured, as in the gaps of a track.
        num_frames_seen: number of frames that the detector saw.
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

    @staticmethod
    def of_labels(
        title: str,
        info: VideoInfo,
        detections: VideoDetections,
        label_map: LabelMap,
        metadata: Mapping[str, object],
    ) -> Facts:
        """Returns the facts about a task's filtered detections; the classes are the ontology's objects."""
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

    def media_property(self, name: str) -> float | str | None:
        """Returns the title or a property of the media.

        A property of the media is None if they were not opened.
        """
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

    def metadata_entry(self, keys: Sequence[str]) -> Value:
        """Returns an entry of the metadata; None if it is missing, a list or a mapping."""
        found: object = self.metadata
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found if isinstance(found, float | int | str) else None

    def count(self, what: str, classes: Collection[str]) -> float | None:
        """Returns a figure about the boxes of these classes; of all classes if none is named.

        Args:
            what: `count`, the number of object instances; `boxes`, the number of boxes on all frames; or `frame_share`,
                the share of the inferred frames with a box, which is None if no frame was inferred.
            classes: names.
        """
        is_of = self._is_of(classes)
        match what:
            case "count":
                return len(np.unique(self.instance[is_of]))
            case "boxes":
                return int(is_of.sum())
        if not self.num_frames_seen:
            return None
        return min(1.0, len(np.unique(self.frame_index[is_of])) / self.num_frames_seen)

    def confidence_at(self, statistic: str, classes: Collection[str]) -> float | None:
        """Returns a statistic of the confidences of boxes of these classes; None without such boxes.

        Percentiles are interpolated linearly, as in `numpy.percentile`.

        Args:
            statistic: `min`, `max`, `mean`, `median` or a percentile, `p0` to `p100`.
            classes: names; empty for all classes.
        """
        measured = self.confidence[self._is_of(classes)].astype(np.float64)
        measured = measured[~np.isnan(measured)]
        if not len(measured):
            return None
        if statistic == "mean":
            return float(measured.mean())
        percent = {"min": 0, "median": 50, "max": 100}.get(statistic)
        return float(np.percentile(measured, int(statistic[1:]) if percent is None else percent))

    def _is_of(self, classes: Collection[str]) -> NDArray[np.bool_]:
        if not classes:
            return np.ones(len(self.class_index), np.bool_)
        return np.isin(self.class_index, [index for index, name in enumerate(self.class_names) if name in classes])
