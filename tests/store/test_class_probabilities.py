from __future__ import annotations

import numpy as np
import pytest

from prelabel.data.frames import VideoInfo
from prelabel.errors import LabelError
from prelabel.store.labelled import ClassRecord, read_classes, write_classes

INFO = VideoInfo(width=64, height=48, num_frames=3, frame_sizes=((64, 48), (32, 32), (50, 70)))


@pytest.mark.parametrize("num", [0, 1, 3])
def test_what_is_written_is_read(tmp_path, num):
    probabilities = np.random.default_rng(0).random((num, 5)).astype(np.float32)
    record = ClassRecord(INFO, np.arange(num), probabilities, "fingerprint", "the file is cut off")
    write_classes(tmp_path / "a.classes.parquet", record)
    read = read_classes(tmp_path / "a.classes.parquet")
    assert (read.info, read.fingerprint, read.partial) == (INFO, "fingerprint", "the file is cut off")
    assert np.array_equal(read.probabilities, probabilities)
    assert np.array_equal(read.frame_index, np.arange(num))


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "a.classes.parquet"
    with pytest.raises(LabelError, match="no such file"):
        read_classes(path)
    path.write_bytes(b"PAR1 and nothing more")
    with pytest.raises(LabelError, match=r"a\.classes\.parquet: not whole"):
        read_classes(path)


def test_a_row_is_a_picture():
    with pytest.raises(ValueError, match=r"got shape \(2, 5\), expected \(3, C\)"):
        ClassRecord(INFO, np.arange(3), np.zeros((2, 5), np.float32), "")
