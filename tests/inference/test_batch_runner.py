from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from prelabel import Detections, FrameBatch
from prelabel.errors import DetectError, DeviceMemoryError
from prelabel.inference.batch_runner import BatchRunner, Found
from prelabel.media.cuda import await_frames, to_device
from tests.builders import NumberDetector


def numbered(num_frames: int, batch_size: int) -> Iterator[FrameBatch]:
    """Frame i is filled with i."""
    for first in range(0, num_frames, batch_size):
        indices = np.arange(first, min(first + batch_size, num_frames))
        data = torch.from_numpy(indices).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 4, 8, 3).clone()
        yield FrameBatch(data, indices, indices / 10.0)


class SmallMemory(NumberDetector):
    """Runs out of memory above a number of frames."""

    def __init__(self, most_frames: int, error: type[Exception] = torch.OutOfMemoryError):
        super().__init__()
        self.most_frames, self.error, self.failures = most_frames, error, 0

    def detect(self, batch: FrameBatch) -> list[Detections]:
        if len(batch) > self.most_frames:
            self.failures += 1
            raise self.error("out of memory")
        return super().detect(batch)


class Ahead(SmallMemory):
    """Begins with a batch in `start`, and may run out of memory there or when its results are asked for."""

    def __init__(self, most_frames: int = 99, *, late: bool = False):
        super().__init__(most_frames)
        self.late, self.told = late, []

    def start(self, batch: FrameBatch) -> Callable[[], list[Detections]]:
        self.told.append(f"start {batch.frame_indices[0]}")
        found = [] if self.late else self.detect(batch)

        def finish() -> list[Detections]:
            self.told.append(f"finish {batch.frame_indices[0]}")
            return self.detect(batch) if self.late else found

        return finish


def assert_every_frame(results: list[Found], num_frames: int) -> None:
    found = [pair for result in results for pair in result]
    assert [frame_index for frame_index, _ in found] == list(range(num_frames))
    assert [detections.xyxy[0, 0] for _, detections in found] == list(range(num_frames))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, DeviceMemoryError])
@pytest.mark.parametrize("most_frames", [1, 3, 5, 16])
def test_batches_are_halved_until_they_fit_and_no_frame_is_lost(most_frames, error):
    detector = SmallMemory(most_frames, error)

    results = list(BatchRunner(detector).run(numbered(50, 16), "clip.mp4"))

    assert_every_frame(results, 50)
    assert max(detector.batch_sizes) <= most_frames


def test_what_did_not_fit_once_is_not_tried_again():
    detector = SmallMemory(4)
    runner = BatchRunner(detector)

    list(runner.run(numbered(160, 16), "clip.mp4"))
    list(runner.run(numbered(160, 16), "other.mp4"))

    assert detector.failures == 2  # at 16 and at 8
    assert runner.most_frames == 4


@pytest.mark.parametrize("late", [False, True])
def test_memory_may_run_out_when_a_batch_is_begun_and_when_its_results_are_asked_for(late):
    results = list(BatchRunner(Ahead(3, late=late)).run(numbered(40, 8), "clip.mp4"))

    assert_every_frame(results, 40)


def test_a_frame_that_does_not_fit_is_an_error_with_a_next_step():
    with pytest.raises(DeviceMemoryError, match=r"clip\.mp4: frames 0 to 0: not even one frame of 8 x 4 .*imgsz"):
        list(BatchRunner(SmallMemory(0)).run(numbered(4, 4), "clip.mp4"))


def test_the_next_batch_is_begun_before_the_last_one_is_awaited():
    detector = Ahead()

    results = list(BatchRunner(detector).run(numbered(6, 2), "clip.mp4"))

    assert detector.told == ["start 0", "start 2", "finish 0", "start 4", "finish 2", "finish 4"]
    assert_every_frame(results, 6)


def test_an_error_names_the_frames_whenever_it_comes():
    class Fails(Ahead):
        def detect(self, batch):
            raise RuntimeError("out of luck")

    for late in (False, True):
        with pytest.raises(DetectError, match=r"frames 0 to 1: the detector raised RuntimeError: out of luck"):
            list(BatchRunner(Fails(late=late)).run(numbered(4, 2), "clip.mp4"))


def test_a_detector_that_exits_fails_its_video_and_not_the_thread():
    class Exits(Ahead):
        def detect(self, batch):
            raise SystemExit(3)

    with pytest.raises(DetectError, match=r"frames 0 to 1: the detector raised SystemExit: 3"):
        list(BatchRunner(Exits()).run(numbered(4, 2), "clip.mp4"))


@pytest.mark.parametrize(
    ("found", "complaint"),
    [
        (None, "returned NoneType, expected a list of Detections"),
        ((Detections.empty() for _ in range(2)), "returned generator, expected a list of Detections"),
        ([None, Detections.empty()], "returned NoneType for a frame, expected Detections"),
        ([Detections.empty()], "returned 1 results for 2 frames"),
    ],
)
def test_what_is_no_list_of_detections_is_named_with_the_frames(found, complaint):
    class Wrong(NumberDetector):
        def detect(self, batch: FrameBatch) -> list[Detections]:
            return found

    with pytest.raises(DetectError, match=f"clip: frames 0 to 1: the detector {complaint}"):
        list(BatchRunner(Wrong()).run(numbered(2, 2), "clip"))


def test_no_batch_is_held_after_its_results():
    held: list[weakref.ref] = []

    def watched() -> Iterator[FrameBatch]:
        for batch in numbered(20, 2):
            held.append(weakref.ref(batch.data))
            assert sum(data() is not None for data in held) <= 3
            yield batch
            del batch

    list(BatchRunner(NumberDetector()).run(watched(), "clip.mp4"))

    assert all(data() is None for data in held)


def test_busy_seconds_leave_out_the_wait_for_frames():
    runner = BatchRunner(NumberDetector())

    list(runner.run(numbered(4, 2), "clip.mp4"))

    assert 0 < runner.busy_seconds < 5


def test_frames_stay_where_they_are_without_a_gpu():
    batches = list(numbered(4, 2))

    for device in (None, "cpu"):
        passed = list(to_device(iter(batches), device))
        assert [batch.data.data_ptr() for batch in passed] == [batch.data.data_ptr() for batch in batches]
    await_frames(batches[0])


def test_closing_the_way_to_the_device_closes_the_reader():
    closed = []

    def reader() -> Iterator[FrameBatch]:
        try:
            yield from numbered(4, 2)
        finally:
            closed.append(True)

    way = to_device(reader(), "cpu")
    next(way)
    way.close()

    assert closed == [True]


@pytest.mark.needs_cuda
def test_frames_come_to_the_gpu_whole_and_in_order():
    for batch, expected in zip(to_device(numbered(60, 8), "cuda:0"), numbered(60, 8), strict=True):
        await_frames(batch)
        assert batch.ready is not None
        assert torch.equal(batch.data.cpu(), expected.data)
