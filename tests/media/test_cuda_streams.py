"""What waits for what on a GPU, with streams that only keep account of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pytest

from prelabel import FrameBatch, Media, VideoInfo
from prelabel.media import parallel as split
from prelabel.media.cuda import allocate, await_frames, to_device
from prelabel.media.parallel import ParallelReader
from prelabel.runtime.prefetch import prefetch
from tests.fake_cuda import FakeCuda, FakeFrames, FakeStream

NUM_FRAMES = 400


class GpuReader:
    """Decodes on the current stream, as NVDEC readers do."""

    info = VideoInfo(width=10, height=10, num_frames=NUM_FRAMES)

    def __init__(self, frames: Callable[[int], FakeFrames]) -> None:
        self._frames = frames

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        pass

    def batches(self, frame_indices: np.ndarray, batch_size: int) -> Iterator[FrameBatch]:
        for at in range(0, len(frame_indices), batch_size):
            numbers = frame_indices[at : at + batch_size]
            yield FrameBatch(self._frames(len(numbers)), numbers, numbers / 10)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return FakeCuda(monkeypatch)


@pytest.fixture
def several(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda) -> ParallelReader:
    class Index:
        seek_points = np.arange(0, NUM_FRAMES, 50)

    monkeypatch.setattr(split, "index_video", lambda _: Index)
    media = Media("video", (Path("none.mp4"),))
    return ParallelReader(media, lambda: GpuReader(cuda.frames), 3, 1e9, "cuda:0")


def test_frames_are_decoded_on_a_stream_of_their_own_and_awaited_by_the_detectors(cuda: FakeCuda):
    reader = GpuReader(cuda.frames)
    with closing(prefetch(to_device(reader.batches(np.arange(40), 10), "cuda:0"), max_items=2)) as batches:
        for batch in batches:
            assert batch.data.made_on is not cuda.default
            assert not batch.data.may_be_read
            await_frames(batch)
            assert batch.data.may_be_read


def test_frames_of_the_host_are_on_the_device_before_their_memory_is_used_again(cuda: FakeCuda):
    reader = GpuReader(lambda num: FakeFrames(cuda, num, "cpu"))
    for batch in to_device(reader.batches(np.arange(40), 10), "cuda:0"):
        assert batch.data.device == "cuda:0"
        assert batch.ready.was_synchronized


def test_sessions_decode_on_streams_of_their_own_and_whoever_asks_may_read(cuda: FakeCuda, several: ParallelReader):
    streams = set()
    with several as reader:
        for batch in reader.batches(np.arange(NUM_FRAMES), 10):
            streams.add(batch.data.made_on)
            assert batch.data.may_be_read
    assert streams  # one that has ended lends its own to the next
    assert cuda.default not in streams


def test_frames_of_several_sessions_are_awaited_on_the_whole_way_to_the_detector(
    cuda: FakeCuda, several: ParallelReader
):
    num_seen = 0
    with several as reader:
        way = to_device(reader.batches(np.arange(NUM_FRAMES), 10), "cuda:0")
        with closing(prefetch(way, max_items=2)) as batches:
            for batch in batches:
                assert not batch.data.may_be_read
                await_frames(batch)
                assert batch.data.may_be_read
                num_seen += len(batch)
    assert num_seen == NUM_FRAMES


def test_all_decoders_allocate_on_one_stream_and_keep_the_memory_for_their_own(cuda: FakeCuda):
    made_on = set()
    for decoder_stream in (FakeStream(), FakeStream(), FakeStream()):
        with cuda.use(decoder_stream):
            memory = allocate((5, 10, 10, 3), cuda.frames(1))
        assert memory.kept_for == {memory.made_on, decoder_stream}
        made_on.add(memory.made_on)
    assert len(made_on) == 1
    assert cuda.default not in made_on
