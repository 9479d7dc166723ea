from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from prelabel.data.boxes import Letterbox
from prelabel.models.detectors.host import move_to_frame
from prelabel.models.detectors.preprocess import (
    letterbox_frames,
    resize_frames,
    resize_in_integers,
    resize_smoothly,
    stretch_frames,
)

# Width, height: whole and broken ratios, a half (a case of its own in OpenCV), enlargements, slivers, portrait.
SIZES = [
    (1920, 1080),
    (1280, 720),
    (853, 480),
    (3840, 2160),
    (1001, 1999),
    (517, 333),
    (100, 37),
    (3, 1500),
    (640, 427),
]


def noise(width: int, height: int, num: int = 1) -> np.ndarray:
    return np.random.default_rng(width).integers(0, 256, (num, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_letterbox_equals_ultralytics_to_the_bit(width, height):
    from ultralytics.data.augment import LetterBox

    (frame,) = noise(width, height)
    expected = LetterBox(640, auto=True, stride=32)(image=frame)

    inputs = letterbox_frames(torch.from_numpy(frame)[None], Letterbox.fit(height, width, 640))

    assert inputs.shape == (1, 3, *expected.shape[:2])
    assert torch.equal(inputs[0].permute(1, 2, 0), torch.from_numpy(expected).float().div_(255))


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_letterbox_of_a_fixed_shape_equals_ultralytics_to_the_bit(width, height):
    from ultralytics.data.augment import LetterBox

    (frame,) = noise(width, height)
    expected = LetterBox((384, 640), auto=False)(image=frame)

    inputs = letterbox_frames(torch.from_numpy(frame)[None], Letterbox.fit_fixed(height, width, 384, 640))

    assert torch.equal(inputs[0].permute(1, 2, 0), torch.from_numpy(expected).float().div_(255))


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_arithmetic_for_devices_equals_opencv_to_the_bit(width, height):
    frames = noise(width, height, num=2)
    box = Letterbox.fit(height, width, 640)
    size = (box.scaled_width, box.scaled_height)
    expected = np.stack([cv2.resize(frame, size).reshape(*size[::-1], 3) for frame in frames])

    resized = resize_in_integers(torch.from_numpy(frames), box.scaled_height, box.scaled_width)

    np.testing.assert_array_equal(resized.numpy(), expected)


@pytest.mark.needs_cuda
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_gpu_and_cpu_make_the_same_pixels(width, height):
    frames = torch.from_numpy(noise(width, height, num=2))

    assert torch.equal(resize_frames(frames.cuda(), 360, 640).cpu(), resize_frames(frames, 360, 640))


def test_stretch_ignores_the_aspect():
    frames = noise(300, 100)

    inputs = stretch_frames(torch.from_numpy(frames), 64, 64)

    assert inputs.shape == (1, 3, 64, 64)
    assert torch.equal(inputs[0].permute(1, 2, 0) * 255, torch.from_numpy(cv2.resize(frames[0], (64, 64))).float())


def test_frames_that_are_a_view_are_read_as_they_look():
    frames = torch.from_numpy(noise(64, 48))
    flipped = frames.flip(2)[:, :, ::2]

    resized = resize_frames(flipped, 24, 24)

    np.testing.assert_array_equal(resized[0], cv2.resize(np.ascontiguousarray(flipped[0]), (24, 24)))


# Not 1001 x 1999: there scale_boxes guesses the scale anew from the padded shape, and is a pixel of the input off.
@pytest.mark.parametrize(("width", "height"), [size for size in SIZES if size != (1001, 1999)])
def test_boxes_come_back_as_ultralytics_scales_them(width, height):
    from ultralytics.utils.ops import scale_boxes

    box = Letterbox.fit(height, width, 640)
    corners = np.random.default_rng(1).uniform(-20, 660, (50, 2, 2))
    xyxy = torch.from_numpy(np.sort(corners, axis=1).reshape(50, 4)).float()
    expected = scale_boxes((box.height, box.width), xyxy.clone(), (height, width))

    back = move_to_frame(xyxy, box, height, width)

    torch.testing.assert_close(back, expected, atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_scaled_frame_comes_back_as_the_whole_frame(width, height):
    box = Letterbox.fit(height, width, 640)
    inside = torch.tensor([[box.left, box.top, box.left + box.scaled_width, box.top + box.scaled_height]]).float()

    torch.testing.assert_close(move_to_frame(inside, box, height, width), torch.tensor([[0.0, 0.0, width, height]]))


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_smooth_scaling_is_pillows(width, height):
    from PIL import Image

    (frame,) = noise(width, height)
    expected = np.asarray(Image.fromarray(frame).resize((320, 192), Image.Resampling.BILINEAR))

    (found,) = resize_smoothly(torch.from_numpy(frame)[None], 192, 320).numpy()

    assert np.abs(found.astype(int) - expected).max() <= 1
