"""Labels that another process has made for a row are those that the run would make, or are not used."""

from __future__ import annotations

import copy
from dataclasses import replace

import orjson
import pytest

from prelabel.errors import RowTooLargeError
from prelabel.labels.row.ready import make_ready, unlabelled_video
from prelabel.labels.row.size import check_row_size, row_num_bytes, without_fragments
from prelabel.labels.row.write import write_detections
from tests.labelling import MEDIA, NOW, VIDEO, detections, map_of_shapes, new_row

FOUND = detections((0, (1, 2, 30, 31), 0.5, 0), (0, (4, 4, 9, 9), 0.61, 1), (3, (0, 0, 32, 32), 1, 2))
OTHERS = detections((0, (9, 9, 20, 20), 0.8, 0), (5, (1, 1, 5, 5), 0.5, 0))


def written(row, found=FOUND, info=VIDEO):
    return write_detections(row, found, info, map_of_shapes(), now=NOW)


def ready(expected: bytes, found=FOUND, info=VIDEO):
    return make_ready(expected, found, info, map_of_shapes(), now=NOW)


def drawn_by_a_person(info):
    row = written(new_row(info), OTHERS if info.num_frames > 5 else OTHERS.take([0]), info).row
    for unit in row["data_units"].values():
        labels = unit["labels"]
        for on_frame in [labels] if "objects" in labels else labels.values():
            for label in on_frame["objects"]:
                label["manualAnnotation"] = True
    return orjson.loads(orjson.dumps(row))


def test_a_row_without_labels_gets_what_the_run_would_write():
    row = new_row(VIDEO)
    (data_hash,) = row["data_units"]
    put = ready(unlabelled_video(data_hash)).put_on(row, VIDEO)
    expected = written(row)
    assert replace(put, row=without_fragments(put.row)) == expected
    assert row_num_bytes(put.row) == row_num_bytes(expected.row)


@pytest.mark.parametrize("kind", MEDIA)
def test_a_row_with_labels_gets_them_if_the_other_process_knew_it(kind):
    info = MEDIA[kind]
    found, row = FOUND if info.num_frames > 3 else FOUND.take([0, 1]), drawn_by_a_person(info)
    put = ready(orjson.dumps(row), found, info).put_on(row, info)
    expected = written(row, found, info)
    assert row["object_answers"]
    assert replace(put, row=without_fragments(put.row)) == expected


def test_another_row_does_not_get_them():
    row = new_row(VIDEO)
    (data_hash,) = row["data_units"]
    made = ready(unlabelled_video(data_hash))
    other_size = copy.deepcopy(row)
    other_size["data_units"][data_hash]["width"] = 65
    for other in (drawn_by_a_person(VIDEO), written(row).row, other_size):
        assert made.put_on(other, VIDEO) is None
    assert ready(unlabelled_video("other")).put_on(row, VIDEO) is None


def test_a_row_that_is_too_large_with_them_says_what_would_fit():
    row = new_row(VIDEO)
    (data_hash,) = row["data_units"]
    put = ready(unlabelled_video(data_hash)).put_on(row, VIDEO)
    with pytest.raises(RowTooLargeError, match=r"labels\.conf=0\.51"):
        check_row_size(put.row, row_num_bytes(put.row) - 1)
