from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from prelabel import Detections
from prelabel.assembly.assemble import assemble
from prelabel.config.load import check_config
from prelabel.data.frames import FrameBatch
from prelabel.errors import ConfigError
from prelabel.models.replicas import ReplicatedDetector, count_streams, on_streams, shares
from prelabel.models.tiling import TiledDetector
from prelabel.run.checks import Check, run_checks


@dataclass
class Numbers:
    """Finds a box as wide as each frame's number is high, and notes its threads; waits until all streams are at it."""

    together: threading.Barrier | None = None
    has_twins: bool = True
    class_names = ("number",)

    def replicate(self) -> Numbers | None:
        return Numbers(self.together) if self.has_twins else None

    def detect(self, batch: FrameBatch) -> list[Detections]:
        if self.together is not None:
            self.together.wait(timeout=30)
        self.num_threads = torch.get_num_threads()
        return [Detections([[0, 0, 1 + number, 1]], [0.5], [0]) for number in batch.frame_indices]


def frames(num: int) -> FrameBatch:
    return FrameBatch(torch.zeros((num, 4, 4, 3), dtype=torch.uint8), np.arange(num), np.arange(num) / 25)


def numbers_of(found: list[Detections]) -> list[int]:
    return [int(detections.xyxy[0, 2]) - 1 for detections in found]


@pytest.fixture
def four_cores():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_parts_of_a_batch_are_computed_beside_each_other_and_come_in_order(four_cores):
    detector = on_streams(Numbers(threading.Barrier(2)), 2)
    begun = [detector.start(frames(num)) for num in (5, 2)]  # each part waits for another
    assert [numbers_of(finish()) for finish in begun] == [[0, 1, 2, 3, 4], [0, 1]]


def test_each_stream_has_its_share_of_the_cores_and_all_others_keep_theirs(four_cores):
    together = threading.Barrier(2)
    replicas = [Numbers(together), Numbers(together)]
    ReplicatedDetector(replicas, 2).detect(frames(8))
    assert [replica.num_threads for replica in replicas] == [2, 2]
    assert torch.get_num_threads() == 4
    with ThreadPoolExecutor(1) as later:
        assert later.submit(torch.get_num_threads).result() == 4


@pytest.mark.parametrize(("num_frames", "sizes"), [(0, []), (1, [1]), (3, [1, 1, 1]), (9, [2, 2, 2, 3])])
def test_shares_differ_by_one_at_most(num_frames, sizes):
    assert sorted(stop - start for start, stop in shares(num_frames, 4)) == sizes


def test_what_a_stream_raises_is_raised_where_its_batch_is_awaited():
    class Fails(Numbers):
        def replicate(self) -> Fails:
            return Fails()

        def detect(self, batch: FrameBatch) -> list[Detections]:
            if 2 in batch.frame_indices:
                raise RuntimeError("no such layer")
            return super().detect(batch)

    detector = on_streams(Fails(), 2)
    failing = detector.start(frames(4))
    assert numbers_of(detector.start(frames(2))()) == [0, 1]
    with pytest.raises(RuntimeError, match="no such layer"):
        failing()


def test_a_detector_without_twins_stays_as_it_is(four_cores):
    alone = Numbers(has_twins=False)
    assert count_streams(alone, "auto") == 1
    assert on_streams(alone, 1) is alone
    with pytest.raises(ConfigError, match=r"detector\.replicas: got 2, but this detector runs as one here"):
        count_streams(alone, 2)


@pytest.mark.parametrize(("num_cores", "num_streams"), [(1, 1), (2, 2), (3, 3), (16, 4)])
def test_there_is_a_stream_for_each_core_but_no_more_than_a_batch_has_frames(four_cores, num_cores, num_streams):
    torch.set_num_threads(num_cores)
    assert count_streams(Numbers(), "auto") == num_streams
    assert count_streams(Numbers(), 7) == 7


def test_streams_are_a_line_of_the_config(four_cores):
    def parts(**section: object):
        values = {"source": {"use": "demo"}, "detector": {"weights": "demo_shapes", "device": "cpu", **section}}
        return assemble(check_config(values, "test"), None).detection

    assert isinstance(parts().detector, ReplicatedDetector)
    assert isinstance(parts(tiles={"size": 200}).detector, TiledDetector)
    alone = parts(replicas=1)
    assert alone.detector is alone.asked_detector
    assert parts(replicas=3).raw_fingerprint == alone.raw_fingerprint


def test_check_names_the_replicas_before_a_run(four_cores):
    def weights(**section: object) -> Check:
        values = {"source": {"use": "demo"}, "detector": {"use": "tests.models.test_replicas:Numbers", **section}}
        checks = run_checks(assemble(check_config(values, "test"), None))
        return next(check for check in checks if check.name == "weights")

    assert weights(replicas=3).detail.endswith("batches of 8 in 3 replicas")
    refused = weights(replicas=2, has_twins=False)
    assert refused.detail.startswith("detector.replicas: got 2, but this detector runs as one here")
