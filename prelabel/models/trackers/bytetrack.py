"""ByteTrack (Zhang et al., ECCV 2022, https://arxiv.org/abs/2110.06864), as the library `trackers` has it.

`trackers` (Roboflow, Apache-2.0) is chosen because it is kept well, takes today's numpy, brings no second OpenCV, and
scales motion and memory with the time between frames. `norfair` holds numpy below 2, and BoxMOT is AGPL-3.0.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import supervision as sv
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from trackers import ByteTrackTracker as Library
from trackers.utils.iou import IoU

from prelabel.data.detections import Detections
from prelabel.data.frames import VideoInfo

ANY_CLASS = -1


class ByteTrackTracker:
    """Links boxes by where the Kalman filter of each track expects its next one: the sure boxes first, then the rest.

    ByteTrack knows no classes. Here a box of another class than its track's so far may go on with it too, since
    detectors do take a car for a truck now and then, but only where it lies closer: things of two classes that cross
    keep their tracks.
    """

    class Options(BaseModel):
        """What a config may say of it.

        Attributes:
            high_conf: a box of this confidence or more is linked first, and begins a track where it continues none; one
                below it only continues a track.
            min_iou: least overlap of a box with where its track is expected.
            other_class_iou: the same for a box of another class than its track's.
            lost_seconds: how long a track without boxes is looked for.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)

        high_conf: float = Field(0.25, ge=0, le=1)
        min_iou: float = Field(0.1, gt=0, le=1)
        other_class_iou: float = Field(0.5, gt=0, le=1)
        lost_seconds: float = Field(1.0, ge=0)

    def __init__(
        self,
        info: VideoInfo,
        high_conf: float = 0.25,
        min_iou: float = 0.1,
        other_class_iou: float = 0.5,
        lost_seconds: float = 1.0,
    ) -> None:
        """Begins without a track; see `Options`."""
        self._high_conf = np.float32(high_conf)
        self._seconds_per_frame = 1 / info.average_fps
        self._overlap = _ClassOverlap(min(1.0, min_iou / other_class_iou))
        self._library = Library(
            lost_track_buffer=round(30 * lost_seconds),  # in frames of 30 a second, whatever the video's rate
            frame_rate=info.average_fps,
            track_activation_threshold=float(self._high_conf),
            high_conf_det_threshold=float(self._high_conf),
            minimum_consecutive_frames=1,
            minimum_iou_threshold=min_iou,
            iou=self._overlap,
        )
        self._overlap.library = self._library
        self._num_tracks = 0

    def update(self, detections: Detections, frame_index: int) -> NDArray[np.int64]:
        """Returns the track of each box, int64 (N,); -1: it continues none and is not sure enough to begin one."""
        rows = np.arange(len(detections))
        found = sv.Detections(xyxy=detections.xyxy, confidence=detections.confidence, data={"row": rows})
        self._overlap.look_at(detections)
        linked = self._library.update(found, timestamp=frame_index * self._seconds_per_frame)
        track_id = np.full(len(detections), -1, np.int64)
        if not len(detections):
            return track_id
        track_id[linked.data["row"]] = linked.tracker_id
        # The library (2.6) names a track at its second box; the first would be lost. Unlinked sure boxes have begun the
        # tracks that have no name yet, in this order: named here, each has its name from its first box on.
        begun = [row for row in linked.data["row"].tolist() if track_id[row] < 0 and self._is_sure(detections, row)]
        unnamed = [track for track in self._library.tracks if track.tracker_id < 0]
        for row, track in zip(begun, unnamed, strict=True):
            track_id[row] = track.tracker_id = self._num_tracks
            self._num_tracks += 1
        self._overlap.learn(track_id, detections)
        return track_id

    def _is_sure(self, detections: Detections, row: int) -> bool:
        return bool(detections.confidence[row] >= self._high_conf)


class _ClassOverlap(IoU):  # type: ignore[misc]
    """Overlap as the library asks for it; between a track and a box of another class it counts for less.

    The library hands over boxes alone: their classes are found by their corners.

    Attributes:
        library: whose tracks are asked about.
    """

    library: Library

    def __init__(self, weight: float) -> None:
        """`weight` is what an overlap with another class counts for, 0..1."""
        self._weight = weight
        self._class_of_box: dict[tuple[float, ...], int] = {}
        self._votes: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))

    def look_at(self, detections: Detections) -> None:
        """Takes the boxes of the frame that comes; where two of different classes coincide, either will do."""
        self._class_of_box = {}
        for corners, class_id in zip(_corners(detections.xyxy), detections.class_id.tolist(), strict=True):
            known = self._class_of_box.setdefault(corners, class_id)
            if known != class_id:
                self._class_of_box[corners] = ANY_CLASS

    def learn(self, track_id: NDArray[np.int64], detections: Detections) -> None:
        """Lets boxes vote, with their confidence, for the class of their tracks; forgets tracks that have ended."""
        columns = (track_id.tolist(), detections.class_id.tolist(), detections.confidence.tolist())
        for track, class_id, confidence in zip(*columns, strict=True):
            self._votes[track][class_id] += confidence
        alive = {track.tracker_id for track in self.library.tracks}
        for track in self._votes.keys() - alive:
            del self._votes[track]

    def _compute(self, boxes_1: NDArray[np.float64], boxes_2: NDArray[np.float32]) -> NDArray[np.float64]:
        of_track = {_corners(track.get_state_bbox()[None])[0]: track.tracker_id for track in self.library.tracks}
        votes = [self._votes[of_track[corners]] for corners in _corners(boxes_1)]
        classes_1 = np.array([max(each, key=lambda class_id: each[class_id]) for each in votes])[:, None]
        classes_2 = np.array([self._class_of_box[corners] for corners in _corners(boxes_2)])[None]
        same = (classes_1 == classes_2) | (classes_2 == ANY_CLASS)
        weighted: NDArray[np.float64] = super()._compute(boxes_1, boxes_2) * np.where(same, 1.0, self._weight)
        return weighted


def _corners(boxes: NDArray[np.floating]) -> list[tuple[float, ...]]:
    return [tuple(row) for row in boxes.tolist()]
