"""Hard cuts: found where they are, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.scenes import SceneSpec, cut_frame_index, render_frames
from prelabel.data.frames import SceneCutDetector, find_cuts, thumbnails


def cuts_of(frames):
    """Batches of one, two, one, two … frames."""
    frames = [np.array(frame) for frame in frames]
    finder = SceneCutDetector()
    at = 0
    while at < len(frames):
        numbers = np.arange(at, min(at + 1 + at % 2, len(frames)))
        finder.add(torch.from_numpy(np.stack([frames[number] for number in numbers])), numbers)
        at += len(numbers)
    return finder.cuts().tolist()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_cut_of_a_generated_scene_is_the_only_one_found(seed):
    spec = SceneSpec(width=320, height=180, num_frames=24, seed=seed)
    assert cuts_of(frame.image for frame in render_frames(spec)) == [cut_frame_index(spec)]


def test_a_flash_a_slow_fade_and_a_still_picture_are_no_cuts():
    dark, bright = np.full((36, 64, 3), 40, np.uint8), np.full((36, 64, 3), 250, np.uint8)
    assert cuts_of([dark] * 5 + [bright] + [dark] * 5) == []
    assert cuts_of([np.full((36, 64, 3), 20 * n, np.uint8) for n in range(10)]) == []
    assert cuts_of([dark] * 5) == []
    assert cuts_of([dark] * 5 + [bright] * 5) == [5]


def test_the_last_frame_and_the_second_may_be_a_shot():
    dark, bright = np.zeros((36, 64, 3), np.uint8), np.full((36, 64, 3), 250, np.uint8)
    assert cuts_of([dark] * 5 + [bright]) == [5]
    assert cuts_of([dark] + [bright] * 5) == [1]


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (17, 500), (1080, 1920)])
def test_frames_of_any_size_have_thumbnails(size):
    small = thumbnails(torch.full((2, *size, 3), 9, dtype=torch.uint8))
    assert small.shape[0] == 2
    assert (small == 9).all()


def test_no_frame_has_no_cut():
    assert find_cuts(np.zeros(0, np.int64), np.zeros(0, np.float32)).tolist() == []
    assert SceneCutDetector().cuts().tolist() == []


@pytest.mark.needs_cuda
def test_a_gpu_makes_the_same_thumbnails():
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 180, 320, 3), np.uint8))
    torch.testing.assert_close(thumbnails(frames.cuda()).cpu(), thumbnails(frames), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("change", "others", "is_cut"), [(12, 4, True), (11.9, 3, False), (30, 10, True), (30, 10.1, False)]
)
def test_a_cut_is_a_change_of_12_or_more_and_three_times_its_neighbours(change, others, is_cut):
    changes = np.array([0, others, change, others, 0], np.float32)
    assert find_cuts(np.arange(5), changes).tolist() == ([2] if is_cut else [])
