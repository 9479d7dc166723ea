"""What is known beyond a box: checked, moved, cut, and masks as run lengths and as outlines."""

from __future__ import annotations

import numpy as np
import pytest
from encord.objects.bitmask import BitmaskCoordinates
from faster_coco_eval.core import mask as coco_mask
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from prelabel.data.detections import Detections, concatenate, merge
from prelabel.data.geometry import Keypoints, Mask, Polygons, RotatedBox, clip_geometry, move_geometry
from prelabel.data.masks import counts_as_text, text_along_rows, text_down_columns, trace_mask
from tests.geometries import DISC, POSE, SQUARES, TURNED, column, disc, ring, with_geometry


def pixels_of(mask: Mask, height: int, width: int) -> np.ndarray:
    whole = np.zeros((height, width), bool)
    whole[mask.top : mask.top + mask.height, mask.left : mask.left + mask.width] = mask.pixels
    return whole


def fill(polygons: Polygons, height: int, width: int, scale: int = 8) -> np.ndarray:
    """Returns the area of polygons, on a grid `scale` times as fine as pixels."""
    picture = Image.new("1", (width * scale, height * scale))
    canvas = ImageDraw.Draw(picture)
    for rings in polygons.parts:
        for number, corners in enumerate(rings):
            canvas.polygon([tuple(point) for point in (corners * scale - 0.5).tolist()], fill=int(number == 0))
    return np.array(picture)


@given(st.data())
@settings(max_examples=200)
def test_mask_gives_its_pixels_back_and_the_run_lengths_of_encord_and_of_coco(data):
    height, width = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))
    drawn = data.draw(st.binary(min_size=-(-height * width // 8), max_size=-(-height * width // 8)))
    bits = np.unpackbits(np.frombuffer(drawn, np.uint8))[: height * width]
    pixels = bits.reshape(height, width).astype(bool)

    mask = Mask.of(pixels)

    if mask is None:
        assert not pixels.any()
        return
    assert np.array_equal(pixels_of(mask, height, width), pixels)
    assert mask.area == pixels.sum()
    assert text_along_rows(mask, width, height) == BitmaskCoordinates(pixels).to_dict()["rleString"]
    encoded = coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))["counts"]
    assert text_down_columns(mask, width, height) == encoded.decode()


def test_run_lengths_of_a_large_frame_are_the_sdks():
    pixels = disc(1080, 1920, 500, 200)

    text = text_along_rows(Mask.of(pixels), 1920, 1080)

    assert text == BitmaskCoordinates(pixels).to_dict()["rleString"]
    assert (
        counts_as_text(np.array([0, 2**31 - 1]))
        == coco_mask.frPyObjects({"size": [1, 2**31 - 1], "counts": [0, 2**31 - 1]}, 1, 2**31 - 1)["counts"].decode()
    )


def test_outline_of_a_rectangle_has_its_four_corners():
    (part,) = trace_mask(Mask.of(np.ones((3, 5), bool), 7, 9), 1.0).parts

    assert [sorted(corners.tolist()) for corners in part] == [[[7, 9], [7, 12], [12, 9], [12, 12]]]


@pytest.mark.parametrize(
    ("tolerance_px", "most_points", "least_iou"), [(0.5, 140, 0.99), (1.0, 40, 0.985), (3.0, 24, 0.95)]
)
def test_outline_has_few_corners_and_lies_on_the_mask(tolerance_px, most_points, least_iou):
    pixels = disc(200, 200, 80, 20)

    polygons = trace_mask(Mask.of(pixels), tolerance_px)

    assert [len(rings) for rings in polygons.parts] == [2]
    assert sum(map(len, polygons.parts[0])) <= most_points
    fine = pixels.repeat(8, axis=0).repeat(8, axis=1)
    filled = fill(polygons, 200, 200)
    assert (fine & filled).sum() / (fine | filled).sum() >= least_iou


def test_parts_come_largest_first_and_specks_are_left_out():
    pixels = np.zeros((40, 40), bool)
    pixels[2:8, 2:8], pixels[20:35, 20:35], pixels[12, 12] = True, True, True

    polygons = trace_mask(Mask.of(pixels), 2.0)

    assert [rings[0].min(axis=0).tolist() for rings in polygons.parts] == [[20, 20], [2, 2]]


def test_mask_that_the_tolerance_makes_nothing_has_no_outline():
    assert trace_mask(Mask.of(np.ones((1, 1), bool)), 3.0) is None


@pytest.mark.parametrize("geometry", [DISC, SQUARES, TURNED, POSE], ids=lambda geometry: geometry.kind)
def test_geometry_moved_there_and_back_is_the_same(geometry):
    back = move_geometry(move_geometry(geometry, 7, 5), -7, -5)

    for kept in (back, clip_geometry(back, 64, 64)):
        match geometry:
            case Mask():
                assert np.array_equal(pixels_of(kept, 64, 64), pixels_of(geometry, 64, 64))
            case Polygons():
                assert all(map(np.array_equal, sum(kept.parts, ()), sum(geometry.parts, ())))
            case RotatedBox():
                assert kept == geometry
            case Keypoints():
                assert np.array_equal(kept.xy, geometry.xy)


def test_what_lies_outside_is_cut():
    over = Mask.of(np.ones((10, 10), bool), -3, 55)
    assert clip_geometry(over, 64, 60).pixels.shape == (5, 7)
    assert clip_geometry(Mask.of(np.ones((2, 2), bool), 64, 0), 64, 60) is None
    assert clip_geometry(Polygons(((ring(-5, 0, 70, 0, 70, 90),),)), 64, 60).parts[0][0].tolist() == [
        *([0, 0], [64, 0], [64, 60])
    ]
    assert clip_geometry(Keypoints(ring(-1, 70), [0.5]), 64, 60).xy.tolist() == [[0, 60]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mask(0, 0, 2, 2, np.array([3], np.int32)), "runs of 3 pixels in a window of 2 x 2"),
        (lambda: Polygons(()), "no part"),
        (lambda: Polygons(((ring(0, 0, 1, 1),),)), r"a ring of shape \(2, 2\)"),
        (lambda: RotatedBox(1, 1, 0, 4, 0), "width and height above 0"),
        (lambda: RotatedBox(float("nan"), 1, 1, 4, 0), "finite"),
        (lambda: Keypoints(ring(0, 0, 1, 1), [0.5]), r"expected \(K, 2\) and \(K,\)"),
        (lambda: Keypoints(ring(0, 0), [1.5]), "confidence outside"),
        (lambda: Detections([[0, 0, 1, 1]], [0.5], [0], [POSE, POSE]), "geometry: got 2 rows, expected 1"),
        (lambda: Detections([[0, 0, 1, 1]], [0.5], [0], ["mask"]), "geometry: got 'mask', expected a Mask"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_geometry_goes_with_its_rows():
    frames = [(0, Detections([[0, 0, 9, 9]], [0.5], [0], [DISC])), (1, Detections([[0, 0, 9, 9]], [0.5], [0]))]

    found = concatenate(frames)

    assert found.geometry.tolist() == [DISC, None]
    assert found.has_geometry.tolist() == [True, False]
    assert found.where(np.array([False, True])).geometry.tolist() == [None]
    later = with_geometry((0, (1, 1, 2, 2), 0.5, 0, TURNED), (2, (1, 1, 2, 2), 0.5, 0, POSE))
    assert merge([found, later]).geometry.tolist() == [DISC, TURNED, None, POSE]
    assert column().shape == (0,)


def test_a_triangle_has_an_outline() -> None:
    mask = Mask.of(np.tri(40, dtype=bool))
    outlines = trace_mask(mask, 2.0)
    assert [len(ring) for (ring,) in outlines.parts] == [3]
