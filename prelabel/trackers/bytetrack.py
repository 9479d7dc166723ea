"""ByteTrack (Zhang et al., ECCV 2022, https://arxiv.org/abs/2110.06864), as the library `trackers` has it.

`trackers` (Roboflow, Apache-2.0) is chosen because it is kept well, takes today's numpy, brings no second OpenCV, and
scales motion and memory with the time between frames. `norfair` holds numpy below 2, and BoxMOT is AGPL-3.0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from prelabel.detections import Detections
from prelabel.frames import VideoInfo


class ByteTrackTracker:
    """Links boxes by where the Kalman filter of each track expects its next one: the sure boxes first, then the rest.

    The class of a box plays no part: a thing that the detector calls a car here and a truck there is one track.
    """

    class Options(BaseModel):
        """What a config may say of it.

        Attributes:
            high_conf: a box of this confidence or more is linked first, and begins a track where it continues none; one
                below it only continues a track.
            min_iou: least overlap of a box with where its track is expected.
            lost_seconds: how long a track without boxes is looked for.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)

        high_conf: float = Field(0.25, ge=0, le=1)
        min_iou: float = Field(0.1, gt=0, le=1)
        lost_seconds: float = Field(1.0, ge=0)

    def __init__(
        self, info: VideoInfo, high_conf: float = 0.25, min_iou: float = 0.1, lost_seconds: float = 1.0
    ) -> None:
        """Begins without a track; see `Options`."""
        from trackers import ByteTrackTracker as Library

        self._high_conf = np.float32(high_conf)
        self._seconds_per_frame = 1 / info.average_fps
        self._library = Library(
            lost_track_buffer=round(30 * lost_seconds),  # in frames of 30 a second, whatever the video's rate
            frame_rate=info.average_fps,
            track_activation_threshold=float(self._high_conf),
            high_conf_det_threshold=float(self._high_conf),
            minimum_consecutive_frames=1,
            minimum_iou_threshold=min_iou,
        )
        self._num_tracks = 0

    def update(self, detections: Detections, frame_index: int) -> NDArray[np.int64]:
        """Returns the track of each box, int64 (N,); -1: it continues none and is not sure enough to begin one."""
        import supervision as sv

        rows = np.arange(len(detections))
        found = sv.Detections(xyxy=detections.xyxy, confidence=detections.confidence, data={"row": rows})
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
        return track_id

    def _is_sure(self, detections: Detections, row: int) -> bool:
        return bool(detections.confidence[row] >= self._high_conf)
