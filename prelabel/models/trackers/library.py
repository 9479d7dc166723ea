"""ByteTrack, BoT-SORT, OC-SORT and C-BIoU from the library `trackers`, with options that fit pre-labels.

`trackers` (Roboflow, Apache-2.0) is well maintained, supports current numpy, and needs no second OpenCV. It scales
motion and memory with the time between frames. `norfair` needs numpy below 2, and BoxMOT is AGPL-3.0.

The defaults of `trackers` do not fit pre-labels. In four of its trackers, a box of confidence 0.65 never begins a
track, and a track has no id before its second box. `lost_track_buffer` counts frames at 30 per second, whatever the
video's rate. Its trackers also ignore classes.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections import defaultdict
from typing import Any

import numpy as np
import supervision as sv
import trackers
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from trackers.utils.iou import BaseIoU, BIoU, IoU

from prelabel.data.detections import Detections
from prelabel.data.frames import VideoInfo

ANY_CLASS = -1


class TrackerOptions(BaseModel):
    """Options of every tracker of the library.

    Attributes:
        high_conf: a box of this confidence or more begins a track if it continues none; others only continue tracks.
        min_iou: least overlap of a box with the place where its track is expected.
        other_class_iou: the same for a box of another class than its track's.
        lost_seconds: how long a track without boxes is looked for.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    high_conf: float = Field(0.4, ge=0, le=1)
    min_iou: float = Field(0.1, gt=0, le=1)
    other_class_iou: float = Field(0.5, gt=0, le=1)
    lost_seconds: float = Field(1.0, ge=0)


class TwoStageOptions(TrackerOptions):
    """Options of trackers that link boxes below `high_conf` with a limit of their own.

    Attributes:
        low_conf_min_iou: least overlap of a box below `high_conf` with the place where its track is expected.
    """

    low_conf_min_iou: float = Field(0.3, gt=0, le=1)


class _LibraryTracker(ABC):
    """Wraps a tracker of the library: a track gets its id at the first box, and classes count."""

    Options: type[TrackerOptions] = TrackerOptions

    def __init__(self, info: VideoInfo, **options: Any) -> None:
        """Starts without tracks.

        Args:
            info: the video; its frame rate sets the time between frames.
            options: see `Options`.
        """
        chosen = self.Options(**options)
        self._high_conf = np.float32(chosen.high_conf)
        self._seconds_per_frame = 1 / info.average_fps
        self._classes = _TrackClasses()
        shared = {
            # The library counts this in frames at 30 per second, whatever the video's rate.
            "lost_track_buffer": round(30 * chosen.lost_seconds),
            "frame_rate": info.average_fps,
            "minimum_consecutive_frames": 1,
            "high_conf_det_threshold": float(self._high_conf),
        }
        self._library = self._build(chosen, shared)
        self._num_tracks = 0

    @abstractmethod
    def _build(self, options: Any, shared: dict[str, Any]) -> Any:
        """Returns the library's tracker."""

    def _overlap(self, options: TrackerOptions, measure: BaseIoU) -> BaseIoU:
        return _ClassOverlap(measure, self._classes, min(1.0, options.min_iou / options.other_class_iou))

    def update(self, detections: Detections, frame_index: int) -> NDArray[np.int64]:
        """Returns the track id of each box, int64 (N,); -1 for a box without a track and below `high_conf`."""
        boxes = sv.Detections(
            xyxy=detections.xyxy, confidence=detections.confidence, data={"row": np.arange(len(detections))}
        )
        self._classes.begin_frame(self._library, detections)
        linked = self._library.update(boxes, timestamp=frame_index * self._seconds_per_frame)
        track_id = np.full(len(detections), -1, np.int64)
        if not len(linked):
            return track_id
        rows = linked.data["row"]
        track_id[rows] = linked.tracker_id
        # The library (2.6) gives a track its id at the second box, so the first box would be lost. Here a track gets
        # its id at the first box: tracks without an id and confident boxes without a track have the same order.
        begun = [row for row in rows.tolist() if track_id[row] < 0 and detections.confidence[row] >= self._high_conf]
        unnamed = [track for track in self._library.tracks if track.tracker_id < 0]
        for row, track in zip(begun, unnamed, strict=True):
            track_id[row] = track.tracker_id = self._num_tracks
            self._num_tracks += 1
        self._classes.learn(track_id, detections)
        return track_id


class ByteTrackTracker(_LibraryTracker):
    """Links confident boxes first, then the rest (Zhang et al., ECCV 2022, https://arxiv.org/abs/2110.06864)."""

    def _build(self, options: TrackerOptions, shared: dict[str, Any]) -> Any:
        return trackers.ByteTrackTracker(
            track_activation_threshold=shared["high_conf_det_threshold"],
            minimum_iou_threshold=options.min_iou,
            iou=self._overlap(options, IoU()),
            **shared,
        )


class OcSortTracker(_LibraryTracker):
    """Links by direction of motion as well as by overlap (Cao et al., CVPR 2023, https://arxiv.org/abs/2203.14360).

    It does not link boxes below `high_conf`.
    """

    class Options(TrackerOptions):
        """As of all trackers."""

        min_iou: float = Field(0.2, gt=0, le=1)

    def _build(self, options: TrackerOptions, shared: dict[str, Any]) -> Any:
        return trackers.OCSORTTracker(
            minimum_iou_threshold=options.min_iou, iou=self._overlap(options, IoU()), **shared
        )


class BotSortTracker(_LibraryTracker):
    """Links by overlap times confidence (Aharon et al., 2022, https://arxiv.org/abs/2206.14651).

    It does not compensate for camera motion, since labels are made from stored detections, without the frames.
    """

    Options = TwoStageOptions

    def _build(self, options: TwoStageOptions, shared: dict[str, Any]) -> Any:
        warnings.warn(
            "tracker.use: botsort: labels are made without the frames, so it does not compensate for a moving camera; "
            "tracklets follows fast motion better",
            stacklevel=2,
        )
        return trackers.BoTSORTTracker(
            track_activation_threshold=shared["high_conf_det_threshold"],
            minimum_iou_threshold_first_assoc=options.min_iou,
            minimum_iou_threshold_second_assoc=options.low_conf_min_iou,
            minimum_iou_threshold_unconfirmed_assoc=options.min_iou,
            instant_first_frame_activation=False,
            enable_cmc=False,
            iou=self._overlap(options, IoU()),
            **shared,
        )


class CBIoUTracker(_LibraryTracker):
    """Links by the overlap of enlarged boxes (Yang et al., WACV 2023, https://arxiv.org/abs/2211.14317).

    So it follows objects whose boxes do not overlap from one frame to the next.
    """

    class Options(TwoStageOptions):
        """As of all trackers; the overlap is of enlarged boxes."""

        min_iou: float = Field(0.05, gt=0, le=1)

    def _build(self, options: TwoStageOptions, shared: dict[str, Any]) -> Any:
        tracker = trackers.CBIoUTracker(
            track_activation_threshold=shared["high_conf_det_threshold"],
            minimum_iou_threshold_first_assoc=options.min_iou,
            minimum_iou_threshold_second_assoc=options.low_conf_min_iou,
            minimum_iou_threshold_unconfirmed_assoc=options.min_iou,
            instant_first_frame_activation=False,
            **shared,
        )
        tracker.iou_first = self._overlap(options, BIoU(buffer_ratio=tracker.buffer_ratio_first))
        tracker.iou_second = self._overlap(options, BIoU(buffer_ratio=tracker.buffer_ratio_second))
        return tracker


class _TrackClasses:
    """Holds the classes of a frame's boxes and of the tracks, since the library ignores classes."""

    def __init__(self) -> None:
        self._tracks: list[Any] = []
        self._of_box: dict[tuple[float, ...], int] = {}
        self._votes: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))

    def begin_frame(self, library: Any, detections: Detections) -> None:
        """Sets the boxes of the next frame. Identical boxes of different classes match tracks of any class."""
        self._tracks = list(library.tracks)
        self._of_box = {}
        for corners, class_id in zip(_corners(detections.xyxy), detections.class_id.tolist(), strict=True):
            if self._of_box.setdefault(corners, class_id) != class_id:
                self._of_box[corners] = ANY_CLASS

    def learn(self, track_id: NDArray[np.int64], detections: Detections) -> None:
        """Adds each box's confidence to the votes for its class in its track."""
        columns = (track_id.tolist(), detections.class_id.tolist(), detections.confidence.tolist())
        for track, class_id, confidence in zip(*columns, strict=True):
            self._votes[track][class_id] += confidence

    def are_same(self, of_tracks: NDArray[np.floating], of_boxes: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Returns whether each track and box have the same class, bool (tracks, boxes); both are given as corners."""
        number = {_corners(track.get_state_bbox()[None])[0]: track.tracker_id for track in self._tracks}
        votes = [self._votes[number[corners]] for corners in _corners(of_tracks)]
        track_class = np.array([max(each, key=lambda class_id: each[class_id]) for each in votes])[:, None]
        box_class = np.array([self._of_box[corners] for corners in _corners(of_boxes)])[None]
        same: NDArray[np.bool_] = (track_class == box_class) | (box_class == ANY_CLASS)
        return same


class _ClassOverlap(BaseIoU):  # type: ignore[misc]
    """Reduces the overlap between a track and a box of another class.

    Detectors sometimes take a car for a truck, so such a box may continue the track. But it must lie closer, so that
    objects of two classes keep their tracks when they cross.
    """

    def __init__(self, measure: BaseIoU, classes: _TrackClasses, weight: float) -> None:
        self._measure, self._track_classes, self._weight = measure, classes, weight

    def _compute(self, boxes_1: NDArray[np.float64], boxes_2: NDArray[np.float32]) -> NDArray[np.float64]:
        same = self._track_classes.are_same(boxes_1, boxes_2)
        weighted: NDArray[np.float64] = self._measure.compute(boxes_1, boxes_2) * np.where(same, 1.0, self._weight)
        return weighted


def _corners(boxes: NDArray[np.floating]) -> list[tuple[float, ...]]:
    return [tuple(row) for row in boxes.tolist()]
