from __future__ import annotations

from benchmarks.moving_clip import KEYFRAME_EVERY, write_moving_clip
from prelabel.media.index import index_video
from prelabel.media.packets import open_video


def test_the_clip_of_the_benchmarks_is_what_gpus_decode(tmp_path):
    path = write_moving_clip(tmp_path / "clip.mp4", 90, KEYFRAME_EVERY + 5)
    index = index_video(path)

    assert (index.info.width, index.info.height, index.info.num_frames) == (160, 90, KEYFRAME_EVERY + 5)
    assert (index.codec, index.pixel_format) == ("h264", "yuv420p")
    with open_video(path) as (_, stream):
        assert stream.codec_context.has_b_frames
    assert index.closed_gop_starts.tolist() == [0, KEYFRAME_EVERY]
