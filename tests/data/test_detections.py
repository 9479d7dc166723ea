from __future__ import annotations

import numpy as np
import pytest
import torch

from prelabel import Detections, FrameBatch, Media, VideoInfo
from prelabel.data.detections import concatenate
from tests.builders import batch, detections, video_detections


def test_lists_and_tensors_become_arrays_of_the_stated_types():
    found = Detections(xyxy=torch.tensor([[0.0, 1, 2, 3]]), confidence=[0.5], class_id=torch.tensor([2]))
    assert (found.xyxy.dtype, found.confidence.dtype, found.class_id.dtype) == (np.float32, np.float32, np.int64)
    assert len(found) == 1


def test_nothing_found_is_zero_rows_of_four():
    assert Detections(xyxy=[], confidence=[], class_id=[]).xyxy.shape == (0, 4)
    assert len(Detections.empty()) == 0


@pytest.mark.parametrize(
    ("xyxy", "confidence", "class_id", "complaint"),
    [
        ([[0, 0, 2]], [0.5], [0], r"xyxy: got shape \(1, 3\)"),
        ([[0, 0, 2, 2]], [0.5, 0.4], [0], "confidence: got shape"),
        ([[0, 0, np.nan, 2]], [0.5], [0], "NaN"),
        ([[5, 0, 2, 2]], [0.5], [0], "x2 < x1"),
        ([[0, 0, 2, 2]], [1.5], [0], "outside 0..1"),
        ([[0, 0, 2, 2]], [float("nan")], [0], "outside 0..1"),
        ([[0, 0, 2, 2]], [0.5], [-1], "class_id"),
    ],
)
def test_invalid_detections_are_refused(xyxy, confidence, class_id, complaint):
    with pytest.raises(ValueError, match=complaint):
        Detections(xyxy=xyxy, confidence=confidence, class_id=class_id)


def test_columns_keep_frame_order_and_the_frames_without_detections():
    columns = concatenate(
        [(0, detections([[0, 0, 1, 1]])), (5, Detections.empty()), (9, detections([[1, 1, 2, 2]] * 2))]
    )
    assert columns.frame_index.tolist() == [0, 9, 9]
    assert columns.inferred_frames.tolist() == [0, 5, 9]
    assert columns.track_id.tolist() == [-1, -1, -1]


def test_columns_of_no_frame_are_empty():
    assert len(concatenate([])) == 0


def test_selecting_rows_keeps_the_inferred_frames():
    columns = video_detections([(0, [0, 0, 1, 1], 0.9, 0), (1, [0, 0, 1, 1], 0.2, 1)], inferred_frames=[0, 1, 2])
    kept = columns.where(columns.confidence > 0.5)
    assert kept.class_id.tolist() == [0]
    assert kept.inferred_frames.tolist() == [0, 1, 2]


def test_a_batch_of_another_shape_or_type_is_refused():
    with pytest.raises(ValueError, match=r"expected \(2, H, W, 3\)"):
        FrameBatch(torch.zeros((1, 4, 4, 3), dtype=torch.uint8), np.arange(2), np.zeros(2))
    with pytest.raises(ValueError, match="expected uint8"):
        FrameBatch(torch.zeros((1, 4, 4, 3)), np.arange(1), np.zeros(1))
    assert batch(num=2, height=4, width=5).num_bytes == 2 * 4 * 5 * 3


def test_numbers_and_times_of_frames_may_be_lists():
    frames = FrameBatch(torch.zeros((2, 4, 4, 3), dtype=torch.uint8), [3, 4], [0.3, 0.4])
    assert (frames.frame_indices.dtype, frames.frame_indices.tolist()) == (np.int64, [3, 4])
    assert (frames.pts_seconds.dtype, frames.pts_seconds.tolist()) == (np.float64, [0.3, 0.4])


def test_a_video_has_a_size_and_turns_by_right_angles(tmp_path):
    with pytest.raises(ValueError, match="size"):
        VideoInfo(width=0, height=1, num_frames=1)
    with pytest.raises(ValueError, match="rotation_degrees"):
        VideoInfo(width=1, height=1, num_frames=1, rotation_degrees=45)
    with pytest.raises(ValueError, match="2 files"):
        Media("video", (tmp_path, tmp_path))


def test_pictures_of_one_task_may_differ_in_size():
    info = VideoInfo(width=4, height=3, num_frames=2, frame_sizes=((4, 3), (10, 20)))
    assert info.sizes(np.array([1, 0, 1])).tolist() == [[10, 20], [4, 3], [10, 20]]


def test_rows_on_a_frame_are_a_slice_and_none_on_others():
    columns = video_detections([(frame, [0, 0, 1, 1], 0.9, class_id) for frame, class_id in ((1, 0), (4, 1), (4, 2))])
    assert [columns.class_id[columns.rows_on(frame)].tolist() for frame in (0, 1, 2, 4, 5)] == [[], [0], [], [1, 2], []]
