from __future__ import annotations

import json
from pathlib import Path

from prelabel.files.demo import CLIP_NAME, TRUTH_NAME, DemoSource
from prelabel.media.index import index_video


def test_the_clip_and_its_truth_are_copied_into_the_output(tmp_path: Path) -> None:
    (task,) = DemoSource(tmp_path / "out").tasks()
    with task.open() as media:
        assert media.paths == (tmp_path / "out" / CLIP_NAME,)
    truth = json.loads((tmp_path / "out" / TRUTH_NAME).read_text())
    assert [image["frame_index"] for image in truth["images"]] == list(range(150))
    assert {image["video"] for image in truth["images"]} == {CLIP_NAME}
    assert index_video(media.paths[0]).info.num_frames == 150


def test_a_second_run_keeps_the_copy_so_that_the_task_stays_the_same(tmp_path: Path) -> None:
    first, second = (next(DemoSource(tmp_path).tasks()) for _ in range(2))
    assert first.identity == second.identity


def test_a_damaged_copy_is_replaced(tmp_path: Path) -> None:
    (before,) = DemoSource(tmp_path).tasks()
    (tmp_path / CLIP_NAME).write_bytes(b"half")
    (after,) = DemoSource(tmp_path).tasks()
    assert after.identity == before.identity
