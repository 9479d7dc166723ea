"""Links the boxes of a shot in two steps: clear links make tracklets, then motion links tracklets to tracks.

Labels are made when all boxes of a video are known. So this tracker can look ahead, which a tracker of live video
cannot: it bridges a gap only if the motion before it and the motion after it both fit.

The two steps come from Huang, Wu and Nevatia (ECCV 2008, https://doi.org/10.1007/978-3-540-88688-4_58); as there, the
first one links only boxes without a rival. Overlaps are those of enlarged boxes (C-BIoU: Yang et al., WACV 2023,
https://arxiv.org/abs/2211.14317).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from prelabel.data.boxes import paired_iou
from prelabel.data.detections import VideoDetections
from prelabel.data.frames import VideoInfo

BUFFER = 0.3
"""Boxes are enlarged by this share of their width and height on each side, as in the library's C-BIoU."""
MARGIN = 0.2
"""A link is clear if every rival is less similar by this share."""
NUM_FIT = 6
"""Number of boxes at the end of a tracklet to which its motion is fitted."""
FIT_SECONDS = 0.6
"""Time to which the motion is fitted as well before a link may bridge a gap. The last boxes before a gap are often half
hidden, so their motion alone may not be that of the thing."""
NUM_ROWS_AT_ONCE = 10_000
"""Number of boxes whose pairs are compared at once. It bounds the memory."""


class TrackletTracker:
    """Links the boxes of a shot to tracks."""

    class Options(BaseModel):
        """The options.

        Attributes:
            high_conf: a track has at least one box of this confidence.
            min_iou: least overlap of enlarged boxes where a track goes on.
            other_class_iou: the same where a track goes on with another class.
            lost_seconds: longest time from box to box of a track.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)

        high_conf: float = Field(0.4, ge=0, le=1)
        min_iou: float = Field(0.2, gt=0, le=1)
        other_class_iou: float = Field(0.5, gt=0, le=1)
        lost_seconds: float = Field(1.0, ge=0)

    def __init__(self, info: VideoInfo, **options: Any) -> None:
        """Checks the options.

        Args:
            info: the video; its frame rate tells how many frames `lost_seconds` are.
            options: see `Options`.
        """
        self._options = self.Options(**options)
        self._max_gap = round(self._options.lost_seconds * info.average_fps)
        self._fit_frames = FIT_SECONDS * info.average_fps

    def link(self, detections: VideoDetections) -> NDArray[np.int64]:
        """Returns the track id of each box, int64 (N,); -1 for a box without a track."""
        chains = _Chains(detections, self._options, self._max_gap, self._fit_frames)
        chains.link_clear()
        steps = 1
        while steps < 2 * chains.max_steps:
            chains.link_by_motion(min(steps, chains.max_steps))
            steps *= 2
        track_id = chains.first_rows()
        is_sure = np.zeros(len(track_id), np.bool_)
        is_sure[track_id[detections.confidence >= np.float32(self._options.high_conf)]] = True
        return np.where(is_sure[track_id], track_id, -1)


@dataclass(frozen=True, slots=True)
class _Ends:
    """The ends of tracklets at which they may go on, and their motion there.

    Attributes:
        rows: int64 (M,), the rows of the boxes at the ends, rising.
        xyxy: float64 (M, 4), corners of the fitted boxes on the same frames.
        velocity: float64 (M, 2), pixels a frame.
    """

    rows: NDArray[np.int64]
    xyxy: NDArray[np.float64]
    velocity: NDArray[np.float64]

    def after(self, number: NDArray[np.int64], num_frames: NDArray[np.int64]) -> NDArray[np.float64]:
        """Returns where some ends are expected `num_frames` later, (K, 4); a negative number means earlier."""
        return self.xyxy[number] + np.tile(self.velocity[number] * num_frames[:, None], 2)


Links: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]
"""Possible links: from a row, to a row, and how similar the boxes are, each (K,)."""


class _Chains:
    """Which box of a shot follows which.

    Attributes:
        max_steps: largest number of inferred frames from box to box of a track.
    """

    def __init__(
        self, detections: VideoDetections, options: TrackletTracker.Options, max_gap: int, fit_frames: float
    ) -> None:
        frames = detections.frames_looked_at
        usual_step = int(np.median(np.diff(frames))) if len(frames) > 1 else 1
        self.max_steps = max(max_gap // usual_step, 1)
        self._max_gap = max(max_gap, usual_step)
        self._num_fit_far = max(round(fit_frames / usual_step), NUM_FIT)
        self._options = options
        self._frame_index, self._class_id = detections.frame_index, detections.class_id
        self._place = np.searchsorted(frames, detections.frame_index)
        self._xyxy = detections.xyxy.astype(np.float64)
        self._confidence = detections.confidence.astype(np.float64)
        self._before, self._after = np.full((2, len(detections)), -1)

    def link_clear(self) -> None:
        """Links boxes of neighbouring inferred frames if no other link of either box is nearly as similar."""
        rows = np.arange(len(self._place))
        standing = _Ends(rows, self._xyxy, np.zeros((len(rows), 2)))
        one, other, similarity = self._possible_links(standing, standing, 1)
        is_clear = _has_no_rival(one, similarity) & _has_no_rival(other, similarity)
        self._link(one[is_clear], other[is_clear])

    def link_by_motion(self, num_steps: int) -> None:
        """Links tracklets that are at most `num_steps` inferred frames apart, the most similar first.

        Over a gap, a link may fit either the motion of the last boxes or that of a longer time.
        """
        ends, begins = np.flatnonzero(self._after < 0), np.flatnonzero(self._before < 0)
        found = [
            self._possible_links(
                self._fit(ends, self._before, num_fit), self._fit(begins, self._after, num_fit), num_steps
            )
            for num_fit in sorted({NUM_FIT, NUM_FIT if num_steps == 1 else self._num_fit_far})
        ]
        one, other, similarity = (np.concatenate(column) for column in zip(*found, strict=True))
        chosen = _best_pairs(one, other, similarity)
        self._link(one[chosen], other[chosen])

    def first_rows(self) -> NDArray[np.int64]:
        """Returns the first row of each row's track, int64 (N,)."""
        first = np.where(self._before < 0, np.arange(len(self._before)), self._before)
        while not np.array_equal(farther := first[first], first):  # twice as far each time
            first = farther
        return first

    def _link(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> None:
        self._after[one], self._before[other] = other, one

    def _possible_links(self, ends: _Ends, begins: _Ends, num_steps: int) -> Links:
        """Returns the links from ends to begins at most `num_steps` inferred frames later that overlap enough."""
        place, begins_at = self._place[ends.rows], self._place[begins.rows]
        first = np.searchsorted(begins_at, place, side="right")
        num = np.searchsorted(begins_at, place + num_steps, side="right") - first
        parts = [self._compare(ends, begins, first[:0], first[:0])]
        for start in range(0, len(num), NUM_ROWS_AT_ONCE):
            here = np.s_[start : start + NUM_ROWS_AT_ONCE]
            end = np.repeat(np.arange(len(num))[here], num[here])
            begin = np.arange(len(end)) + np.repeat(first[here] - np.cumsum(num[here]) + num[here], num[here])
            parts.append(self._compare(ends, begins, end, begin))
        one, other, similarity = (np.concatenate(column) for column in zip(*parts, strict=True))
        return one, other, similarity

    def _compare(self, ends: _Ends, begins: _Ends, end: NDArray[np.int64], begin: NDArray[np.int64]) -> Links:
        """Returns the links that overlap enough.

        Args:
            ends: of the tracklets before a link.
            begins: of the tracklets after it.
            end: (K,), index into `ends` of each pair to compare.
            begin: (K,), index into `begins`.
        """
        one, other = ends.rows[end], begins.rows[begin]
        gap = self._frame_index[other] - self._frame_index[one]
        overlap = np.minimum(
            _buffered_iou(ends.after(end, gap), self._xyxy[other]),
            _buffered_iou(begins.after(begin, -gap), self._xyxy[one]),
        )
        is_same_class = self._class_id[one] == self._class_id[other]
        overlap *= np.where(is_same_class, 1, self._options.min_iou / self._options.other_class_iou)
        fits = (overlap >= self._options.min_iou) & (gap <= self._max_gap)
        one, other = one[fits], other[fits]
        # The root of the geometric mean: of two boxes in one place the confident one wins, but the place counts more.
        return one, other, overlap[fits] * (self._confidence[one] * self._confidence[other]) ** 0.25

    def _fit(self, rows: NDArray[np.int64], inwards: NDArray[np.int64], num_fit: int) -> _Ends:
        """Returns the ends with the motion of their last boxes: centres on a fitted line, sizes as means.

        Args:
            rows: (M,), the first or the last row of each tracklet.
            inwards: (N,), the next row of the same tracklet, seen from `rows`; -1 at its other end.
            num_fit: number of boxes that are fitted.
        """
        columns = [rows]
        for _ in range(num_fit - 1):
            columns.append(np.where(columns[-1] < 0, -1, inwards[columns[-1]]))
        near = np.stack(columns, axis=1)
        weight = (near >= 0) / (near >= 0).sum(axis=1, keepdims=True)
        boxes, at = self._xyxy[near], self._frame_index[near] - self._frame_index[rows][:, None]
        centres, sizes = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
        centre, size = ((weight[..., None] * each).sum(axis=1) for each in (centres, sizes))
        mean_at = (weight * at).sum(axis=1, keepdims=True)
        away = weight * (at - mean_at)
        spread = (away * (at - mean_at)).sum(axis=1)
        moves = near[:, 2] >= 0  # two boxes give no reliable velocity
        velocity = (away[..., None] * centres).sum(axis=1) / np.where(moves, spread, np.inf)[:, None]
        centre = np.where(moves[:, None], centre - velocity * mean_at, centres[:, 0])
        return _Ends(rows, np.concatenate([centre - size / 2, centre + size / 2], axis=1), velocity)


def _buffered_iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the overlap of paired boxes, (N,), after each is enlarged on all sides."""
    outwards = BUFFER * np.array([-1, -1, 1, 1])
    return paired_iou(*(box + outwards * np.tile(box[:, 2:] - box[:, :2], 2) for box in (a, b))).astype(np.float64)


def _has_no_rival(row: NDArray[np.int64], similarity: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Returns which links are the only good one of their row, bool (K,).

    >>> _has_no_rival(np.array([0, 0, 1, 1]), np.array([0.9, 0.5, 0.9, 0.8])).tolist()
    [True, False, False, False]
    """
    best = np.zeros(row.max(initial=-1) + 1)
    np.maximum.at(best, row, similarity)
    is_good: NDArray[np.bool_] = similarity > (1 - MARGIN) * best[row]
    has_none: NDArray[np.bool_] = is_good & (np.bincount(row, weights=is_good)[row] == 1)
    return has_none


def _best_pairs(one: NDArray[np.int64], other: NDArray[np.int64], similarity: NDArray[np.float64]) -> NDArray[np.int64]:
    """Returns which pairs a greedy choice takes, the most similar first; no row is in two of them.

    >>> _best_pairs(np.array([0, 0, 1]), np.array([5, 6, 5]), np.array([0.9, 0.8, 0.7])).tolist()
    [0]
    """
    left = np.lexsort((other, one, -similarity))
    chosen = [left[:0]]
    while len(left):
        # A pair that is the best of both its rows is a part of the choice.
        is_best = [np.zeros(len(left), np.bool_) for _ in range(2)]
        for mask, rows in zip(is_best, (one[left], other[left]), strict=True):
            mask[np.unique(rows, return_index=True)[1]] = True
        taken = left[is_best[0] & is_best[1]]
        chosen.append(taken)
        left = left[~(np.isin(one[left], one[taken]) | np.isin(other[left], other[taken]))]
    return np.concatenate(chosen)
