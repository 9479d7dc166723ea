from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from prelabel import Detections, FrameBatch, Media
from prelabel.config.sections import ReaderSection
from prelabel.errors import AccountError, DetectError, FrameCountError, ReadError
from prelabel.inference.batch_runner import BatchRunner
from prelabel.inference.decoding import Video
from prelabel.inference.pipeline import Inference, Pipeline
from prelabel.media.open import select_frames
from prelabel.runtime.interrupts import Stopped, StopSignal
from prelabel.runtime.progress import NullProgress
from tests.builders import ListReader, NumberDetector

CLIP = Media("video", (Path("clip.mp4"),))


def pipeline(detector=None, *, batch_size=4, frames="strict", stop=None, **reader) -> Pipeline:
    section = ReaderSection(use="tests.builders:ListReader", isolate="never", **reader)
    stop = stop or StopSignal()
    return Pipeline(
        section, Path(), BatchRunner(detector or NumberDetector()), batch_size, frames, NullProgress(), stop
    )


def infer(pipeline: Pipeline, promised_frames: int) -> Inference:
    (result,) = pipeline.infer([Video(CLIP, "clip.mp4", promised_frames)])
    if isinstance(result, Exception):
        raise result
    return result


def test_every_box_lands_on_the_frame_it_was_found_on():
    result = infer(pipeline(), 10)
    assert result.detections.frame_index.tolist() == list(range(10))
    assert result.detections.xyxy[:, 0].tolist() == list(range(10))
    assert result.partial is None
    assert set(result.seconds) == {"decode", "detect"}


def test_batches_are_full_but_for_the_last():
    detector = NumberDetector()
    infer(pipeline(detector), 10)
    assert detector.batch_sizes == [4, 4, 2]


def test_a_stride_keeps_the_frame_numbers():
    result = infer(pipeline(stride=3), 10)
    assert result.detections.frame_index.tolist() == [0, 3, 6, 9]
    assert result.detections.xyxy[:, 0].tolist() == [0, 3, 6, 9]


def test_another_count_than_promised_fails_before_the_first_batch():
    detector = NumberDetector()
    with pytest.raises(FrameCountError, match=r"clip\.mp4: the file has 10 frames, the platform says 12"):
        infer(pipeline(detector), 12)
    assert detector.batch_sizes == []


def test_under_warn_another_count_is_said_and_no_frame_past_the_promised_is_read():
    result = infer(pipeline(frames="warn"), 8)
    assert result.detections.frame_index.tolist() == list(range(8))
    assert "the platform says 8" in result.partial


def test_a_damaged_video_fails_or_is_kept_in_part_by_policy():
    reader = {"broken": 6, "error": ReadError("clip.mp4: 4 of 10 frames could not be decoded: 6-9")}
    with pytest.raises(ReadError, match="6-9"):
        infer(pipeline(batch_size=2, **reader), 10)
    result = infer(pipeline(batch_size=2, frames="warn", **reader), 10)
    assert result.detections.frame_index.tolist() == list(range(6))
    assert "6-9" in result.partial


def test_a_video_of_which_nothing_can_be_read_fails_under_any_policy():
    reader = {"broken": 0, "error": ReadError("clip.mp4: 10 of 10 frames could not be decoded: 0-9")}
    with pytest.raises(ReadError, match="10 of 10"):
        infer(pipeline(frames="warn", **reader), 10)
    with pytest.raises(FrameCountError, match="before frame 0, after 0 of 10 frames"):
        infer(pipeline(frames="warn", broken=0), 10)


def test_a_reader_that_ends_short_quietly_is_caught():
    with pytest.raises(FrameCountError, match="before frame 6, after 6 of 10 frames"):
        infer(pipeline(batch_size=2, broken=6), 10)


@pytest.mark.parametrize(
    ("detector", "complaint"),
    [
        (NumberDetector(raises_at=5), "frames 4 to 7: the detector raised RuntimeError: out of luck"),
        (NumberDetector(class_id=7), "class_id 7, it has 2 class_names"),
        (NumberDetector(drop_results=1), "returned 3 results for 4 frames"),
    ],
)
def test_a_detector_that_breaks_its_contract_is_named_with_the_frames(detector, complaint):
    with pytest.raises(DetectError, match=complaint):
        infer(pipeline(detector), 10)


def test_asking_twice_stops_between_batches():
    stop = StopSignal()
    stop.ask()
    assert len(infer(pipeline(stop=stop), 10).detections) == 10
    stop.ask()
    with pytest.raises(Stopped):
        infer(pipeline(stop=stop), 10)


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"stride": 4}, [0, 4]),
        ({"only_keyframes": True}, [0, 3]),
        ({"only_keyframes": True, "stride": 2}, [0]),
        ({"frame_ranges": [[1, 2], [5, 90]]}, [1, 2, 5]),
        ({"frame_ranges": [[2, 5]], "only_keyframes": True}, [3]),
    ],
)
def test_frames_are_selected_by_range_then_keyframe_then_stride(section, expected):
    assert select_frames(6, np.array([0, 3, 7]), ReaderSection(**section)).tolist() == expected


class NotingReader(ListReader):
    """Notes what it does in `notes`; has as many frames as the file's name says, and is damaged if it says so."""

    notes: ClassVar[list[tuple[str, object]]] = []
    second_decoded: ClassVar[threading.Event]

    def __init__(self, media: Media, **_: object):
        self.name = media.paths[0].name
        damaged = (
            {"broken": 2, "error": ReadError(f"{self.name}: frame 2 is damaged")} if "damaged" in self.name else {}
        )
        super().__init__(media, num_frames=int(self.name.split()[0]), **damaged)

    def __enter__(self):
        self.notes.append(("opened", self.name))
        return self

    def __exit__(self, *_):
        self.notes.append(("closed", self.name))

    def batches(self, frame_indices, batch_size):
        for batch in super().batches(frame_indices, batch_size):
            self.notes.append(("decoded", (self.name, int(batch.frame_indices[0]))))
            if "second" in self.name:
                self.second_decoded.set()
            yield batch


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, object]]:
    monkeypatch.setattr(NotingReader, "notes", [])
    monkeypatch.setattr(NotingReader, "second_decoded", threading.Event(), raising=False)
    return NotingReader.notes


def noting(detector=None, **options) -> Pipeline:
    reader = ReaderSection(use="tests.inference.test_pipeline:NotingReader", isolate="never")
    return replace(pipeline(detector, batch_size=2, **options), reader=reader)


def videos(*names: str, left: list[str] | None = None) -> Iterator[Video]:
    for name in names:
        release = ExitStack()
        if left is not None:
            release.callback(left.append, name)
        yield Video(Media("video", (Path(name),)), name, None, release=release)


class WaitingDetector(NumberDetector):
    """Takes so long over the last frame of ten that the next video's first batch could be decoded."""

    def detect(self, batch: FrameBatch) -> list[Detections]:
        if 9 in batch.frame_indices:
            assert NotingReader.second_decoded.wait(50), "the next video was not decoded meanwhile"
        return super().detect(batch)


def test_the_next_video_is_opened_and_its_first_batch_decoded_before_the_last_batch_is_detected(notes):
    results = list(noting(WaitingDetector()).infer(videos("10 first", "4 second", "6 third")))
    assert [len(result.detections) for result in results] == [10, 4, 6]
    assert [name for note, name in notes if note == "opened"] == ["10 first", "4 second", "6 third"]


def test_the_next_video_alone_is_opened_before_the_decoding_of_the_last_ends(notes, monkeypatch):
    opened = threading.Event()

    def decode(self, frame_indices, batch_size):
        if "first" in self.name:
            assert opened.wait(50), "the next video was not opened meanwhile"
            time.sleep(0.1)
            assert [name for note, name in notes if note == "opened"] == ["4 first", "4 second"]
        yield from ListReader.batches(self, frame_indices, batch_size)

    def enter(self):
        notes.append(("opened", self.name))
        if "second" in self.name:
            opened.set()
        return self

    monkeypatch.setattr(NotingReader, "batches", decode)
    monkeypatch.setattr(NotingReader, "__enter__", enter)
    results = list(noting().infer(videos("4 first", "4 second", "4 third")))
    assert [len(result.detections) for result in results] == [4, 4, 4]


def test_a_video_that_cannot_be_read_costs_none_beside_it(notes):
    left: list[str] = []
    names = ("4 first", "no number", "6 damaged", "3 last")
    results = list(noting().infer(videos(*names, left=left)))
    assert [len(results[n].detections) for n in (0, 3)] == [4, 3]
    assert "invalid literal" in str(results[1])
    assert "frame 2 is damaged" in str(results[2])
    assert sorted(left) == sorted(names)
    assert [name for note, name in notes if note == "closed"] == ["4 first", "6 damaged", "3 last"]


@pytest.mark.parametrize("name", ["no number", "0 frames"])
def test_videos_without_a_batch_are_not_all_opened_ahead(notes, name):
    left: list[str] = []
    found = noting().infer(videos(*[name] * 50, left=left))
    next(found)
    time.sleep(0.3)
    assert len(left) <= 5  # one handed on, two waiting, one in the hand of who decodes, one opened ahead
    assert len(list(found)) == 49


def test_a_video_on_which_the_detector_fails_is_decoded_no_further(notes):
    results = list(noting(NumberDetector(raises_at=5)).infer(videos("100 first", "4 last")))
    assert "frames 4 to 5: the detector raised RuntimeError" in str(results[0])
    assert len(results[1].detections) == 4
    assert len([name for note, name in notes if note == "decoded"]) < 12


def test_leaving_early_closes_what_was_opened_ahead(notes):
    left: list[str] = []
    before = set(threading.enumerate())
    found = noting().infer(videos("4 first", "50 second", "4 third", left=left))
    assert len(next(found).detections) == 4
    assert NotingReader.second_decoded.wait(50)
    found.close()
    assert not set(threading.enumerate()) - before
    assert left == [name for note, name in notes if note == "closed"] == ["4 first", "50 second", "4 third"]


def test_what_stops_the_videos_from_coming_is_raised_after_those_that_came(notes):
    def cut_off() -> Iterator[Video]:
        yield from videos("4 first", "6 second")
        raise AccountError("the key was revoked")

    found = noting().infer(cut_off())
    assert [len(next(found).detections) for _ in range(2)] == [4, 6]
    with pytest.raises(AccountError, match="revoked"):
        next(found)


def test_the_size_of_batches_is_found_on_the_detectors_thread_and_its_failure_is_one_videos(notes):
    asked: list[str] = []

    def fit(height: int, width: int) -> int:
        asked.append(threading.current_thread().name)
        if len(asked) == 1:
            raise DetectError("no batch fits")
        return 3

    detector = NumberDetector()
    results = list(replace(noting(detector), fit_batch=fit).infer(videos("6 first", "6 second", "6 third")))
    assert str(results[0]) == "no batch fits"
    assert detector.batch_sizes == [3, 3, 3, 3]
    assert asked == [threading.current_thread().name] * 2


def test_leaving_while_the_size_of_batches_is_awaited_leaves_no_thread_waiting(notes):
    before = set(threading.enumerate())
    found = replace(noting(), fit_batch=lambda height, width: 2).infer(videos("4 first", "4 wide"))
    assert len(next(found).detections) == 4
    while ("opened", "4 wide") not in notes:
        time.sleep(0.01)
    found.close()
    assert not set(threading.enumerate()) - before
    assert ("closed", "4 wide") in notes
