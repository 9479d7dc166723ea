"""A detector over tiles and the whole frame: small things are found, each once, where they are."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.scenes import SceneSpec, render_frames
from prelabel import Detections, FrameBatch, ModelTraits
from prelabel.assembly.assemble import assemble
from prelabel.config.load import check_config
from prelabel.data.boxes import iou_matrix
from prelabel.data.geometry import Mask
from prelabel.errors import ConfigError
from prelabel.inference.batch_runner import BatchRunner
from prelabel.models.tiling import TiledDetector, Tiles, windows
from prelabel.testing import check_detector


class Blobs:
    """Finds things of one brightness that take a sixteenth of the picture's width or more: its eyes are coarse."""

    class_names = ("blob", "half")
    traits = ModelTraits(conf=0.4, raw_conf=0.1)

    def detect(self, batch: FrameBatch) -> list[Detections]:
        return [self._look(picture.numpy()) for picture in batch.data]

    def _look(self, picture) -> Detections:
        width = picture.shape[1]
        boxes = []
        for level in sorted(set(picture[..., 0].ravel().tolist()) - {0}):
            ys, xs = np.nonzero(picture[..., 0] == level)
            box = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
            if box[2] - box[0] >= width / 16:
                boxes.append(box)
        return Detections(boxes, [0.9] * len(boxes), [0] * len(boxes))


def batch_with(*blobs, width=1280, height=720, num=1) -> FrameBatch:
    data = np.zeros((num, height, width, 3), np.uint8)
    for level, (x1, y1, x2, y2) in enumerate(blobs, start=1):
        data[:, y1:y2, x1:x2] = level
    return FrameBatch(torch.from_numpy(data), np.arange(num), np.arange(num) / 25)


TILED = TiledDetector(Blobs(), Tiles(size=480, overlap=0.2))


def found(*blobs) -> list[list[float]]:
    (detections,) = TILED.detect(batch_with(*blobs))
    return sorted(detections.xyxy.tolist())


def test_a_small_thing_is_found_in_a_tile_alone_and_where_it_is():
    small = (700, 400, 740, 430)
    assert len(Blobs().detect(batch_with(small))[0]) == 0
    assert found(small) == [list(small)]


def test_a_thing_that_several_views_show_is_one():
    across = (380, 220, 520, 360)  # in the frame, and in four tiles, of which some cut it
    assert found(across) == [list(across)]


def test_a_thing_too_large_for_a_tile_is_the_frames():
    large = (100, 100, 1100, 600)
    assert found(large) == [list(large)]


def test_a_thing_at_the_frames_own_edge_is_not_taken_for_a_cut_one():
    assert found((1240, 680, 1280, 720), (0, 0, 40, 30)) == [[0, 0, 40, 30], [1240, 680, 1280, 720]]


def test_what_one_view_tells_apart_stays_apart():
    class Twice(Blobs):
        def _look(self, picture):
            return Detections([(0, 0, 40, 40), (5, 0, 45, 40)], [0.9, 0.8], [0, 0])

    (detections,) = TiledDetector(Twice(), Tiles(size=2000)).detect(batch_with())
    assert len(detections) == 2


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(32, 900), st.sampled_from([0, 0.2, 0.5]))
def test_tiles_cover_the_frame_and_neighbours_share_enough(width, height, size, overlap):
    tiles = list(windows(width, height, Tiles(size=size, overlap=overlap)))
    if width <= size and height <= size:
        assert tiles == []
        return
    for low, high, length in ((0, 2, width), (1, 3, height)):
        spans = sorted({(tile[low], tile[high]) for tile in tiles})
        assert (spans[0][0], spans[-1][1]) == (0, length)
        assert all(end - start == min(size, length) for start, end in spans)
        shared = [end - start for (_, end), (start, _) in pairwise(spans)]
        assert all(part >= overlap * size - 1 for part in shared)


def test_it_is_a_detector():
    detector = TiledDetector(Blobs(), Tiles(size=64))
    check_detector(detector)
    assert detector.class_names == ("blob", "half")


def test_a_detector_that_begins_batches_ahead_looks_at_tiles_too():
    class Ahead(Blobs):
        def start(self, batch: FrameBatch):
            found = self.detect(batch)
            return lambda: found

    runner = BatchRunner(TiledDetector(Ahead(), Tiles(size=480, overlap=0.2)))
    ((_, detections),) = next(runner.run([batch_with((700, 400, 740, 430))], "clip.mp4"))
    assert detections.xyxy.tolist() == [[700, 400, 740, 430]]


def test_each_view_is_begun_before_the_last_is_awaited():
    order: list[str] = []

    class Ahead(Blobs):
        def start(self, batch):
            number = sum(step.startswith("begin") for step in order)
            order.append(f"begin {number}")
            found = self.detect(batch)

            def finish():
                order.append(f"finish {number}")
                return found

            return finish

    finish = TiledDetector(Ahead(), Tiles(size=640)).start(batch_with(width=1000, height=640))
    assert order == ["begin 0", "begin 1", "finish 0", "begin 2", "finish 1"]
    finish()
    assert order[-1] == "finish 2"


def test_the_demo_detector_finds_small_things_only_with_tiles():
    truth, data = [], np.zeros((720, 1280, 3), np.uint8)
    for number, (x, y) in enumerate((x, y) for x in range(0, 1280, 320) for y in range(0, 720, 180)):
        frame = next(iter(render_frames(SceneSpec(seed=number, width=320, height=180, num_frames=2))))
        data[y : y + 180, x : x + 320] = frame.image
        truth += [(box[0] + x, box[1] + y, box[2] + x, box[3] + y) for box in frame.xyxy[~frame.is_crowd].tolist()]
    batch = FrameBatch(torch.from_numpy(data[None]), np.arange(1), np.zeros(1))

    def recall(**section) -> float:
        values = {"source": {"use": "demo"}, "detector": {"weights": "demo", "device": "cpu", **section}}
        (detections,) = assemble(check_config(values, "test"), None).detection.detector.detect(batch)
        sure = detections.xyxy[detections.confidence >= 0.4]
        return float((iou_matrix(np.array(truth, np.float32), sure).max(axis=1, initial=0) >= 0.5).mean())

    assert recall() < 0.1
    assert recall(tiles={"size": 320, "overlap": 0.3}) > 0.4


def test_tiles_are_a_line_of_the_config():
    values = {"source": {"use": "demo"}, "detector": {"use": "tests.models.test_tiling:Blobs", "tiles": {"size": 200}}}
    assembly = assemble(check_config(values, "test"), None)
    assert isinstance(assembly.detection.detector, TiledDetector)
    assert (assembly.detection.provider.threshold, assembly.detection.provider.raw_conf) == (0.4, 0.1)
    with pytest.raises(ConfigError, match=r"detector\.tiles\.size: got 3, expected 32 or more"):
        check_config({**values, "detector": {"weights": "demo", "tiles": {"size": 3}}}, "test")


class MaskedBlobs(Blobs):
    """Gives each thing's pixels as well."""

    def _look(self, picture) -> Detections:
        found = super()._look(picture)
        levels = picture[..., 0]
        masks = [Mask.of(levels == levels[int(y1), int(x1)]) for x1, y1, _, _ in found.xyxy]
        return Detections(found.xyxy, found.confidence, found.class_id, masks)


def test_masks_of_tiles_lie_where_their_boxes_do():
    blobs = [(900, 600, 940, 640), (100, 100, 400, 300)]  # one that a tile alone shows, one that only the frame does

    (found,) = TiledDetector(MaskedBlobs(), Tiles(size=480, overlap=0.2)).detect(batch_with(*blobs))

    windows_of = [[mask.left, mask.top, mask.left + mask.width, mask.top + mask.height] for mask in found.geometry]
    assert sorted(windows_of) == sorted(found.xyxy.tolist()) == sorted(map(list, blobs))
