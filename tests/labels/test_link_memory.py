from __future__ import annotations

from dataclasses import replace

import numpy as np

from prelabel.data.frames import VideoInfo
from prelabel.labels.tracking import LinkMemory
from tests.labelling import detections

INFO = VideoInfo(64, 48, 10, average_fps=25.0, duration_seconds=0.4)
FOUND = detections((0, (2, 2, 20, 20), 0.9, 0), (1, (3, 2, 21, 20), 0.8, 0))


class Linker:
    """Gives every box a track of its own, and counts how often it is asked."""

    def __init__(self) -> None:
        self.num_asked = 0

    def __call__(self):
        self.num_asked += 1
        return np.arange(2)


def test_the_same_boxes_are_linked_once():
    memory, linker = LinkMemory(), Linker()
    answers = [memory.once(FOUND, INFO, (), linker) for _ in range(3)]
    assert linker.num_asked == 1
    assert [answer.tolist() for answer in answers] == [[0, 1]] * 3
    assert {answer.dtype for answer in answers} == {np.dtype(np.int64)}


def test_whatever_a_tracker_is_shown_makes_them_others():
    memory, linker = LinkMemory(), Linker()
    memory.once(FOUND, INFO, (), linker)
    others = [
        (replace(FOUND, xyxy=FOUND.xyxy + 1), INFO, ()),
        (replace(FOUND, confidence=FOUND.confidence / 2), INFO, ()),
        (replace(FOUND, class_id=FOUND.class_id + 1), INFO, ()),
        (replace(FOUND, frame_index=FOUND.frame_index + 1), INFO, ()),
        (replace(FOUND, inferred_frames=np.arange(9)), INFO, ()),
        (FOUND, replace(INFO, average_fps=30.0), ()),
        (FOUND, INFO, (1,)),
    ]
    for number, (found, info, cuts) in enumerate(others, start=2):
        memory.once(found, info, cuts, linker)
        assert linker.num_asked == number


def test_what_was_not_asked_for_longest_is_forgotten_first():
    memory, linker = LinkMemory(max_bytes=16), Linker()  # two videos of two boxes
    for cuts in ((), (1,), (), (2,)):
        memory.once(FOUND, INFO, cuts, linker)
    assert linker.num_asked == 3
    memory.once(FOUND, INFO, (), linker)
    assert linker.num_asked == 3
    memory.once(FOUND, INFO, (1,), linker)
    assert linker.num_asked == 4
