from __future__ import annotations

import numpy as np

from prelabel.export.export import object_instances
from tests.export.building import video

BOX = (0, 0, 9, 9)


def test_instances_are_tracks_and_single_labels_with_their_last_frames():
    rows = [(0, BOX, 0.5, 0), (0, BOX, 0.5, 1), (1, BOX, 0.5, 0), (4, BOX, 0.5, 0)]
    found = [(rows, leaves) for rows, leaves in object_instances(video("a", *rows, track_id=[1, -1, 1, 1]))]
    assert found == [([0, 2, 3], [False, True, True]), ([1], [True])]


def test_labels_marked_as_single_leave_their_track():
    rows = [(0, BOX, 0.5, 0), (1, BOX, 0.5, 0)]
    instances = object_instances(video("a", *rows, track_id=1), single=np.array([True, True]))
    assert [rows for rows, _ in instances] == [[0], [1]]
