"""Labelled detections come back from their file as they were."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from prelabel.data.detections import VideoDetections
from prelabel.data.frames import VideoInfo
from prelabel.labels.filter import FilteredDetections
from prelabel.labels.keyframes import KeyframeStats
from prelabel.store.labelled import LabelledDetections, labelled_content, read_labelled, write_labelled

INFO = VideoInfo(64, 48, 10, 25.0, 0.4)


def labelled(thinning: KeyframeStats | None = None) -> LabelledDetections:
    detections = VideoDetections(
        frame_index=np.array([0, 2, 4]),
        xyxy=np.array([[0, 0, 9.1, 9], [1, 1, 9, 9], [2, 2, 9, 9]], np.float32),
        confidence=np.array([0.9, 0, 0.7], np.float32),
        class_id=np.array([1, 1, 1]),
        track_id=np.array([1, 1, 1]),
        inferred_frames=np.arange(0, 10, 2),
        interpolated=np.array([False, True, False]),
    )
    filtered = FilteredDetections(detections, {"low_confidence": {"car": 3}}, thinning)
    return LabelledDetections(INFO, filtered, "labels:media", "0a1b")


def test_every_field_comes_back(tmp_path):
    written = labelled(KeyframeStats(3, 2, 0.9, 0.8))
    write_labelled(tmp_path / "a.parquet", written)
    read = read_labelled(tmp_path / "a.parquet")
    assert read is not None
    assert (read.info, read.fingerprint, read.raw_digest) == (INFO, "labels:media", "0a1b")
    assert (read.filtered.dropped, read.filtered.thinning) == (written.filtered.dropped, written.filtered.thinning)
    for field in fields(VideoDetections):
        before, after = getattr(written.filtered.detections, field.name), getattr(read.filtered.detections, field.name)
        assert (before.dtype, before.tolist()) == (after.dtype, after.tolist()), field.name


def test_a_missing_or_damaged_file_is_no_result(tmp_path):
    path = tmp_path / "a.parquet"
    assert read_labelled(path) is None
    write_labelled(path, labelled())
    path.write_bytes(path.read_bytes()[:-20])
    assert read_labelled(path) is None


def test_a_file_is_read_from_its_bytes_too():
    read = read_labelled(labelled_content(labelled()).to_bytes())
    assert read is not None
    assert read.filtered.detections.xyxy.tolist() == labelled().filtered.detections.xyxy.tolist()
