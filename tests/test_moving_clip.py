from __future__ import annotations

from benchmarks.moving_clip import KEYFRAME_EVERY, write_moving_clip
from prelabel.readers.index import index_video


def test_the_clip_of_the_benchmarks_is_what_gpus_decode(tmp_path):
    index = index_video(write_moving_clip(tmp_path / "clip.mp4", 90, KEYFRAME_EVERY + 5))

    assert (index.info.width, index.info.height, index.info.num_frames) == (160, 90, KEYFRAME_EVERY + 5)
    assert (index.codec, index.pixel_format, index.has_reordering) == ("h264", "yuv420p", True)
    assert index.cut_points.tolist() == [0, KEYFRAME_EVERY]
