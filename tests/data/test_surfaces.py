"""Frames as decoders output them: NV12 and P010, their colours and orientation."""

from __future__ import annotations

import itertools
import platform

import av
import numpy as np
import pytest
import torch

from prelabel import FrameBatch
from prelabel.data.frames import SceneCutDetector, thumbnails
from prelabel.data.surfaces import Orientation, Surfaces
from prelabel.media.pixels import FrameConverter
from tests.builders import noise_surfaces

ORIENTATIONS = [Orientation(*flags) for flags in itertools.product([False, True], repeat=3)]


def ffmpeg_rgb(surfaces: Surfaces, color_number: int) -> np.ndarray:
    """Returns the one frame of surfaces as FFmpeg converts it."""
    height, width = surfaces.stored_size
    samples = surfaces.planes[0].numpy() >> (6 if surfaces.is_p010 else 0)
    chroma = samples[height:].reshape(height // 2, width // 2, 2)
    frame = av.VideoFrame(width, height, "yuv420p10le" if surfaces.is_p010 else "yuv420p")
    for plane, values in zip(frame.planes, (samples[:height], chroma[..., 0], chroma[..., 1]), strict=True):
        rows = np.zeros((plane.height, plane.line_size // samples.itemsize), samples.dtype)
        rows[:, : values.shape[1]] = values
        plane.update(rows.tobytes())
    frame.colorspace, frame.color_range = color_number, 2 if surfaces.is_full_range else 1
    shown_width, shown_height = surfaces.orientation.displayed_size(width, height)
    return FrameConverter(shown_width, shown_height, surfaces.orientation, 1)(frame).copy()


@pytest.mark.parametrize(("bits", "limit"), [(8, 0 if platform.machine() == "x86_64" else 2), (10, 5)])
@pytest.mark.parametrize("is_full_range", [False, True])
@pytest.mark.parametrize(("space", "number"), [("bt709", 1), ("smpte170m", 6), ("smpte240m", 7), ("bt2020nc", 9)])
def test_colours_are_ffmpegs_within_some_grey_levels(
    space: str, number: int, is_full_range: bool, bits: int, limit: int
):
    surfaces = noise_surfaces(1, 48, 64, space, is_full_range=is_full_range, bits=bits)
    if bits == 10:  # FFmpeg interpolates colours between rows here
        surfaces.planes[:, 48:] = surfaces.planes[:, 48:49].clone()
    difference = surfaces.rgb()[0].numpy().astype(np.int16) - ffmpeg_rgb(surfaces, number)
    assert np.abs(difference).max() <= limit


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_frames_are_turned_and_mirrored_as_ffmpeg_does(orientation: Orientation):
    surfaces = noise_surfaces(1, 16, 24, orientation=orientation)
    frame = surfaces.rgb()[0].numpy()
    assert surfaces.shape == (1, *frame.shape)
    assert np.abs(frame.astype(np.int16) - ffmpeg_rgb(surfaces, 1)).max() <= 2


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_single_pixels_are_those_of_the_frame(orientation: Orientation):
    surfaces = noise_surfaces(3, 16, 24, orientation=orientation)
    rows, columns = torch.tensor([0, 3, 3, 15]), torch.tensor([1, 14, 15])
    expected = surfaces.rgb()[:, rows][:, :, columns]
    assert torch.equal(surfaces.pixels(rows, columns), expected)


def test_a_batch_of_surfaces_becomes_rgb_only_if_somebody_asks():
    surfaces = noise_surfaces(4, 16, 24, orientation=Orientation(transpose=True))
    batch = FrameBatch(surfaces, [0, 1, 2, 5], [0, 0.1, 0.2, 0.5])
    assert batch.shape == (4, 24, 16, 3)
    assert batch.num_bytes == 4 * 24 * 16 * 3 // 2
    part = batch.part(1, 3).to("cpu")
    assert isinstance(part.decoded, Surfaces)
    assert part.memory.data_ptr() == surfaces.planes[1].data_ptr()
    assert torch.equal(part.data, surfaces.rgb()[1:3])
    assert part.data is part.data
    assert np.array_equal(part.array, part.data.numpy())


@pytest.mark.parametrize(("height", "width"), [(16, 24), (180, 320), (1080, 1920)])
def test_scene_cuts_of_surfaces_are_those_of_their_rgb(height: int, width: int):
    surfaces = noise_surfaces(2, height, width)
    rgb = surfaces.rgb()
    assert torch.equal(thumbnails(surfaces), thumbnails(rgb))
    rgb_cuts, surface_cuts = SceneCutDetector(), SceneCutDetector()
    rgb_cuts.add(rgb, np.arange(2))
    surface_cuts.add(surfaces, np.arange(2))
    assert np.array_equal(rgb_cuts.cuts(), surface_cuts.cuts())


@pytest.mark.parametrize(
    ("planes", "space", "message"),
    [
        (torch.zeros(2, 4, 4, dtype=torch.uint8), "bt709", r"planes: got shape \(2, 4, 4\), expected"),
        (torch.zeros(2, 6, 4), "bt709", "planes: got torch.float32, expected uint8 for NV12"),
        (torch.zeros(2, 6, 4, dtype=torch.uint8), "ycgco", "color_space: got 'ycgco', expected one of bt709"),
    ],
)
def test_other_planes_are_refused(planes: torch.Tensor, space: str, message: str):
    with pytest.raises(ValueError, match=message):
        Surfaces(planes, space, is_full_range=False)


@pytest.mark.parametrize(("device", "goes_on"), [("mps", False), ("cuda:0", True)])
def test_only_copies_to_cuda_go_on_while_the_reader_reuses_its_memory(device, goes_on, monkeypatch):
    asked = []

    def to(tensor: torch.Tensor, device: str, *, non_blocking: bool) -> torch.Tensor:
        asked.append((device, non_blocking))
        return tensor

    monkeypatch.setattr(torch.Tensor, "to", to)
    FrameBatch(np.zeros((1, 2, 2, 3), np.uint8), [0], [0.0]).to(device)
    assert asked == [(device, goes_on)]
