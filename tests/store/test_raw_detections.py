"""Raw detections: what comes back is what was written, and a damaged file says so."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prelabel.data.frames import VideoInfo
from prelabel.data.geometry import Keypoints, Mask, OutputSpec, Polygons
from prelabel.errors import LabelError
from prelabel.plugins.protocols import ModelRecord
from prelabel.store.raw_detections import (
    DetectionProvenance,
    RawRecord,
    frames_of_ranges,
    ranges_of_frames,
    read_origin,
    read_raw,
    write_raw,
)
from tests.geometries import DISC, POSE, POSE_OFFER, SQUARES, TURNED, with_geometry
from tests.labelling import IMAGE_GROUP, VIDEO, detections


def record(*rows, info=VIDEO, inferred_frames=(), partial=None, cuts=(), **origin):
    values = {
        "class_names": ("person", "fahrrad ü"),
        "model": ModelRecord("yolo11n", "ab" * 32, "AGPL-3.0"),
        "fingerprint": "f1:i1",
        "lowest_conf": 0.05,
        "digests": {"reader.stride": "0a1b"},
    }
    found = detections(*rows, inferred_frames=inferred_frames)
    return RawRecord(info, found, DetectionProvenance(**{**values, **origin}), partial, cuts)


def assert_equal(a, b):
    for field in dataclasses.fields(a.detections):
        left, right = getattr(a.detections, field.name), getattr(b.detections, field.name)
        assert left.dtype == right.dtype
        if field.name == "geometry":
            assert list(map(plain, left)) == list(map(plain, right))
        else:
            assert np.array_equal(left, right)
    without = {field.name for field in dataclasses.fields(a)} - {"detections"}
    assert {name: getattr(a, name) for name in without} == {name: getattr(b, name) for name in without}


def plain(geometry):
    """Returns a geometry as values that can be compared."""
    match geometry:
        case Mask():
            return (*(getattr(geometry, name) for name in ("left", "top", "width", "height")), *geometry.counts)
        case Polygons():
            return [[ring.tolist() for ring in rings] for rings in geometry.parts]
        case Keypoints():
            return geometry.xy.tolist(), geometry.confidence.tolist()
    return geometry


def geometry_record(*values, offer):
    found = with_geometry(*((frame, (1, 2, 3, 4), 0.5, 0, value) for frame, value in enumerate(values)))
    return dataclasses.replace(record(offer=offer), detections=found)


@pytest.mark.parametrize(
    "written",
    [
        record((0, (1.1, 2.2, 3.3, 4.4), 0.123, 0), (7, (1, 2, 3, 4), 1, 1), inferred_frames=range(0, 40, 7)),
        record(),
        record(inferred_frames=range(40), model=None, partial="frame 31 of 40 could not be read"),
        record((2, (1, 2, 3, 4), 1, 1), info=IMAGE_GROUP),
        record((0, (1, 2, 3, 4), 1, 1), info=VideoInfo(6, 4, 3, 29.97002997, 0.1001, 270)),
        geometry_record(DISC, None, Mask.of(DISC.pixels, 9, 9), offer=OutputSpec("mask")),
        geometry_record(None, SQUARES, offer=OutputSpec("polygons")),
        geometry_record(TURNED, None, offer=OutputSpec("rotated_box")),
        geometry_record(None, POSE, POSE, offer=POSE_OFFER),
    ],
    ids=["strided", "empty", "partial", "pictures", "rotated", "masks", "polygons", "turned", "poses"],
)
def test_record_comes_back_as_it_was(tmp_path, written):
    write_raw(tmp_path / "deep" / "clip.detections.parquet", written)
    assert_equal(read_raw(tmp_path / "deep" / "clip.detections.parquet"), written)


def test_columns_have_the_promised_types(tmp_path):
    write_raw(tmp_path / "clip.parquet", record((0, (1, 2, 3, 4), 0.5, 0)))
    schema = pq.read_schema(tmp_path / "clip.parquet")
    assert [(field.name, str(field.type).replace("element", "item")) for field in schema] == [
        ("frame_index", "int64"),
        ("xyxy", "fixed_size_list<item: float>[4]"),
        ("confidence", "float"),
        ("class_id", "int64"),
        ("track_id", "int64"),
    ]


def test_damaged_file_is_named(tmp_path):
    path = tmp_path / "clip.parquet"
    write_raw(path, record(*[(0, (1, 2, 3, 4), 0.5, 0)] * 100))
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(LabelError, match=r"clip.parquet: not whole, or not written by prelabel"):
        read_raw(path)


def test_parquet_of_somebody_else_is_named(tmp_path):
    path = tmp_path / "clip.parquet"
    write_raw(path, record())
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    with pytest.raises(LabelError, match="not written by prelabel"):
        read_raw(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(LabelError, match="there is no such file"):
        read_raw(tmp_path / "clip.parquet")


def test_failed_write_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "clip.parquet"
    write_raw(path, record(fingerprint="old"))
    with pytest.raises(TypeError):
        write_raw(path, record(fingerprint=object()))
    assert read_raw(path).origin.fingerprint == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["clip.parquet"]


def test_frames_of_a_stride_are_stored_as_one_range():
    assert ranges_of_frames(np.arange(0, 1_000_000, 3)) == [[0, 333_334, 3]]


@given(st.sets(st.integers(0, 60)))
def test_any_frames_come_back_from_their_runs(frames):
    rising = np.array(sorted(frames), np.int64)
    assert np.array_equal(frames_of_ranges(ranges_of_frames(rising)), rising)


def test_cuts_come_back(tmp_path):
    path = tmp_path / "clip.detections.parquet"
    write_raw(path, record((0, (1, 2, 3, 4), 1, 1), cuts=(3, 17)))
    assert read_raw(path).cuts == (3, 17)


def test_the_circumstances_are_told_without_the_boxes(tmp_path):
    path = tmp_path / "clip.detections.parquet"
    write_raw(path, record((0, (1, 2, 3, 4), 1, 1)))
    origin = read_origin(path)
    assert origin == read_raw(path).origin
    assert (origin.detector_fingerprint, origin.media_identity, origin.lowest_conf) == ("f1", "i1", 0.05)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(LabelError, match="not whole, or not written by prelabel"):
        read_origin(path)


def test_a_file_of_an_earlier_format_is_refused(tmp_path):
    path = tmp_path / "clip.detections.parquet"
    write_raw(path, record())
    table = pq.read_table(path)
    values = json.loads(table.schema.metadata[b"prelabel"]) | {"format": 1}
    pq.write_table(table.replace_schema_metadata({b"prelabel": json.dumps(values)}), path)
    with pytest.raises(LabelError, match="got format 1, expected 2: delete it and run again"):
        read_raw(path)
