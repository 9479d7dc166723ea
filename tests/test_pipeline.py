from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prelabel import Media
from prelabel.batch_runner import BatchRunner
from prelabel.config import ReaderSection
from prelabel.decoding import Video, select_frames
from prelabel.errors import DetectError, FrameCountError, ReadError
from prelabel.interrupts import Stopped, StopSignal
from prelabel.pipeline import Inference, Pipeline
from prelabel.progress import NullProgress
from tests.builders import NumberDetector

pytestmark = pytest.mark.timeout(60)
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
    with pytest.raises(FrameCountError, match="after 0 of 10 frames without an error"):
        infer(pipeline(frames="warn", broken=0), 10)


def test_a_reader_that_ends_short_quietly_is_caught():
    with pytest.raises(FrameCountError, match="after 6 of 10 frames without an error"):
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
