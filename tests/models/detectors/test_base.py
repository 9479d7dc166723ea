from __future__ import annotations

import pytest
import torch

from prelabel.errors import DeviceMemoryError
from prelabel.models.detectors.base import fit_batch_size, time_batch


def test_a_batch_grows_until_a_frame_gets_no_cheaper():
    seconds = {8: 0.8, 16: 1.2, 32: 2.0, 64: 3.9}

    assert fit_batch_size(seconds.__getitem__) == 32


def test_a_batch_grows_until_it_does_not_fit():
    tried = []

    def seconds_of(size: int) -> float:
        tried.append(size)
        if size > 16:
            raise DeviceMemoryError("does not fit")
        return 1.0

    assert fit_batch_size(seconds_of) == 16
    assert tried == [8, 16, 32]


@pytest.mark.parametrize(("largest", "expected"), [(64, 64), (16, 16)])
def test_a_batch_grows_no_further_than_it_may(largest, expected):
    assert fit_batch_size(lambda size: 1.0, largest=largest) == expected


def test_where_nothing_fits_the_smallest_is_left_to_be_halved():
    def never(size: int) -> float:
        raise DeviceMemoryError("does not fit")

    assert fit_batch_size(never) == 8


def test_timing_runs_blank_frames_of_the_size():
    seen = []

    def start(batch):
        seen.append(tuple(batch.data.shape))
        return lambda: None

    assert time_batch(start, 36, 64, torch.device("cpu"), 5) > 0
    assert set(seen) == {(5, 36, 64, 3)}
