"""Tracks of boxes that were linked before: a run needs those of a video for its row, for exports and for pictures."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from prelabel.detections import VideoDetections
from prelabel.frames import VideoInfo

MAX_BYTES = 256 << 20


class LinkMemory:
    """Which track each box is of, by a digest of all that a tracker is shown; for one tracker with its options.

    May be used from several threads.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        """Remembers nothing yet.

        Args:
            max_bytes: to remember at most, at 4 a box; what was not asked for longest is forgotten first.
        """
        self._max_bytes, self._num_bytes = max_bytes, 0
        self._track_ids: OrderedDict[bytes, NDArray[np.int32]] = OrderedDict()
        self._lock = Lock()

    def once(
        self,
        found: VideoDetections,
        info: VideoInfo,
        cuts: Sequence[int],
        link: Callable[[], NDArray[np.int64]],
    ) -> NDArray[np.int64]:
        """Returns what `link` returned for the same boxes of the same video before, else what it returns now.

        Args:
            found: boxes.
            info: the video.
            cuts: frames with which a new shot begins.
            link: returns the track of each box, int64 (N,).
        """
        key = _digest(found, info, cuts)
        with self._lock:
            known = self._track_ids.get(key)
            if known is not None:
                self._track_ids.move_to_end(key)
                return known.astype(np.int64)
        track_id = link()
        self._remember(key, track_id.astype(np.int32))
        return track_id

    def _remember(self, key: bytes, track_id: NDArray[np.int32]) -> None:
        with self._lock:
            if key in self._track_ids:
                return
            self._track_ids[key] = track_id
            self._num_bytes += track_id.nbytes
            while self._num_bytes > self._max_bytes:
                _, forgotten = self._track_ids.popitem(last=False)
                self._num_bytes -= forgotten.nbytes


def _digest(found: VideoDetections, info: VideoInfo, cuts: Sequence[int]) -> bytes:
    digest = hashlib.sha256(f"{info} {list(cuts)} {len(found)}".encode())
    for column in (found.inferred_frames, found.frame_index, found.xyxy, found.confidence, found.class_id):
        digest.update(np.ascontiguousarray(column).data)
    return digest.digest()
