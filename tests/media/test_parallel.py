"""One video by several readers: what comes out is what one gives, and no more is decoded ahead than may be."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prelabel.config.sections import ReaderSection
from prelabel.data.frames import FrameBatch, Media, VideoInfo
from prelabel.errors import ReadError
from prelabel.media import parallel as split
from prelabel.media import torchcodec
from prelabel.media.decord import DecordReader
from prelabel.media.isolation.reader import IsolatedReader
from prelabel.media.open import open_frames
from prelabel.media.parallel import ParallelReader, split_at_keyframes
from prelabel.media.pyav import PyAVReader
from prelabel.media.torchcodec import TorchCodecReader
from prelabel.plugins.protocols import VideoReader
from prelabel.testing import check_reader
from tests.make_media import RECIPES, read_number, remux, spoil, write_clip
from tests.media.conftest import read_until_error

TIMES = 5
READERS = {"pyav": PyAVReader, "decord": DecordReader, "torchcodec": TorchCodecReader}


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = {*threading.enumerate()}
    yield
    assert [thread.name for thread in {*threading.enumerate()} - before if thread.name.startswith("session")] == []


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Media:
    """150 frames with a keyframe every 12 and at every 30th."""
    folder = tmp_path_factory.mktemp("long")
    source = write_clip(folder / "clip.mp4", RECIPES["h264"]).path
    return Media("video", (remux(source, folder / "long.mp4", times=TIMES),))


def in_sessions(media: Media, make: Callable[..., VideoReader] = PyAVReader, sessions: int = 3) -> ParallelReader:
    return ParallelReader(media, partial(make, media, device="cpu"), sessions, 1e9, None)


def read(reader: VideoReader, wanted: np.ndarray, batch_size: int) -> list[tuple[list[int], list[int]]]:
    """Returns the frame indices of each batch, and the numbers that its frames show."""
    with reader:
        return [
            (batch.frame_indices.tolist(), [read_number(frame.numpy()) for frame in batch.data])
            for batch in reader.batches(wanted, batch_size)
        ]


@pytest.mark.parametrize("batch_size", [1, 4, 5, 16])
@pytest.mark.parametrize("wanted", [np.arange(150), np.arange(17, 140, 3), np.r_[5:40, 90:150]], ids=len)
def test_batches_are_those_of_one_reader(wanted: np.ndarray, batch_size: int, clip: Media):
    assert read(in_sessions(clip), wanted, batch_size) == read(PyAVReader(clip), wanted, batch_size)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("packets", [[14], [40, 41, 100], [149]], ids=str)
def test_damage_costs_what_it_costs_one_reader(
    name: str, packets: list[int], clip: Media, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if name == "torchcodec" and (unavailable_reason := torchcodec.probe()):
        pytest.skip(unavailable_reason)
    monkeypatch.setattr(split, "MIN_SEGMENT_BATCHES", 1)
    media = Media("video", (spoil(clip.paths[0], tmp_path / "clip.mp4", packets=packets, keep=4),))
    frames, error = read_until_error(in_sessions(media, READERS[name]), batch_size=4)
    frames_of_one, error_of_one = read_until_error(READERS[name](media, device="cpu"), batch_size=4)
    if name == "decord":  # it notices damage some frames sooner or later, alone too
        assert frames == [(index, index % 30) for index in range(len(frames))]
        assert error.startswith("clip.mp4: decord stopped at frame")
        return
    assert (frames, error) == (frames_of_one, error_of_one)
    assert error


class Counting:
    """A reader of frames that are all black; tells how many it has decoded, and may wait before each batch."""

    decoded = 0
    num_frames = 1000

    def __init__(self, media: Media, device: str = "auto", wait: Callable[[], object] = lambda: None) -> None:
        self._wait = wait
        self.info = VideoInfo(width=10, height=10, num_frames=self.num_frames)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        pass

    def batches(self, frame_indices: np.ndarray, batch_size: int) -> Iterator[FrameBatch]:
        for at in range(0, len(frame_indices), batch_size):
            self._wait()
            numbers = frame_indices[at : at + batch_size]
            type(self).decoded += len(numbers)
            yield FrameBatch(torch.zeros((len(numbers), 10, 10, 3), dtype=torch.uint8), numbers, numbers / 10)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Media:
    """Media of 1000 frames from every 50th of which one can begin."""

    class Index:
        seek_points = np.arange(0, Counting.num_frames, 50)

    monkeypatch.setattr(split, "index_video", lambda _: Index)
    monkeypatch.setattr(Counting, "decoded", 0)
    return Media("video", (tmp_path / "none.mp4",))


def test_readers_are_at_work_at_the_same_time(counting: Media):
    all_at_work, this_thread = threading.Barrier(4, timeout=50), threading.local()

    def wait() -> None:
        if not hasattr(this_thread, "has_waited"):
            this_thread.has_waited = True
            all_at_work.wait()

    with ParallelReader(counting, partial(Counting, counting, wait=wait), 4, 1e9, None) as reader:
        assert sum(len(batch) for batch in reader.batches(np.arange(1000), 10)) == 1000


def test_frames_decoded_ahead_take_no_more_than_they_may(counting: Media):
    batch_bytes = 10 * 10 * 10 * 3
    with ParallelReader(counting, partial(Counting, counting), 4, 12 * batch_bytes, None) as reader:
        for num_taken, batch in enumerate(reader.batches(np.arange(1000), 10), 1):
            if num_taken in {1, 6, 40}:
                time.sleep(0.2)
            assert Counting.decoded - num_taken * len(batch) <= 12 * 10


def test_the_nearer_its_turn_the_more_of_a_piece_is_decoded_ahead():
    room = split.ReadAheadBudget(4, 20)
    ahead = [0] * 5

    def fill(piece: int) -> None:
        while room.take(piece):
            ahead[piece] += 1

    threads = [threading.Thread(target=fill, args=(piece,)) for piece in range(5)]
    for thread in threads:
        thread.start()
    for expected in ([8, 6, 4, 2, 0], [8, 8, 6, 4, 2]):
        while sum(ahead) < sum(expected):
            time.sleep(0.01)
        time.sleep(0.1)
        assert ahead == expected
        room.begin(1)
    room.close()
    for thread in threads:
        thread.join(10)


def test_where_memory_is_too_small_one_reader_reads(counting: Media):
    made: list[Counting] = []

    def make() -> Counting:
        made.append(Counting(counting))
        return made[-1]

    with ParallelReader(counting, make, 4, 10_000, None) as reader:
        assert sum(len(batch) for batch in reader.batches(np.arange(1000), 10)) == 1000
    assert len(made) == 1


def test_surfaces_take_half_the_memory_of_rgb(counting: Media, monkeypatch: pytest.MonkeyPatch):
    made: list[Counting] = []

    def make() -> Counting:
        made.append(Counting(counting))
        return made[-1]

    monkeypatch.setattr(Counting, "bytes_per_pixel", 1.5, raising=False)
    with ParallelReader(counting, make, 4, 10_000, None) as reader:
        assert sum(len(batch) for batch in reader.batches(np.arange(1000), 10)) == 1000
    assert len(made) == 1 + 3  # six batches fit, and each reader wants two


def test_a_reader_that_cannot_be_opened_once_more_costs_no_frame(counting: Media):
    lock, made = threading.Lock(), []

    def make() -> Counting:
        with lock:
            made.append(Counting(counting))
            if len(made) == 3:
                raise ReadError("no more sessions")
            return made[-1]

    with ParallelReader(counting, make, 4, 1e9, None) as reader:
        assert sum(len(batch) for batch in reader.batches(np.arange(1000), 10)) == 1000


def test_leaving_early_ends_the_readers(counting: Media):
    batch_bytes = 10 * 10 * 10 * 3  # memory for 12 batches, so that the readers cannot be done before
    with ParallelReader(counting, partial(Counting, counting), 4, 12 * batch_bytes, None) as reader:
        batches = reader.batches(np.arange(1000), 10)
        next(batches)
        batches.close()
    assert Counting.decoded < 1000


@given(
    wanted=st.lists(st.integers(0, 400), unique=True, max_size=200).map(sorted),
    seek_points=st.lists(st.integers(0, 400), unique=True).map(lambda points: sorted({0, *points})),
    batch_size=st.integers(1, 20),
)
def test_pieces_hold_every_batch_once_and_begin_where_one_can(
    wanted: list[int], seek_points: list[int], batch_size: int
):
    pieces = split_at_keyframes(np.array(wanted, np.int64), np.array(seek_points), batch_size)
    batches = [batch.tolist() for piece in pieces for batch in piece.batches]
    assert batches == [wanted[at : at + batch_size] for at in range(0, len(wanted), batch_size)]
    for before, piece in pairwise(pieces):
        assert len(piece.batches) >= split.MIN_SEGMENT_BATCHES
        within = range(before.batches[-1][0] + 1, piece.batches[0][0] + 1)
        assert any(point in within for point in seek_points), (
            "the first batch is further from a keyframe than it may be"
        )


@pytest.mark.parametrize("use", ["pyav", "decord"])
def test_the_process_that_decodes_keeps_the_contract(use: str, clip: Media):
    section = ReaderSection.model_validate({"use": use, "decode_workers": 3})
    check_reader(lambda media: IsolatedReader(media, section, Path(), None), clip)


def test_memory_of_a_reading_that_was_given_up_is_used_again(clip: Media):
    with IsolatedReader(clip, ReaderSection(use="pyav", decode_workers=3), Path(), None) as reader:
        for _ in range(6):
            batches = reader.batches(np.arange(150), 1)
            next(batches)
            time.sleep(0.05)
            batches.close()
        handles = [path.readlink() for path in Path(f"/proc/{reader.process_id}/fd").iterdir() if path.is_symlink()]
    assert sum(str(handle).startswith("/memfd:prelabel") for handle in handles) <= 152


@pytest.mark.parametrize("isolate", ["always", "never"])
def test_config_says_how_many(isolate: str, clip: Media):
    section = ReaderSection.model_validate({"device": "cpu", "decode_workers": 3, "isolate": isolate})
    with open_frames(clip, section, Path()) as opened:
        assert opened.choice.decode_workers == 3
        assert opened.choice.reason.endswith("decoding on the CPU; 3 segments at once, where keyframes allow it")
        numbers = [index for batch in opened.reader.batches(np.arange(150), 4) for index in batch.frame_indices]
    assert numbers == list(range(150))


def test_on_a_cpu_one_reads(clip: Media):
    with open_frames(clip, ReaderSection(device="cpu", isolate="never"), Path()) as opened:
        assert (opened.choice.decode_workers, type(opened.reader)) == (1, PyAVReader)
