"""The contract test for trackers: it passes what keeps the contract, and says what is wrong with what does not."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from prelabel.testing import check_tracker


class Fine:
    def __init__(self, info):
        self.next_id = itertools.count()

    def update(self, detections, frame_index):
        return np.array([next(self.next_id) for _ in range(len(detections))], np.int64)


class NoNumbers(Fine):
    def update(self, detections, frame_index):
        return [0] * len(detections)


class OneForAll(Fine):
    def update(self, detections, frame_index):
        return np.zeros(len(detections), np.int64)


class TooFew(Fine):
    def update(self, detections, frame_index):
        return np.arange(len(detections))[:1]


class Fractions(Fine):
    def update(self, detections, frame_index):
        return np.arange(len(detections)) / 2


class Scribbles(Fine):
    def update(self, detections, frame_index):
        detections.xyxy[:] = 0
        return super().update(detections, frame_index)


class Shares(Fine):
    ids = itertools.count()

    def __init__(self, info):
        self.next_id = self.ids


class FindsNothing(Fine):
    def update(self, detections, frame_index):
        return np.full(len(detections), -1)


class FineShots:
    def __init__(self, info):
        self.next_id = itertools.count()

    def link(self, detections):
        return np.array([next(self.next_id) for _ in range(len(detections))], np.int64)


class OneForAllShots(FineShots):
    def link(self, detections):
        return np.zeros(len(detections), np.int64)


class SharesShots(FineShots):
    ids = itertools.count()

    def __init__(self, info):
        self.next_id = self.ids


class NeitherMethod:
    def __init__(self, info):
        pass


def test_a_tracker_that_keeps_the_contract_passes():
    check_tracker(Fine)
    check_tracker(FineShots)


@pytest.mark.parametrize(
    ("tracker", "complaint"),
    [
        (NoNumbers, "got list, expected a numpy array"),
        (OneForAll, "two boxes of one track"),
        (TooFew, "one a box"),
        (Fractions, "got float64"),
        (Scribbles, "wrote into the boxes"),
        (Shares, "shares nothing"),
        (FindsNothing, "no track at all"),
        (OneForAllShots, "two boxes of one track on a frame"),
        (SharesShots, "gave the same boxes different tracks"),
        (NeitherMethod, "neither `update` nor `link`"),
    ],
)
def test_one_that_breaks_it_is_told_how(tracker, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_tracker(tracker)
